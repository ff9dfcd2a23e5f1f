"""The programs of a stack, each with the command that starts it and the sign that it is ready.

They are started as anyone would start them, told by their environment; nothing of theirs is imported.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from devstack.processes import Child, ChildFailed, Program, accepts_connections
from devstack.surroundings import Ports

MIGRATION_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """How to start the programs of one stack."""

    state_dir: Path
    ports: Ports
    pending_seconds: float
    terminating_seconds: float

    @property
    def boxes_dir(self) -> Path:
        """Where the boxes have their files."""
        return self.state_dir / "boxes"

    def log(self, name: str) -> Path:
        """The log file of a program."""
        return self.state_dir / "logs" / f"{name}.log"

    def aws(self, environment: Mapping[str, str]) -> Program:
        """The AWS endpoint."""
        arguments = [
            *("devstack.aws", "--port", str(self.ports.aws), "--state", str(self.state_dir / "aws.state")),
            *("--pending-seconds", str(self.pending_seconds)),
            *("--terminating-seconds", str(self.terminating_seconds)),
        ]
        port = self.ports.aws
        return self._program("aws", arguments, environment, lambda _: accepts_connections(port))

    def production(self, name: str, environment: Mapping[str, str]) -> Program:
        """The worker, the register API, the codec server, or the box host."""
        readyz, healthz = f"{self.ports.register_api_url}/readyz", f"{self.ports.codec_url}/healthz"
        match name:
            case "worker":
                return self._program(name, ["workers", "worker"], environment, _logged("worker.started"))
            case "api":
                return self._program(name, ["workers", "api"], environment, lambda _: _answers(readyz))
            case "codec":
                return self._program(name, ["workers", "codec"], environment, lambda _: _answers(healthz))
            case _:
                host = ["devstack.boxes", "--aws", self.ports.aws_url, "--dir", str(self.boxes_dir)]
                return self._program(name, host, environment, _logged("boxes.started"))

    def migrate(self, environment: Mapping[str, str]) -> None:
        """Bring the schema up to date. Raises `ChildFailed`."""
        migration = Child(
            "migrate",
            [sys.executable, "-m", "workers", "migrate"],
            log=self.log("migrate"),
            environment=environment,
        )
        migration.start()
        try:
            if not migration.wait(seconds=MIGRATION_SECONDS) or migration.exit_code != 0:
                raise ChildFailed(f"onebox migrate failed:\n{migration.tail()}")
        finally:
            migration.kill()

    def _program(
        self,
        name: str,
        arguments: list[str],
        environment: Mapping[str, str],
        ready: Callable[[Program], bool],
    ) -> Program:
        return Program(
            name,
            [sys.executable, "-m", *arguments],
            log=self.log(name),
            environment=environment,
            ready=ready,
        )


def _logged(event: str) -> Callable[[Program], bool]:
    return lambda program: event in program.log_text()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
