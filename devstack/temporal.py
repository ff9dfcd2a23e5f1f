"""A Temporal dev server with its UI, from the CLI in a wheel. Registers Onebox's search attributes."""

import shutil
import subprocess
import sys
from pathlib import Path

from typing_extensions import override

from devstack.processes import LOCALHOST, READY_SECONDS, Child, ChildFailed, accepts_connections
from devstack.server_process import ChildServer
from workflows.shared.names import SEARCH_ATTRIBUTES

DYNAMIC_CONFIG = {
    # By default, each timer and each backoff rounds up to a second.
    "history.timerProcessorMaxTimeShift": '"10ms"',
    # By default, each workflow task waits up to 40 ms for the next poll of a queue.
    "history.transferProcessorMaxPollRPS": "10000",
    "history.timerProcessorMaxPollRPS": "10000",
    "history.visibilityProcessorMaxPollRPS": "10000",
    # By default, a stuck run is reported after five failed tasks, a minute later.
    "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute": "2",
}

SQLITE_PRAGMAS = {"journal_mode": "wal", "synchronous": "1"}
"""Twice as fast as the default journal, and equally safe against a killed process."""


class Temporal(ChildServer):
    """One dev server on 127.0.0.1. Workflows outlive it in an SQLite file."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int,
        ui_port: int,
        ui_codec: str | None = None,
        dynamic_config: dict[str, str] | None = None,
    ) -> None:
        """`dynamic_config` adds server settings, as JSON values.

        `ui_codec` is the codec server that decrypts payloads for the UI.
        """
        super().__init__()
        self.port = port
        self.ui_port = ui_port
        self._ui_codec = ui_codec
        self._data_dir = data_dir
        self._dynamic_config = DYNAMIC_CONFIG | (dynamic_config or {})

    @property
    def address(self) -> str:
        """Where clients connect, as host:port."""
        return f"{LOCALHOST}:{self.port}"

    @property
    def ui_url(self) -> str:
        """URL of the UI."""
        return f"http://{LOCALHOST}:{self.ui_port}"

    @override
    def start(self) -> None:
        """Start it and wait until the namespace and the search attributes exist."""
        child = self._child()
        child.start()
        child.wait_ready(self.ready, seconds=READY_SECONDS)

    @override
    def _make(self) -> Child:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        attributes = [f"{key.name}={key.indexed_value_type.name.title()}" for key in SEARCH_ATTRIBUTES]
        return Child(
            "temporal",
            [
                temporal_cli(),
                *("server", "start-dev", "--ip", LOCALHOST),
                *("--port", str(self.port), "--ui-port", str(self.ui_port)),
                *("--db-filename", str(self._data_dir / "temporal.db"), "--log-level", "warn"),
                *_options("--ui-codec-endpoint", [self._ui_codec] if self._ui_codec else []),
                *_options("--sqlite-pragma", [f"{name}={value}" for name, value in SQLITE_PRAGMAS.items()]),
                *_options(
                    "--dynamic-config-value",
                    [f"{name}={value}" for name, value in self._dynamic_config.items()],
                ),
                *_options("--search-attribute", attributes),
            ],
            log=self._data_dir / "temporal.log",
        )

    def ready(self) -> bool:
        """Whether the namespace and the search attributes exist."""
        if not accepts_connections(self.port) or not accepts_connections(self.ui_port):
            return False
        listing = subprocess.run(  # noqa: S603
            [
                temporal_cli(),
                *("operator", "search-attribute", "list", "--namespace", "default"),
                *("--address", self.address, "--command-timeout", "5s"),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        return listing.returncode == 0 and all(key.name in listing.stdout for key in SEARCH_ATTRIBUTES)


def temporal_cli() -> str:
    """Return the path of the `temporal` CLI: next to the interpreter, else on the PATH."""
    beside = Path(sys.executable).with_name("temporal")
    found = str(beside) if beside.exists() else shutil.which("temporal")
    if found is None:
        raise ChildFailed("the temporal CLI is neither beside the interpreter nor on the PATH")
    return found


def _options(name: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (name, value)]
