"""What all tests share: how they are spread over two processes."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before xdist's own, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each folder's tests in one process: its servers are started once.

    Storms line up in one that begins at once: two of them beside each other would measure each other.
    """
    for item in items:
        stormy = item.get_closest_marker("storm") is not None
        group = "storm" if stormy else item.path.relative_to(TESTS).parts[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("storm") is None)
