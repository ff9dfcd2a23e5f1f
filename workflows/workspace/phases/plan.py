"""The ordered steps for each intent, and the deadlines: the first step that is due runs next."""

from workflows.workspace.enums import Intent, Step
from workflows.workspace.phases.address import ADDRESS, INSTANCE_DEADLINE, REMOVE_ADDRESS
from workflows.workspace.phases.canary import (
    CANARY,
    CANARY_DEADLINE,
    IDLE_CANARY,
    UNRESPONSIVE_DEADLINE,
)
from workflows.workspace.phases.close import CLOSE
from workflows.workspace.phases.definition import Deadline, StepDefinition
from workflows.workspace.phases.enroll import ENROLL
from workflows.workspace.phases.evict import EVICT_ORPHANS, EVICT_SUPERSEDED
from workflows.workspace.phases.fence import FENCE
from workflows.workspace.phases.fleet_permit import REQUEST_FLEET_PERMIT
from workflows.workspace.phases.launch import LAUNCH
from workflows.workspace.phases.open import OPEN
from workflows.workspace.phases.registration import CHECK_REGISTRATION, REGISTER_DEADLINE
from workflows.workspace.phases.volume import ATTACH, DELETE_VOLUME, DETACH, SNAPSHOT
from workflows.workspace.state import State

PLANS: dict[Intent, tuple[StepDefinition, ...]] = {
    Intent.RUN: (
        ENROLL,
        REQUEST_FLEET_PERMIT,
        OPEN,
        FENCE,
        DETACH,
        SNAPSHOT,
        LAUNCH,
        ATTACH,
        ADDRESS,
        CHECK_REGISTRATION,
        EVICT_SUPERSEDED,
        EVICT_ORPHANS,
        CANARY,
    ),
    Intent.STOP: (ENROLL, CLOSE, FENCE, EVICT_ORPHANS),
    Intent.DELETE: (ENROLL, CLOSE, FENCE, REMOVE_ADDRESS, DELETE_VOLUME),
}

DEADLINES: tuple[Deadline, ...] = (
    INSTANCE_DEADLINE,
    IDLE_CANARY,
    UNRESPONSIVE_DEADLINE,
    CANARY_DEADLINE,
    REGISTER_DEADLINE,
)

STEPS: tuple[StepDefinition, ...] = tuple(dict.fromkeys(step for plan in PLANS.values() for step in plan))
BY_ACTIVITY: dict[str, StepDefinition] = {it.activity.__name__: it for it in STEPS}
BY_RESULT: dict[type, StepDefinition] = {it.result: it for it in STEPS}
BY_STEP: dict[Step, StepDefinition] = {it.step: it for it in STEPS}


def next_step(state: State) -> StepDefinition | None:
    """The first step of the intent's plan that is due; None if there is nothing to do."""
    return next((it for it in PLANS[state.intent] if it.due(state)), None)
