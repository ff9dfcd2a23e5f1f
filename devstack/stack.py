"""The whole stack on one machine: starts its parts in order, keeps them up, ends them without a trace.

What the parts do is their own matter; production processes are started as anyone would start them.
"""

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
"""In the order of their start. There is a codec server where payloads are encrypted."""

STATEFUL_PARTS = ("temporal", "aws", "postgres")
"""They keep what the others work with: first to start, last to end."""

RESTART_SECONDS = 120.0
"""How long a part may be away: what it needs may have to be back first, and pauses grow between starts."""


class DirectoryInUse(RuntimeError):
    """Another stack works with the same data."""


class Stack:
    """Temporal, PostgreSQL, AWS endpoint, worker, register API, codec server and boxes; or some of them."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        free_ports: bool = False,
        parts: Iterable[str] = PARTS,
        settings: Mapping[str, str] | None = None,
        told_instead: Callable[[str, Mapping[str, str]], Mapping[str, str]] | None = None,
        workers: int = 1,
        apis: int = 1,
        pending_seconds: float = 1.0,
        terminating_seconds: float = 1.0,
        fsync: bool = True,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Without a directory everything is in a temporary one, which is removed at the end.

        `settings` are environment variables of the children; they win over everything else.
        `told_instead` gets the name of worker, API or box host and its environment, and says what it is told
        instead: so parts reach each other by detours.
        With several `workers` or `apis` the others are the parts `worker-2`, `api-2` …; before several APIs
        there is a `balancer`, at the address of the one.
        `pending_seconds` and `terminating_seconds` are how long instances take to run and to end.
        `report` is told what a person should know, in one line.
        """
        self.parts = tuple(part for part in PARTS if part in set(parts))
        self.operator_token = ""
        self.state_dir = Path()
        self.environment: dict[str, str] = {}
        """Of the children; complete once the stack is started."""
        self._directory = directory
        self._free_ports = free_ports
        self._settings = dict(settings or {})
        self._told_instead = told_instead
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

    # --- where things are

    @property
    def temporal_address(self) -> str:
        """Temporal's front end, as host:port."""
        return self._ports.temporal_address

    @property
    def temporal_ui_url(self) -> str:
        """Temporal's UI."""
        return self._ports.temporal_ui_url

    @property
    def register_api_url(self) -> str:
        """What boxes call."""
        return self._ports.register_api_url

    @property
    def codec_url(self) -> str | None:
        """The codec server, which takes the operator token; None where payloads are in clear text."""
        return self._ports.codec_url if self.payload_keys and "codec" in self.parts else None

    @property
    def payload_keys(self) -> str:
        """What the stack's processes encrypt payloads with."""
        return self.environment.get("PAYLOAD_KEYS", "")

    @property
    def aws_url(self) -> str:
        """The AWS endpoint; `AwsEndpoint` takes it, and boto3 as `endpoint_url`."""
        return self._ports.aws_url

    @property
    def metrics_urls(self) -> dict[str, str]:
        """What Prometheus scrapes: worker, sdk (Temporal's, in the worker), api."""
        return self._ports.metrics_urls

    @property
    def database_url(self) -> str:
        """PostgreSQL, with the password."""
        if self._postgres is None:
            raise ChildFailed("postgres is not among the stack's parts")
        return self._postgres.url

    def balanced(self) -> dict[str, Upstream]:
        """What the balancer thinks of the register APIs. Raises `ChildFailed` if it doesn't answer."""
        upstreams = self._programs.balanced()
        if upstreams is None:
            raise ChildFailed("there is no balancer that answers")
        return upstreams

    @property
    def pids(self) -> dict[str, int]:
        """The process IDs of what runs now."""
        return {name: pid for name, server in self._servers.items() if (pid := server.pid) is not None}

    @property
    def boxes(self) -> list[BoxView]:
        """The boxes that run now."""
        return read_boxes(self._programs.boxes_dir)

    def log(self, name: str) -> Path:
        """The log file of a part."""
        return self._programs.log(name)

    def describe(self) -> dict[str, object]:
        """Where everything is, as `--json` prints it."""
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

    # --- parts, one by one

    def start(self, name: str) -> None:
        """Start a part, wait until it is ready, and keep it up from now on."""
        self._servers[name].start()

    def stop(self, name: str) -> None:
        """Stop a part in order; it stays down until it is started."""
        self._servers[name].stop()

    def kill(self, name: str) -> None:
        """SIGKILL a part; it stays down until it is started. (Killed by others, it comes back.)"""
        self._servers[name].kill()

    def restart(self, name: str) -> None:
        """Stop a part in order, and start it."""
        self.stop(name)
        self.start(name)

    def wait_ready(
        self, name: str, *, other_than: int | None = None, seconds: float = RESTART_SECONDS
    ) -> int:
        """Wait until a part is ready, and return its process ID.

        `other_than` is the ID of a process that was killed from outside: it has to be another one.
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

    # --- all of it

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
        """End everything, and remove what was temporary."""
        if self._closed:
            return
        self._closed = True
        # Nobody starts from temporary data again: what only keeps data need not be asked to.
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
        """What is started once everything is there that it works with."""
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
                self.close()  # at once: it ends the starts that this pool still waits for
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
        told = self.environment | self._crew.overrides(name, self._ports)
        return told if self._told_instead is None else {**told, **self._told_instead(name, told)}

    def _supervise(self, name: str, server: Server) -> None:
        supervised = Supervised(name, server, changed=self._write_state, report=self._report)
        self._servers[name] = supervised
        if self._closed:
            raise ChildFailed(f"{name} is not started: the stack is being stopped")
        supervised.start()

    def _write_state(self) -> None:
        """Tell other processes where everything is: `stack.json`, for its owner only."""
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
