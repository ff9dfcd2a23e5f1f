"""The box host: runs the user data of every running instance as a process.

It stands in for EC2 and systemd. The user data decides what the box does.
"""

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import httpx2

from devstack.aws.client import AwsEndpoint, EndpointRefused
from devstack.aws.values import InstanceView
from devstack.processes import Child

POLL_SECONDS = 0.1

HOST_FAULTS_DIR = Path(__file__).with_name("host_faults")
"""Loaded first by the Python processes of a box if `ONEBOX_AILMENTS` is set; see `sitecustomize`."""

RESTART_SECONDS = 0.5
"""Delay before an ended process is started again, like `Restart=always` on the real image."""

INHERITED_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "PYTHONPATH",
    "HEARTBEAT_SECONDS",
    "ONEBOX_WATCH_SECONDS",
    "ONEBOX_LEDGERS",
    "ONEBOX_LISTEN_PORT",
    "ONEBOX_AILMENTS",
)
"""Environment variables of the host that a box inherits. None of them is a control plane secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxView:
    """A box as listed in `boxes.json`."""

    workspace: str | None
    generation: int | None
    instance_id: str
    private_ip: str
    pid: int
    """Process ID of the box's process, which leads its process group."""
    starts: int
    """Number of starts of its process; 1 if it never crashed."""
    directory: str
    configs: str
    log: str


class Box:
    """The process of one instance and its files. The files outlive the process."""

    def __init__(self, view: InstanceView, user_data: str, *, directory: Path) -> None:
        self.view = view
        self._directory = directory
        self._configs = directory / "configs"
        self._powered_off = directory / "powered-off"
        self._device = directory / "data-device"
        self._configs.mkdir(parents=True, exist_ok=True)
        script = directory / "user-data"
        with os.fdopen(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700), "w") as file:
            file.write(user_data)
        first_line = user_data.partition("\n")[0]
        self._child = Child(
            f"box of {view.instance_id}",
            [sys.executable, str(script)] if "python" in first_line else [str(script)],
            log=directory / "box.log",
            environment=self._environment(os.environ),
            directory=directory,
        )
        self._starts = 0
        self._ended_at: float | None = None

    @property
    def powered_off(self) -> bool:
        """Whether the box requested a power-off."""
        return self._powered_off.exists()

    def start(self) -> None:
        """Start the process."""
        self._starts += 1
        self._ended_at = None
        self._child.start()

    def kill(self) -> None:
        """Power off: kill all processes of the box."""
        self._child.kill()

    def connect(self, data_volumes: Sequence[str], *, volumes: Path) -> None:
        """Expose the attached data volume to the box. A directory stands in for the volume."""
        wanted = volumes / data_volumes[0] if data_volumes else None
        if (self._device.readlink() if self._device.is_symlink() else None) == wanted:
            return
        self._device.unlink(missing_ok=True)
        if wanted is not None:
            wanted.mkdir(parents=True, exist_ok=True)
            self._device.symlink_to(wanted)

    def forget_power_off(self) -> None:
        """Clear the power-off request, so that a later start keeps running."""
        self._powered_off.unlink(missing_ok=True)

    def revive(self, *, now: float) -> bool:
        """Restart an ended process after `RESTART_SECONDS`. Returns True if it was restarted."""
        if self._child.running:
            return False
        if self._ended_at is None:
            self._child.kill()  # remaining processes of its group
            self._ended_at = now
        if now - self._ended_at < RESTART_SECONDS:
            return False
        self.start()
        return True

    def describe(self) -> BoxView:
        """The box as other processes see it."""
        return BoxView(
            workspace=self.view.workspace,
            generation=self.view.generation,
            instance_id=self.view.instance_id,
            private_ip=self.view.private_ip,
            pid=self._child.pid,
            starts=self._starts,
            directory=str(self._directory),
            configs=str(self._configs),
            log=str(self._child.log),
        )

    def _environment(self, host: Mapping[str, str]) -> dict[str, str]:
        passed_on = {name: host[name] for name in INHERITED_VARIABLES if name in host}
        if "ONEBOX_AILMENTS" in passed_on:
            path = filter(None, (str(HOST_FAULTS_DIR), passed_on.get("PYTHONPATH")))
            passed_on["PYTHONPATH"] = os.pathsep.join(path)
        return passed_on | {
            "CONFIGS_DIR": str(self._configs),
            "ONEBOX_DATA_DEVICE": str(self._device),
            "ONEBOX_FOREGROUND": "1",
            "ONEBOX_BOX_IP": self.view.private_ip,
            "ONEBOX_POWER_OFF_COMMAND": shlex.join(["touch", str(self._powered_off)]),
            "PYTHONUNBUFFERED": "1",
        }


class Host:
    """All boxes on this machine."""

    def __init__(self, endpoint: AwsEndpoint, directory: Path) -> None:
        self._endpoint = endpoint
        self._directory = directory
        self._boxes: dict[str, Box] = {}

    def reconcile(self) -> None:
        """Match the boxes to the instance states, once."""
        running = {view.instance_id: view for view in self._endpoint.instances() if view.state == "running"}
        changed = False
        for instance_id in [name for name in self._boxes if name not in running]:
            self._boxes.pop(instance_id).kill()
            changed = True
        for instance_id, view in running.items():
            if instance_id not in self._boxes:
                user_data = self._endpoint.user_data(instance_id)
                box = Box(view, user_data, directory=self._directory / instance_id)
                self._boxes[instance_id] = box
                box.start()
                changed = True
            self._boxes[instance_id].connect(view.data_volumes, volumes=self._directory / "volumes")
        for instance_id, box in self._boxes.items():
            if box.powered_off:
                box.kill()
                self._endpoint.shutdown(instance_id)
                box.forget_power_off()
            elif box.revive(now=time.monotonic()):
                changed = True
        if changed:
            self.write_state()

    def write_state(self) -> None:
        """Write `boxes.json`."""
        new = self._directory / "boxes.json.new"
        new.write_text(json.dumps([asdict(box.describe()) for box in self._boxes.values()], indent=1))
        new.replace(self._directory / "boxes.json")

    def close(self) -> None:
        """Kill all boxes. The next host starts them again."""
        for box in self._boxes.values():
            box.kill()
        self._boxes.clear()
        self.write_state()


def read_boxes(directory: Path) -> list[BoxView]:
    """The running boxes, read from `boxes.json`."""
    try:
        text = (directory / "boxes.json").read_text()
    except FileNotFoundError:
        return []
    return [BoxView(**box) for box in json.loads(text)]


def main(arguments: list[str]) -> None:
    """Run boxes until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="devstack.boxes", description="Runs boxes as processes.")
    parser.add_argument("--aws", required=True, help="the URL of the AWS endpoint")
    parser.add_argument("--dir", type=Path, required=True, help="where the boxes have their files")
    options = parser.parse_args(arguments)
    options.dir.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    with AwsEndpoint(options.aws) as endpoint:
        host = Host(endpoint, options.dir)
        try:
            host.write_state()
            sys.stderr.write("boxes.started\n")
            sys.stderr.flush()
            while True:
                try:
                    host.reconcile()
                except (httpx2.TransportError, EndpointRefused) as error:
                    # While the EC2 API is unreachable, machines keep running.
                    sys.stderr.write(f"boxes: the endpoint does not answer: {error!r}\n")
                    sys.stderr.flush()
                time.sleep(POLL_SECONDS)
        finally:
            host.close()


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
