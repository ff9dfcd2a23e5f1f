"""Configures structured logging for a process: named events with key-value pairs, on stderr."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from temporalio import activity, workflow

from workflows.delegation.messages import workflow_id_of

_TEMPORAL_EXTRAS = ("temporal_workflow", "temporal_activity")


def configure(*, log_format: str, level: str) -> None:
    """Send structlog's and the standard library's records to stderr in one format.

    `json`, `console`, or `auto`: `console` on a terminal, else `json`.
    """
    # The SDK appends the same information to each message as a dict.
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_workflow_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=terminal)
        if log_format == "console" or (log_format == "auto" and terminal)
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), add_workspace],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These log every request at INFO or below.
    for noisy in ("botocore", "urllib3", "httpx2", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def add_workflow_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the workflow ID to events of a workspace or delegation."""
    if workspace_id := event.get("workspace"):
        event.setdefault("workflow_id", workspace_id)
    elif delegation_id := event.get("delegation"):
        event.setdefault("workflow_id", workflow_id_of(delegation_id))
    return event


def add_workspace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Copy workspace, run and activity from the dicts that Temporal's SDK attaches to a record."""
    for key in _TEMPORAL_EXTRAS:
        attached = event.pop(key, None)
        if isinstance(attached, dict):
            event.setdefault("workspace", attached.get("workflow_id"))
            event.setdefault("workflow_id", attached.get("workflow_id"))
            event.setdefault("run_id", attached.get("run_id") or attached.get("workflow_run_id"))
            if "activity_type" in attached:
                event.setdefault("activity", attached["activity_type"])
                event.setdefault("attempt", attached.get("attempt"))
    return event
