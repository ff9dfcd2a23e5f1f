"""A server that ends unexpectedly is restarted; a stopped one stays down."""

import threading
from collections.abc import Iterator

import pytest

from devstack.processes import ChildFailed
from devstack.supervision import WATCH_SECONDS, Supervised
from tests.devstack.cloud import eventually


class FakeServer:
    """A server without a process."""

    def __init__(self) -> None:
        self.running = False
        self.starts = 0
        self.failing = False
        self.slow = threading.Event()
        self.slow.set()

    @property
    def pid(self) -> int:
        return 1000 + self.starts

    def ready(self) -> bool:
        return True

    def start(self) -> None:
        self.starts += 1
        self.slow.wait(4 * WATCH_SECONDS)
        if self.failing:
            raise ChildFailed("it does not want to")
        self.running = True

    def stop(self) -> None:
        self.running = False

    def kill(self) -> None:
        self.running = False


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def supervised(server: FakeServer, reports: list[str]) -> Iterator[Supervised]:
    supervised = Supervised("fake", server, changed=lambda: None, report=reports.append)
    supervised.start()
    yield supervised
    supervised.close(kill=True)


def test_a_server_that_ends_by_itself_is_reported_and_comes_back(
    server: FakeServer, supervised: Supervised, reports: list[str]
) -> None:
    server.running = False
    eventually(lambda: len(reports) == 2)
    assert supervised.pid == 1002
    assert reports == ["fake ended unexpectedly; it is started again in 0.5 s", "fake is back, process 1002"]


def test_a_server_that_cannot_come_back_yet_is_tried_again(
    server: FakeServer, supervised: Supervised, reports: list[str]
) -> None:
    server.failing, server.running = True, False
    eventually(lambda: "it does not want to" in reports)
    server.failing = False
    eventually(lambda: supervised.pid is not None)


def test_a_server_that_was_killed_on_purpose_stays_down_until_it_is_started(
    server: FakeServer, supervised: Supervised, reports: list[str]
) -> None:
    supervised.kill()
    assert not server.running
    supervised.start()
    assert server.starts == 2
    assert reports == []


def test_a_start_that_takes_long_is_no_end(
    server: FakeServer, supervised: Supervised, reports: list[str]
) -> None:
    supervised.stop()
    server.slow.clear()
    supervised.start()
    supervised.close(kill=False)
    assert server.starts == 2
    assert reports == []


def test_nothing_is_started_once_it_is_closed(server: FakeServer, supervised: Supervised) -> None:
    supervised.close(kill=False)
    with pytest.raises(ChildFailed, match="being stopped"):
        supervised.start()
    assert not server.running
