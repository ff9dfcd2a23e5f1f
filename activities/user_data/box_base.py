"""A part of the box script: the parameters of the box, its log, and its backoff."""

from __future__ import annotations

import os
import pwd
import random
import shlex
import sys
import time
from pathlib import Path

BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 30.0


class ShutDown(Exception):
    """The platform ordered this box to power off: superseded, or the workspace is stopped or deleted."""


class Box:
    """The parameters of this box, with overrides from its environment."""

    def __init__(self, parameters: dict[str, object], environ: dict[str, str]) -> None:
        self.workspace_id = str(parameters["workspace_id"])
        self.generation = str(parameters["generation"])
        self.secret = str(parameters["bootstrap_secret"])
        self.platform_url = str(parameters["platform_url"]).rstrip("/")
        self.command = shlex.split(str(parameters["runtime_command"]))
        user = str(parameters["runtime_user"])
        self.account = pwd.getpwnam(user) if user and os.geteuid() == 0 else None
        self.port = str(parameters["runtime_port"])
        self.configs = Path(environ.get("CONFIGS_DIR") or str(parameters["configs_dir"]))
        self.data_dir = str(parameters.get("data_dir") or "")
        self.device = environ.get("ONEBOX_DATA_DEVICE")
        self.address = environ.get("ONEBOX_BOX_IP")
        self.watch_seconds = float(environ.get("ONEBOX_WATCH_SECONDS") or 60)
        self.power_off_command = environ.get("ONEBOX_POWER_OFF_COMMAND")
        self.environ = environ


def log(text: str) -> None:
    """Write a log line with the time in UTC."""
    sys.stderr.write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + "onebox-box: " + text + "\n")
    sys.stderr.flush()


def jittered(seconds: float) -> float:
    """Vary by 10 % in both directions, so that boxes do not call in step."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, nothing secret


def backoff(failures: int) -> float:
    """Exponential backoff with full jitter, in seconds."""
    bound = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(failures, 10))
    return max(0.1, random.uniform(0, bound))  # noqa: S311 - jitter, nothing secret
