"""What exhaustive tests of the decisions share: where a workspace may stand, and what a caller sees."""

from typing import TypeAlias

from register_api.answers import ANSWERS, Action, Answer
from register_api.decision import Bearer, Refused
from register_api.verdict import Standing
from workflows.state import Intent

RUNNING = Standing(intent=Intent.RUN, deleted=False, newest=3, current=3)
STOPPED = Standing(intent=Intent.STOP, deleted=False, newest=3, current=None)
DELETING = Standing(intent=Intent.DELETE, deleted=False, newest=3, current=None)
DELETED = Standing(intent=Intent.DELETE, deleted=True, newest=3, current=None)
STANDINGS = (None, RUNNING, STOPPED, DELETING, DELETED)

WITHOUT_TOKEN = (Bearer.ABSENT, Bearer.NOT_VALID)

Told: TypeAlias = tuple[Answer, Action, int | None]
"""The code's words, what to do, and the seconds to wait."""


def told(refused: Refused) -> Told:
    """All that a caller sees of a refusal."""
    answer = ANSWERS[refused.code]
    return answer, refused.action or answer.action, refused.retry_after or answer.retry_after


def is_open(standing: Standing | None) -> bool:
    """Whether the workspace exists and is meant to run."""
    return standing is not None and standing.intent is Intent.RUN and not standing.deleted
