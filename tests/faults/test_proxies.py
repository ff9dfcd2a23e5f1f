"""The proxies of a run on real connections: what is cut, slow or half open, and what is not."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from faults import proxies as module
from faults.proxies import LATE_SECONDS, Proxies

PATIENCE_SECONDS = 120.0


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is late because of the machine does not count as cut."""
    monkeypatch.setattr(module, "CONNECT_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def echo() -> Iterator[int]:
    """An echo server. Returns its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # closed
                threading.Thread(target=say_back, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def say_back(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(1024):
                connection.sendall(data)
        except OSError:
            return


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    with Proxies() as proxies:
        yield proxies


@pytest.fixture
def port(proxies: Proxies, echo: int) -> int:
    return proxies.open("wire", lambda _: ("127.0.0.1", echo))


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def says_back(connection: socket.socket) -> bool:
    connection.sendall(b"hello")
    return connection.recv(1024) == b"hello"


def is_reset(connection: socket.socket) -> bool:
    try:
        return connection.recv(1024) == b""
    except ConnectionResetError:
        return True


def test_an_undisturbed_wire_carries_both_ways(port: int) -> None:
    with connect(port) as connection:
        assert says_back(connection)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1024) == b""


def test_a_cut_wire_resets_what_was_open_and_what_is_new_and_heals(proxies: Proxies, port: int) -> None:
    with connect(port) as before:
        assert says_back(before)
        with proxies.disturbed("wire", "cut") as effective:
            assert is_reset(before)
            with connect(port) as during:
                assert is_reset(during)
            assert effective() == 2
    with connect(port) as after:
        assert says_back(after)


def test_a_half_open_wire_swallows_and_forgets_the_connection_at_its_end(proxies: Proxies, port: int) -> None:
    with connect(port) as connection:
        assert says_back(connection)
        with proxies.disturbed("wire", "half_open") as effective:
            connection.sendall(b"hello")
            until(lambda: effective() > 0)
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(1024)
        connection.settimeout(PATIENCE_SECONDS)
        assert is_reset(connection)
    with connect(port) as after:
        assert says_back(after)


def test_a_connection_on_which_nothing_was_lost_outlives_a_half_open_wire(
    proxies: Proxies, port: int
) -> None:
    with connect(port) as connection:
        assert says_back(connection)
        with proxies.disturbed("wire", "half_open"):
            pass
        assert says_back(connection)


def test_a_slow_wire_is_late_and_loses_nothing(proxies: Proxies, port: int) -> None:
    with connect(port) as connection, proxies.disturbed("wire", "slow") as effective:
        began = time.monotonic()
        assert says_back(connection)
        # Timed from the outside: a measurement in the middle may be late as well. Each direction is delayed.
        assert time.monotonic() - began > 1.9 * LATE_SECONDS
        assert effective() == 2


def test_two_faults_of_one_wire_end_one_by_one(proxies: Proxies, port: int) -> None:
    with proxies.disturbed("wire", "cut"):
        with proxies.disturbed("wire", "cut"):
            pass
        with connect(port) as connection:
            assert is_reset(connection)


def test_other_connections_are_not_changed(proxies: Proxies, port: int, echo: int) -> None:
    other = proxies.open("other", lambda _: ("127.0.0.1", echo))
    with proxies.disturbed("wire", "cut"), connect(other) as connection:
        assert says_back(connection)


def test_the_server_sees_the_callers_own_address(proxies: Proxies) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = proxies.open("wire", lambda _: ("127.0.0.1", server.getsockname()[1]))
        with socket.create_connection(("127.0.0.1", port), source_address=("127.66.1.2", 0)):
            connection, (address, _) = server.accept()
            connection.close()
    assert address == "127.66.1.2"


def test_one_door_leads_to_whom_the_caller_meant(proxies: Proxies, echo: int) -> None:
    port = proxies.open("boxes", lambda door: (door[0], echo), host="0.0.0.0")
    with connect(port) as connection:
        assert says_back(connection)
    with socket.create_connection(("127.66.1.3", port), timeout=PATIENCE_SECONDS) as nobody:
        assert is_reset(nobody)
