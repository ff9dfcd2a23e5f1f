"""The whole stack on one machine: starts its parts in order, restarts them, and ends them completely."""

import fcntl
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from devstack.aws.client import AwsEndpoint
from devstack.balancer import Upstream
from devstack.boxes import BoxView, read_boxes
from devstack.environment import Ports, ProcessCounts, Secrets, base_environment, cloud_environment
from devstack.postgres import Postgres
from devstack.processes import POLL_SECONDS, ChildFailed
from devstack.programs import Programs
from devstack.supervision import Server, Supervised
from devstack.temporal import Temporal

PARTS = ("postgres", "temporal", "aws", "worker", "api", "codec", "boxes")
"""In start order. The codec server runs only if payloads are encrypted."""

STATEFUL_PARTS = ("temporal", "aws", "postgres")
"""Parts that hold data: started first, ended last."""

RESTART_SECONDS = 120.0
"""How long a part may be down: its dependencies may have to return first, and restarts back off."""


class DirectoryInUse(RuntimeError):
    """Another stack uses the same data directory."""


class Stack:
    """Temporal, PostgreSQL, AWS endpoint, worker, register API, codec server and boxes, or some of them."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        free_ports: bool = False,
        parts: Iterable[str] = PARTS,
        settings: Mapping[str, str] | None = None,
        override: Callable[[str, Mapping[str, str]], Mapping[str, str]] | None = None,
        workers: int = 1,
        apis: int = 1,
        pending_seconds: float = 1.0,
        terminating_seconds: float = 1.0,
        fsync: bool = True,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Without `directory`, all data is temporary and removed at the end.

        `settings` are environment variables of the children; they override everything else.
        `override` gets the name and the environment of a worker, API or box host and returns
        replacements, so that tests can place proxies between parts.
        Further `workers` and `apis` are the parts `worker-2`, `api-2` …; several APIs get a `balancer`.
        `pending_seconds` and `terminating_seconds` are how long instances take to start and to terminate.
        `report` receives one line for each event that concerns the user.
        """
        self.parts = tuple(part for part in PARTS if part in set(parts))
        self.operator_token = ""
        self.state_dir = Path()
        self.environment: dict[str, str] = {}
        """Environment of the children; complete once the stack has started."""
        self._directory = directory
        self._free_ports = free_ports
        self._settings = dict(settings or {})
        self._override = override
        self._crew = ProcessCounts(workers=workers, apis=apis)
        self._delays = (pending_seconds, terminating_seconds)
        self._fsync = fsync
        self._report = report or _report
        self._servers: dict[str, Supervised] = {}
        self._ports = Ports()
        self._postgres: Postgres | None = None
        self._resources = ExitStack()
        self._file_lock = threading.Lock()
        self._closed = False

    # --- addresses

    @property
    def temporal_address(self) -> str:
        """Temporal's frontend, as host:port."""
        return self._ports.temporal_address

    @property
    def temporal_ui_url(self) -> str:
        """Temporal's UI."""
        return self._ports.temporal_ui_url

    @property
    def register_api_url(self) -> str:
        """The register API as boxes reach it."""
        return self._ports.register_api_url

    @property
    def codec_url(self) -> str | None:
        """The codec server, which accepts the operator token; None without encryption."""
        return self._ports.codec_url if self.payload_keys and "codec" in self.parts else None

    @property
    def payload_keys(self) -> str:
        """The encryption of the stack's processes."""
        return self.environment.get("PAYLOAD_KEYS", "")

    @property
    def aws_url(self) -> str:
        """The AWS endpoint, for `AwsEndpoint` and as boto3's `endpoint_url`."""
        return self._ports.aws_url

    @property
    def metrics_urls(self) -> dict[str, str]:
        """Metrics endpoints: worker, sdk (Temporal's, in the worker), api."""
        return self._ports.metrics_urls

    @property
    def database_url(self) -> str:
        """PostgreSQL, with the password."""
        if self._postgres is None:
            raise ChildFailed("postgres is not among the stack's parts")
        return self._postgres.url

    def balanced(self) -> dict[str, Upstream]:
        """Return the balancer's view of the register APIs. Raises `ChildFailed` if it does not answer."""
        upstreams = self._programs.balanced()
        if upstreams is None:
            raise ChildFailed("there is no balancer that answers")
        return upstreams

    @property
    def pids(self) -> dict[str, int]:
        """Process IDs of the running parts."""
        return {name: pid for name, server in self._servers.items() if (pid := server.pid) is not None}

    @property
    def boxes(self) -> list[BoxView]:
        """The running boxes."""
        return read_boxes(self._programs.boxes_dir)

    def log(self, name: str) -> Path:
        """The log file of a part."""
        return self._programs.log(name)

    def describe(self) -> dict[str, object]:
        """Addresses and process IDs, as `--json` prints them."""
        return {
            "temporal": self.temporal_address,
            "temporal_ui": self.temporal_ui_url,
            "register_api": self.register_api_url,
            "aws_endpoint": self.aws_url,
            "database": self.database_url,
            "codec": self.codec_url,
            "metrics": self.metrics_urls,
            "operator_token": self.operator_token,
            "state_dir": str(self.state_dir),
            "pids": self.pids,
        }

    @property
    def _programs(self) -> Programs:
        pending, terminating = self._delays
        return Programs(
            state_dir=self.state_dir,
            ports=self._ports,
            crew=self._crew,
            pending_seconds=pending,
            terminating_seconds=terminating,
        )

    # --- single parts

    def start(self, name: str) -> None:
        """Start a part, wait until it is ready, and restart it from now on."""
        self._servers[name].start()

    def stop(self, name: str) -> None:
        """Stop a part in order; it stays down until it is started."""
        self._servers[name].stop()

    def kill(self, name: str) -> None:
        """SIGKILL a part; it stays down until it is started. (A part killed from outside is restarted.)"""
        self._servers[name].kill()

    def restart(self, name: str) -> None:
        """Stop a part in order and start it."""
        self.stop(name)
        self.start(name)

    def wait_ready(
        self, name: str, *, other_than: int | None = None, seconds: float = RESTART_SECONDS
    ) -> int:
        """Wait until a part is ready and return its process ID.

        `other_than` is the ID of a process that was killed from outside; the result differs from it.
        """
        server = self._servers[name]
        deadline = time.monotonic() + seconds
        while True:
            pid = server.pid
            if pid is not None and pid != other_than and server.ready():
                return pid
            if time.monotonic() > deadline:
                raise ChildFailed(f"{name} was not ready after {seconds:g} s")
            time.sleep(POLL_SECONDS)

    # --- the whole stack

    def __enter__(self) -> "Stack":
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove temporary data."""
        if self._closed:
            return
        self._closed = True
        # Temporary data is never used again, so the stateful parts are killed at once.
        temporary = self._directory is None
        keepers = [self._servers[name] for name in STATEFUL_PARTS if name in self._servers]
        others = [server for server in list(self._servers.values()) if server not in keepers]
        for servers, kill in ((others, False), (keepers, temporary)):
            with ThreadPoolExecutor(len(self._servers) or 1) as pool:
                for future in [pool.submit(server.close, kill=kill) for server in servers]:
                    future.result()
        (self.state_dir / "stack.json").unlink(missing_ok=True)
        self._resources.close()

    def _open(self) -> None:
        if self._directory is None:
            self.state_dir = Path(tempfile.mkdtemp(prefix="onebox-"))
            self._resources.callback(shutil.rmtree, self.state_dir, ignore_errors=True)
        else:
            self.state_dir = self._directory.resolve()
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_directory()
        self.log("").parent.mkdir(exist_ok=True)
        self._ports = Ports.chosen(
            self.state_dir / "ports.json", free=self._free_ports, others=self._crew.ports
        )
        keys = Secrets.load_or_create(self.state_dir / "secrets.json")
        self.operator_token = keys.operator_token
        self.environment = base_environment(self._ports, keys, caller=os.environ, settings=self._settings)
        openers = {"postgres": self._open_postgres, "temporal": self._open_temporal, "aws": self._open_aws}
        self._together([openers[name] for name in STATEFUL_PARTS if name in self.parts])
        self._together([self._opener(name) for name in self._others()])
        self._write_state()

    def _others(self) -> list[str]:
        """Names of the parts that start after the stateful parts."""
        crew = self._crew
        names = {
            "worker": crew.worker_names,
            "api": (*crew.api_names, *(["balancer"] if crew.balanced else [])),
            "codec": ("codec",) if self.codec_url is not None else (),
            "boxes": ("boxes",),
        }
        return [name for part in self.parts for name in names.get(part, ())]

    def _together(self, steps: Sequence[Callable[[], None]]) -> None:
        with ThreadPoolExecutor(len(steps) or 1) as pool:
            running = [pool.submit(step) for step in steps]
            try:
                for future in running:
                    future.result()
            except BaseException:
                self.close()  # at once: this ends the starts that the pool still waits for
                raise

    def _open_postgres(self) -> None:
        postgres = Postgres(self.state_dir / "postgres", port=self._ports.postgres, fsync=self._fsync)
        self._postgres = postgres
        self._supervise("postgres", postgres)
        self.environment.setdefault("DATABASE_URL", postgres.url)
        self._programs.migrate(self.environment)

    def _open_temporal(self) -> None:
        directory = self.state_dir / "temporal"
        self._supervise(
            "temporal",
            Temporal(
                directory,
                port=self._ports.temporal,
                ui_port=self._ports.temporal_ui,
                ui_codec=self.codec_url,
            ),
        )

    def _open_aws(self) -> None:
        self._supervise("aws", self._programs.aws(self.environment))
        with AwsEndpoint(self.aws_url) as endpoint:
            for name, value in cloud_environment(endpoint.info()).items():
                self.environment.setdefault(name, value)

    def _opener(self, name: str) -> Callable[[], None]:
        if name == "balancer":
            return lambda: self._supervise(name, self._programs.balancer(self.environment))
        return lambda: self._supervise(name, self._programs.production(name, self._overrides(name)))

    def _overrides(self, name: str) -> dict[str, str]:
        values = self.environment | self._crew.overrides(name, self._ports)
        return values if self._override is None else {**values, **self._override(name, values)}

    def _supervise(self, name: str, server: Server) -> None:
        supervised = Supervised(name, server, changed=self._write_state, report=self._report)
        self._servers[name] = supervised
        if self._closed:
            raise ChildFailed(f"{name} is not started: the stack is being stopped")
        supervised.start()

    def _write_state(self) -> None:
        """Write the addresses to `stack.json`, readable by its owner only."""
        if self._postgres is None or "DATABASE_URL" not in self.environment or self._closed:
            return
        with self._file_lock:
            new = self.state_dir / "stack.json.new"
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self.describe(), file)
            new.replace(self.state_dir / "stack.json")

    def _lock_directory(self) -> None:
        file = self._resources.enter_context((self.state_dir / "lock").open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryInUse(f"another stack works with {self.state_dir}") from None


def _report(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
