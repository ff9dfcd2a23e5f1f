"""The input space of exhaustive tests of the decisions, and the part of a refusal that a caller sees."""

from typing import TypeAlias

from register_api.auth.identity import RecordedWorkspace
from register_api.auth.rules import Bearer, Refused
from register_api.http.error_codes import ERROR_SPECS, Action, ErrorSpec
from workflows.workspace.enums import Intent

RUNNING = RecordedWorkspace(intent=Intent.RUN, deleted=False, newest=3, current=3)
STOPPED = RecordedWorkspace(intent=Intent.STOP, deleted=False, newest=3, current=None)
DELETING = RecordedWorkspace(intent=Intent.DELETE, deleted=False, newest=3, current=None)
DELETED = RecordedWorkspace(intent=Intent.DELETE, deleted=True, newest=3, current=None)
WORKSPACES = (None, RUNNING, STOPPED, DELETING, DELETED)

WITHOUT_TOKEN = (Bearer.ABSENT, Bearer.NOT_VALID)

VisibleRefusal: TypeAlias = tuple[ErrorSpec, Action, int | None]
"""The code's specification, the action, and the seconds to wait."""


def visible(refused: Refused) -> VisibleRefusal:
    """All that a caller sees of a refusal."""
    spec = ERROR_SPECS[refused.code]
    return spec, refused.action or spec.action, refused.retry_after or spec.retry_after


def is_open(workspace: RecordedWorkspace | None) -> bool:
    """Whether the workspace exists and is meant to run."""
    return workspace is not None and workspace.intent is Intent.RUN and not workspace.deleted
