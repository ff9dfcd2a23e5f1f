"""The programs of a stack: the command that starts each one and its readiness check.

They run as separate commands, configured by environment variables.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from devstack.balancer import STATUS_PATH, Upstream
from devstack.environment import API_PORT_SUFFIX, Ports, ProcessCounts
from devstack.processes import Child, ChildFailed, Program, accepts_connections

MIGRATION_SECONDS = 60.0

GRACE_SECONDS = 60.0
"""Longer than production allows after SIGTERM; the programs end before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Commands of one stack."""

    state_dir: Path
    ports: Ports
    crew: ProcessCounts
    pending_seconds: float
    terminating_seconds: float

    @property
    def boxes_dir(self) -> Path:
        """Directory of the boxes' files."""
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
        """The load balancer for several register APIs, at the address that boxes call."""
        upstreams = [f"{name}={self.ports.others[name + API_PORT_SUFFIX]}" for name in self.crew.api_names]
        arguments = ["devstack.balancer", "--port", str(self.ports.register_api), *upstreams]
        return self._program("balancer", arguments, environment, lambda _: self.balanced() is not None)

    def balanced(self) -> dict[str, Upstream] | None:
        """Return the balancer's view of the APIs, by name; None if it does not answer."""
        try:
            answer = httpx2.get(f"{self.ports.register_api_url}{STATUS_PATH}", timeout=5.0, trust_env=False)
            answer.raise_for_status()
        except httpx2.HTTPError:
            return None
        return {each["name"]: Upstream(**each) for each in answer.json()}

    def _serves(self, name: str, readyz: str) -> bool:
        """Whether the API is ready and, with a balancer, accepts its calls."""
        if not _answers(readyz):
            return False
        if not self.crew.balanced:
            return True
        upstreams = self.balanced()
        return upstreams is not None and upstreams[name].ready

    def migrate(self, environment: Mapping[str, str]) -> None:
        """Apply the migrations. Raises `ChildFailed`."""
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
        return httpx2.get(url, timeout=5.0, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False
