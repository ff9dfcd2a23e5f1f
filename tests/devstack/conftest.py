"""An AWS endpoint for the tests of its layer."""

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from devstack.aws.client import AwsEndpoint
from devstack.processes import Child, free_port
from tests.devstack.cloud import PATIENCE_SECONDS, Clients, endpoint_process, wait_for_endpoint

CONFIG = Config(
    region_name="us-east-1",
    retries={"total_max_attempts": 1},
    connect_timeout=PATIENCE_SECONDS,
    read_timeout=PATIENCE_SECONDS,
)
"""Each call is made once, so that it can be counted; hence the long timeouts instead of retries."""


@pytest.fixture(scope="module")
def endpoint_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an endpoint shared by the tests of a file, each with its own workspaces."""
    port = free_port()
    process = endpoint_process(tmp_path_factory.mktemp("aws"), port)
    process.start()
    try:
        yield wait_for_endpoint(process, port)
    finally:
        process.stop()


@pytest.fixture
def endpoint(endpoint_url: str) -> Iterator[AwsEndpoint]:
    """The shared endpoint, without any fault before and after."""
    with AwsEndpoint(endpoint_url) as endpoint:
        endpoint.clear()
        yield endpoint
        endpoint.clear()


@pytest.fixture(scope="session")
def connect() -> Iterator[Callable[[str], Clients]]:
    """Make boto3 clients of an endpoint, and close them at the end."""
    made: list[Clients] = []

    def clients(url: str) -> Clients:
        session = boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing")
        pair = Clients(
            ec2=session.client("ec2", endpoint_url=url, config=CONFIG),
            route53=session.client("route53", endpoint_url=url, config=CONFIG),
        )
        made.append(pair)
        return pair

    yield clients
    for pair in made:
        pair.ec2.close()
        pair.route53.close()


@pytest.fixture(scope="module")
def clients(endpoint_url: str, connect: Callable[[str], Clients]) -> Clients:
    """boto3 clients of the shared endpoint."""
    return connect(endpoint_url)


@pytest.fixture
def own_endpoint(tmp_path: Path) -> Iterator[tuple[Child, int]]:
    """An endpoint for one test that keeps its state; not started yet."""
    port = free_port()
    process = endpoint_process(tmp_path, port, "--state", str(tmp_path / "aws.state"))
    try:
        yield process, port
    finally:
        process.stop()
