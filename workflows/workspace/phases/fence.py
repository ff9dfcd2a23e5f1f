"""Fence: terminate the boxes of earlier generations, and confirm that they are gone (invariant I1).

An empty or failed listing confirms nothing.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.shared.activity_options import EC2
from workflows.workspace import contract
from workflows.workspace.enums import Intent, Step
from workflows.workspace.events import StepFailed
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.transitions import record_failure, retry, step_failed, succeeded
from workflows.workspace.state import Fence, State, UnconfirmedInstance

MISSING_TIMES = 3
MISSING_FOR = timedelta(seconds=60)
"""EC2's listings are eventually consistent: one "not found" proves nothing, three within a minute do."""

MIN_LAUNCH_AGE = timedelta(minutes=5)
"""EC2 may list a new instance only after minutes: a younger launch never counts as gone."""

POLL_INTERVAL = timedelta(seconds=20)
"""Three polls fit into the minute that a missing instance has to stay missing."""


def update_fence(fence: Fence, seen: contract.FenceObserved, at: datetime) -> Fence:
    """The fence after one more poll of EC2: confirmed once no instance is left to confirm."""
    before = {instance.key: instance for instance in fence.unconfirmed_instances}
    unconfirmed = [
        UnconfirmedInstance(key=key, launched_at=before[key].launched_at if key in before else at)
        for key in seen.alive
    ]
    for missing in seen.missing:
        known = before.get(missing.key, UnconfirmedInstance(key=missing.key, launched_at=missing.launched_at))
        unconfirmed.append(
            replace(
                known,
                launched_at=missing.launched_at,
                missing_since=known.missing_since or at,
                missing_count=known.missing_count + 1,
            )
        )
    left = {instance.key for instance in unconfirmed}
    return replace(
        fence,
        confirmed=not unconfirmed,
        since=fence.since or at,
        unconfirmed_instances=tuple(unconfirmed),
        # A declaration that arrived during this poll is for the next one.
        declared_dead=tuple(key for key in fence.declared_dead if key in left),
    )


def proven_gone(fence: Fence, at: datetime) -> tuple[str, ...]:
    """The instances that were missing often enough, for long enough, and late enough after their launch."""
    return tuple(
        instance.key
        for instance in fence.unconfirmed_instances
        if instance.missing_since is not None
        and instance.missing_count >= MISSING_TIMES
        and at - instance.missing_since >= MISSING_FOR
        and at - instance.launched_at >= MIN_LAUNCH_AGE
    )


def fenced(state: State, event: contract.FenceObserved, at: datetime) -> State:
    """Continue once every earlier instance is confirmed gone; otherwise poll again."""
    state = replace(state, fence=update_fence(state.fence, event, at))
    if state.fence.confirmed:
        return succeeded(state, Step.FENCE)
    if state.is_fence_unconfirmed(at):
        keys = ", ".join(it.key for it in state.fence.unconfirmed_instances)
        failure = StepFailed(
            step=Step.FENCE,
            code="fence_unconfirmed",
            message=f"the termination of {keys} is not confirmed; the next box waits for it",
            hint="Check the instance in EC2. If its host is lost, an operator may send declare_dead.",
            retryable=True,
        )
        state = record_failure(state, failure, at)
    return retry(state, Step.FENCE, at, after=POLL_INTERVAL)


def _failed(state: State, event: StepFailed, at: datetime) -> State:
    started = replace(state, fence=replace(state.fence, since=state.fence.since or at))
    return step_failed(started, event, at, halts=False)


FENCE = StepDefinition(
    step=Step.FENCE,
    doing="terminating earlier boxes and confirming it",
    due=lambda state: (
        (state.intent is not Intent.RUN or state.provisioning is not None) and not state.fence.confirmed
    ),
    activity=contract.fence_instances,
    request=lambda state, _, now: contract.FenceInstances(
        workspace_id=state.workspace_id,
        generation=state.generation,
        keep_attempt=state.box.attempt if state.intent is Intent.RUN else None,
        declared_dead=state.fence.declared_dead,
        proven_gone=proven_gone(state.fence, now),
    ),
    options=EC2,
    result=contract.FenceObserved,
    apply=fenced,
    failed=_failed,
    provisions=True,
)
