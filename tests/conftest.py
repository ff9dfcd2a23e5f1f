"""Test selection, order, and Hypothesis profiles.

`pytest --daily` (as in `make test`) leaves out slow tests and storms, and the tests of the test-bed unless
the test-bed has changed. Hypothesis runs few examples; `HYPOTHESIS_PROFILE=full` runs the usual number.
"""

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
TEST_BED = ("devstack", "faults", "bench")
BASES = ("origin/HEAD", "origin/main", "main")
"""The test-bed has changed if it differs from the merge base with the first of these that exists."""

# Deadlines and slow generation say nothing about the rules on a machine that is busy.
for profile, examples in (("fast", 25), ("full", 100)):
    settings.register_profile(
        profile, deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=examples
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--daily", action="store_true", help="leave out slow tests, storms, and an unchanged test-bed"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of an unchanged test-bed."""
    of_test_bed = collection_path.parent == ROOT / "tests" and collection_path.name in TEST_BED
    return True if of_test_bed and config.getoption("--daily") and not _test_bed_changed() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select the tests, and run the integration tests first: the longest files come early."""
    if config.getoption("--daily"):
        daily = [item for item in items if _is_daily(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(daily)])
        items[:] = daily
    items.sort(key=lambda item: "tests/integration/" not in item.nodeid)


def _is_daily(item: pytest.Item) -> bool:
    return item.get_closest_marker("storm") is None and item.get_closest_marker("slow") is None


@cache
def _test_bed_changed() -> bool:
    """Whether the test-bed differs from the main branch; True if git cannot tell."""
    paths = [*TEST_BED, *(f"tests/{name}" for name in TEST_BED)]
    for base in BASES:
        fork = _git("merge-base", "HEAD", base)
        if fork.returncode == 0:
            changes = _git("diff", "--name-only", fork.stdout.strip(), "--", *paths)
            untracked = _git("ls-files", "--others", "--exclude-standard", "--", *paths)
            return changes.returncode != 0 or bool(changes.stdout or untracked.stdout)
    return True


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
