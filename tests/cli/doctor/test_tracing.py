"""The check of the trace collector."""

import pytest

from cli.doctor import tracing
from cli.doctor.model import Finding, Status
from devstack.processes import free_port
from tests.integration.collector import Collector

pytestmark = pytest.mark.anyio

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def found(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Finding:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    [finding] = await tracing.findings()
    return finding


async def test_a_collector_that_accepts_spans_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        finding = await found(monkeypatch, **{ENDPOINT: collector.url})
    assert finding.status is Status.OK


async def test_without_an_endpoint_the_check_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert (await found(monkeypatch)).status is Status.SKIPPED


async def test_an_unreachable_collector_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    finding = await found(monkeypatch, **{ENDPOINT: f"http://u:pa55word@127.0.0.1:{port}"})
    assert finding.status is Status.WARNING
    assert f"127.0.0.1:{port}" in finding.message
    assert "pa55word" not in finding.message
    assert finding.variables == (ENDPOINT,)
    assert "4318" in finding.remedy


async def test_an_unsupported_protocol_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = await found(
        monkeypatch, **{ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    )
    assert finding.status is Status.WARNING
    assert finding.variables == ("OTEL_EXPORTER_OTLP_PROTOCOL",)
