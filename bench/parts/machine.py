"""The machine of the run, as far as it can be read."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from devstack.postgres import binary
from devstack.temporal import temporal_cli


def machine() -> dict[str, str]:
    """Return processor, memory, system, and the versions of the measured software."""
    return {
        "processor": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "PostgreSQL": _said(str(binary("postgres")), "--version").rpartition(" ")[2],
        "Temporal": _said(str(temporal_cli()), "--version"),
        "temporalio": version("temporalio"),
        "uvicorn": version("uvicorn"),
        "psycopg": version("psycopg"),
    }


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
