"""The programs of a stack, each with the command that starts it and the sign that it is ready.

They are started as anyone would start them, told by their environment; nothing of theirs is imported.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from devstack.balancer import STATUS_PATH, Upstream
from devstack.environment import API_PORT_SUFFIX, Ports, ProcessCounts
from devstack.processes import Child, ChildFailed, Program, accepts_connections

MIGRATION_SECONDS = 60.0

GRACE_SECONDS = 60.0
"""What production gives them after SIGTERM, and more: they end by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """How to start the programs of one stack."""

    state_dir: Path
    ports: Ports
    crew: ProcessCounts
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
        """A worker, a register API, the codec server, or the box host."""
        if name in self.crew.worker_names:
            return self._program(name, ["cli", "worker"], environment, _logged("worker.started"))
        if name in self.crew.api_names:
            readyz = f"http://{environment['REGISTER_API_BIND']}/readyz"
            return self._program(name, ["cli", "api"], environment, lambda _: self._serves(name, readyz))
        if name == "codec":
            healthz = f"{self.ports.codec_url}/healthz"
            return self._program(name, ["cli", "codec"], environment, lambda _: _answers(healthz))
        host = ["devstack.boxes", "--aws", self.ports.aws_url, "--dir", str(self.boxes_dir)]
        return self._program(name, host, environment, _logged("boxes.started"))

    def balancer(self, environment: Mapping[str, str]) -> Program:
        """The load balancer before several register APIs, at the address that boxes call."""
        upstreams = [f"{name}={self.ports.others[name + API_PORT_SUFFIX]}" for name in self.crew.api_names]
        arguments = ["devstack.balancer", "--port", str(self.ports.register_api), *upstreams]
        return self._program("balancer", arguments, environment, lambda _: self.balanced() is not None)

    def balanced(self) -> dict[str, Upstream] | None:
        """What the balancer thinks of the APIs, by name; None if it doesn't answer."""
        try:
            answer = httpx.get(f"{self.ports.register_api_url}{STATUS_PATH}", timeout=5.0, trust_env=False)
            answer.raise_for_status()
        except httpx.HTTPError:
            return None
        return {each["name"]: Upstream(**each) for each in answer.json()}

    def _serves(self, name: str, readyz: str) -> bool:
        """Ready, and where there is a balancer, calls come from it."""
        if not _answers(readyz):
            return False
        if not self.crew.balanced:
            return True
        upstreams = self.balanced()
        return upstreams is not None and upstreams[name].ready

    def migrate(self, environment: Mapping[str, str]) -> None:
        """Bring the schema up to date. Raises `ChildFailed`."""
        migration = Child(
            "migrate",
            [sys.executable, "-m", "cli", "migrate"],
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
            stop_seconds=GRACE_SECONDS,
        )


def _logged(event: str) -> Callable[[Program], bool]:
    return lambda program: event in program.log_text()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
