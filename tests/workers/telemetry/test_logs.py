"""Log lines as a process writes them."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from workers.telemetry import logs


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(capsys: pytest.CaptureFixture[str], log_format: str) -> str:
    logs.configure(log_format=log_format, level="INFO")
    structlog.get_logger("a part").info("instance.launched", workspace="ws-1", generation=7)
    return capsys.readouterr().err.strip()


@pytest.mark.usefixtures("_logging_as_before")
def test_a_line_about_a_workspace_names_its_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    line = json.loads(written(capsys, "json"))
    assert (line["event"], line["workspace"], line["workflow_id"]) == ("instance.launched", "ws-1", "ws-1")


@pytest.mark.usefixtures("_logging_as_before")
def test_a_line_about_a_delegation_names_its_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(log_format="json", level="INFO")
    structlog.get_logger("a part").info("wakeup.refused", delegation="d-1")
    assert json.loads(capsys.readouterr().err)["workflow_id"] == "delegation:d-1"


@pytest.mark.usefixtures("_logging_as_before")
def test_a_terminal_gets_json_only_if_configured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(capsys, "auto").startswith("{")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert not written(capsys, "auto").startswith("{")
    assert written(capsys, "json").startswith("{")


@pytest.mark.usefixtures("_logging_as_before")
def test_console_format_without_a_terminal_has_no_colours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = written(capsys, "console")
    assert "instance.launched" in line
    assert "generation=7" in line
    assert not line.startswith("{")
    assert "\x1b" not in line
