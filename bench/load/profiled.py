"""`onebox api` under cProfile: `python -m bench.load.profiled FILE` writes the time per package.

The profiler slows Python functions more than C code, so the shares are a hint only.
"""

import cProfile
import json
import pstats
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path
from typing import TypeAlias

from workers import api

_Function: TypeAlias = tuple[str, int, str]
_Stats: TypeAlias = dict[
    _Function, tuple[int, int, float, float, dict[_Function, tuple[int, int, float, float]]]
]
"""By function: calls, own calls, own time, cumulative time; and the same per caller."""

HERE = Path(__file__).resolve().parent.parent

WAITING = ("select.epoll", "uvloop.loop.Loop", "acquire")
"""Functions in which the event loop waits, or the process waits for its threads at its end. uvloop's own
work in them cannot be separated."""


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Return the share of busy time per package in percent; C code counts for its caller."""
    spent: dict[str, float] = defaultdict(float)
    stats: _Stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (file, _, name), (_, _, own, _, callers) in stats.items():
        if any(waiting in name for waiting in WAITING):
            continue
        if file != "~":
            spent[package(file)] += own
            continue
        for (caller, _, _), (_, _, its, _) in callers.items():
            spent["C, called by C" if caller == "~" else package(caller)] += its
    total = sum(spent.values()) or 1.0
    largest = sorted(spent.items(), key=lambda each: each[1], reverse=True)
    return {name: 100 * seconds / total for name, seconds in largest}


def package(file: str) -> str:
    """Return the package of a file."""
    path = Path(file)
    parts = path.parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    if path.is_relative_to(HERE):
        return path.relative_to(HERE).parts[0]
    library = Path(sysconfig.get_path("stdlib"))
    return f"Python's {path.relative_to(library).parts[0]}" if path.is_relative_to(library) else path.name


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM, then write the shares."""
    profile = cProfile.Profile()
    code = profile.runcall(api.run)
    Path(arguments[0]).write_text(json.dumps(shares(profile)))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
