"""The rules of a fleet rollout: which members start, when it pauses, their outcomes, and when it is over."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.rollout import rules
from workflows.rollout.rules import Member, MemberState, Outcome, Rollout, RolloutState, Survey
from workflows.shared.activity_options import MANUAL_PRIORITY, ROLLOUT_PRIORITY
from workflows.workspace.enums import Intent, Phase, Step
from workflows.workspace.phases.runner import step_priority
from workflows.workspace.requests import is_human, is_rollout_request, rollout_requester
from workflows.workspace.state import Provisioning

T0 = datetime(2026, 11, 26, 12, tzinfo=UTC)
OLD, NEW = "ami-old", "ami-new"


def rollout(
    members: int = 10, *, allowed: int = 2, max_failures: int = 3, image_id: str | None = None
) -> Rollout:
    return Rollout(
        members=tuple(Member(workspace_id=f"ws-{number}") for number in range(members)),
        allowed=allowed,
        max_failures=max_failures,
        image_id=image_id,
        state=RolloutState.ROLLING,
    )


def seen(name: str, **known: object) -> MemberState:
    known = {
        "generation": 2,
        "intent": Intent.RUN,
        "deleted": False,
        "phase": Phase.ONLINE,
        "available": True,
        "image_id": OLD,
    } | known
    return MemberState(workspace_id=name, **known)  # type: ignore[arg-type]


def started(it: Rollout, *, generation: int = 2) -> tuple[Rollout, list[str]]:
    """Start the members that are due, each with an accepted request."""
    due = rules.next_members(it)
    accepted = [
        replace(
            member,
            outcome=Outcome.IN_FLIGHT,
            generation=generation,
            request_count=member.request_count + 1,
            attempts=member.attempts + 1,
        )
        for member in due
    ]
    return rules.members_started(it, accepted, T0), [member.workspace_id for member in due]


def surveyed(
    it: Rollout, *states: MemberState, down: tuple[str, ...] = (), blocked_reason: str | None = None
) -> Rollout:
    """Apply a survey. Tracked members without a given state are still recreating."""
    by_id = {each.workspace_id: each for each in states}
    tracked = [
        by_id.get(member.workspace_id) or seen(member.workspace_id, phase=Phase.RECREATING, available=False)
        for member in rules.tracked_members(it)
    ]
    return rules.apply_survey(
        it, Survey(seen=tuple(tracked), down=frozenset(down), blocked_reason=blocked_reason), T0
    )


def canary_online(it: Rollout) -> Rollout:
    """The canary has come online."""
    it, [canary] = started(it)
    return surveyed(it, seen(canary))


def outcome(it: Rollout, name: str) -> Outcome:
    return next(member.outcome for member in it.members if member.workspace_id == name)


@pytest.mark.parametrize(
    ("members", "max_unavailable", "allowed"),
    [
        (50, 0.1, 5),
        (30, 0.1, 3),
        (9, 0.1, 1),
        (1, 0.1, 1),
        (50, 0.99, 49),
        (50, 1, 1),
        (50, 7, 7),
        (3, 0.5, 1),
    ],
)
def test_a_share_is_rounded_down_and_is_at_least_one(
    members: int, max_unavailable: float, allowed: int
) -> None:
    assert rules.allowed(members, max_unavailable) == allowed


def test_the_canary_starts_alone_and_the_others_follow_a_share_at_a_time() -> None:
    it, first = started(rollout())
    assert first == ["ws-0"]
    assert rules.next_members(it) == ()
    it = surveyed(it)
    assert rules.next_members(it) == ()  # still in flight
    it = surveyed(it, seen("ws-0"))
    assert outcome(it, "ws-0") is Outcome.RECREATED
    it, second = started(it)
    assert second == ["ws-1", "ws-2"]
    it = surveyed(it, seen("ws-2"))
    assert started(it)[1] == ["ws-3"]


def test_members_down_for_another_reason_count_as_unavailable() -> None:
    it = surveyed(canary_online(rollout(allowed=3)), down=("ws-0", "ws-8"))
    assert started(it)[1] == ["ws-8", "ws-1"]  # ws-8 is down already, so it needs no capacity


def test_members_that_are_down_start_without_capacity_within_the_in_flight_limit() -> None:
    it = surveyed(canary_online(rollout(allowed=2)), down=("ws-5", "ws-6", "ws-7", "ws-8"))
    assert started(it)[1] == ["ws-5", "ws-6"]


def test_the_canary_is_a_healthy_member_if_capacity_allows() -> None:
    assert started(surveyed(rollout(allowed=2), down=("ws-0",)))[1] == ["ws-1"]
    assert started(surveyed(rollout(allowed=1), down=("ws-4",)))[1] == ["ws-4"]


def test_a_failed_canary_pauses_and_the_next_member_is_the_canary() -> None:
    it, [canary] = started(rollout(max_failures=3))
    it = surveyed(
        it, seen(canary, phase=Phase.FAILED, available=False, error="InvalidAMIID.NotFound: no such image")
    )
    assert (it.state, outcome(it, canary)) == (RolloutState.PAUSED, Outcome.FAILED)
    assert "canary" in it.why
    assert it.members[0].detail == "InvalidAMIID.NotFound: no such image"
    it, refused = rules.resumed(it)
    assert refused is None
    assert started(surveyed(it, down=(canary,)))[1] == ["ws-1"]


def test_a_canary_that_aws_refuses_has_failed_though_its_launch_is_retried() -> None:
    it, [canary] = started(rollout(max_failures=3))
    retried = seen(
        canary,
        phase=Phase.RECREATING,
        available=False,
        error="InvalidAMIID.NotFound: no such image",
        error_phase=Step.LAUNCH,
        error_generation=2,
    )
    assert outcome(surveyed(it, retried), canary) is Outcome.IN_FLIGHT
    it = surveyed(it, replace(retried, error_refused=True))
    assert (it.state, outcome(it, canary)) == (RolloutState.PAUSED, Outcome.FAILED)
    assert it.members[0].detail == "InvalidAMIID.NotFound: no such image"


def test_failures_pause_at_the_threshold_and_count_from_zero_after_a_resume() -> None:
    it = canary_online(rollout(20, allowed=5, max_failures=3))
    it, due = started(it)
    failed = [seen(name, phase=Phase.FAILED, available=False) for name in due[:2]]
    it = surveyed(it, *failed, down=tuple(due[:2]))
    assert (it.state, it.failures) == (RolloutState.ROLLING, 2)
    third = seen(due[2], phase=Phase.FAILED, available=False)
    it = surveyed(it, third, down=tuple(due[:3]))
    assert (it.state, it.failures) == (RolloutState.PAUSED, 3)
    assert started(it)[1] == []
    it = surveyed(it, seen(due[3]), down=tuple(due[:3]))  # those in flight continue
    assert outcome(it, due[3]) is Outcome.RECREATED
    it, _ = rules.resumed(it)
    assert (it.state, it.failures) == (RolloutState.ROLLING, 0)
    # Three have failed and one is in flight: one more may start.
    assert len(started(surveyed(it, down=tuple(due[:3])))[1]) == 1


def test_a_blocked_fleet_starts_no_members_until_it_is_unblocked() -> None:
    it = surveyed(canary_online(rollout()), blocked_reason="the fleet is frozen")
    assert started(it)[1] == []
    assert rules.wants_capacity(it)
    assert started(surveyed(it))[1] == ["ws-1", "ws-2"]


def test_an_aborted_rollout_waits_for_members_in_flight_and_starts_no_others() -> None:
    it, _ = started(canary_online(rollout()))
    it, refused = rules.aborted(it, "by admin:alice")
    assert refused is None
    assert not rules.is_over(it)
    assert started(it)[1] == []
    it = surveyed(it, seen("ws-1"), seen("ws-2"))
    assert rules.is_over(it)
    assert rules.count(it, Outcome.WAITING) == 7
    assert all(member == Member(workspace_id=member.workspace_id) for member in it.members[3:])


def test_failed_members_are_retried_after_all_others_with_a_new_request() -> None:
    it = canary_online(rollout(4, allowed=2))
    it, _ = started(it)
    it = surveyed(it, seen("ws-1", phase=Phase.FAILED, available=False), seen("ws-2"), down=("ws-1",))
    it, refused = rules.retried(it)
    assert refused is None
    assert [member.workspace_id for member in it.members] == ["ws-0", "ws-2", "ws-3", "ws-1"]
    it, due = started(surveyed(it))
    assert due == ["ws-3", "ws-1"]
    assert it.members[-1].request_count == 2


@pytest.mark.parametrize("state", list(RolloutState))
def test_commands_that_do_not_fit_the_state_are_rejected_with_a_reason(state: RolloutState) -> None:
    it = replace(rollout(), state=state)
    accepted = {
        "proceed": rules.proceeded(it)[1] is None,
        "pause": rules.paused(it, "why")[1] is None,
        "resume": rules.resumed(it)[1] is None,
        "abort": rules.aborted(it, "why")[1] is None,
        "retry_failed": rules.retried(it)[1] is None,
    }
    assert accepted == {
        "proceed": state is RolloutState.PLANNED,
        "pause": state is RolloutState.ROLLING,
        "resume": state is RolloutState.PAUSED,
        "abort": state is not RolloutState.ABORTED,
        "retry_failed": False,  # no member has failed
    }
    assert started(it)[1] == ([] if state is not RolloutState.ROLLING else ["ws-0"])


def in_flight(generation: int = 2, **known: object) -> Member:
    return Member(
        workspace_id="ws-0",
        outcome=Outcome.IN_FLIGHT,
        generation=generation,
        since=T0,
        attempts=1,
        **known,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"generation": 1}, Outcome.IN_FLIGHT),  # the old box, still online
        ({"generation": 1, "phase": Phase.FAILED, "available": False}, Outcome.IN_FLIGHT),  # failed before
        ({"generation": 2, "available": False}, Outcome.IN_FLIGHT),  # recorded as online, but stale
        ({"generation": 2}, Outcome.RECREATED),
        ({"generation": 3}, Outcome.RECREATED),  # another request replaced it
        ({"generation": 2, "phase": Phase.DEGRADED, "available": False}, Outcome.IN_FLIGHT),
        ({"generation": 2, "phase": Phase.FAILED, "available": False}, Outcome.FAILED),
        (  # the launch was refused before a generation was opened
            {"generation": 1, "phase": Phase.FAILED, "available": False, "error_generation": 2},
            Outcome.FAILED,
        ),
        (  # its deadline was missed, and the lifecycle has requested a recreate
            {
                "generation": 3,
                "phase": Phase.RECREATING,
                "available": False,
                "error": "not_registered: the box did not register",
                "error_phase": Step.AWAIT_REGISTRATION,
                "error_generation": 2,
            },
            Outcome.FAILED,
        ),
        (  # throttled, and retried
            {
                "generation": 2,
                "phase": Phase.RECREATING,
                "available": False,
                "error_phase": Step.LAUNCH,
                "error_generation": 2,
            },
            Outcome.IN_FLIGHT,
        ),
        (  # an error of the previous box
            {
                "generation": 2,
                "phase": Phase.RECREATING,
                "available": False,
                "error_phase": Step.AWAIT_REGISTRATION,
                "error_generation": 1,
            },
            Outcome.IN_FLIGHT,
        ),
        ({"intent": Intent.STOP, "available": False}, Outcome.SKIPPED),
        ({"deleted": True, "available": False}, Outcome.SKIPPED),
    ],
)
def test_the_outcome_of_a_member_follows_from_its_recorded_state(
    known: dict[str, object], expected: Outcome
) -> None:
    assert rules.member_result(in_flight(), seen("ws-0", **known), rollout(), T0).outcome is expected


def test_a_member_that_misses_its_deadline_fails_and_names_its_phase() -> None:
    late = seen("ws-0", phase=Phase.AWAITING_REGISTRATION, available=False)
    it = rollout()
    assert rules.member_result(in_flight(), late, it, T0 + it.deadline - timedelta(seconds=1)) == in_flight()
    failed = rules.member_result(in_flight(), late, it, T0 + it.deadline)
    assert failed.outcome is Outcome.FAILED
    assert "30 min: awaiting_registration" in failed.detail


def test_a_failed_member_that_comes_online_late_counts_as_recreated() -> None:
    it, [canary] = started(rollout(2, max_failures=1))
    it = surveyed(it, seen(canary, phase=Phase.FAILED, available=False), down=(canary,))
    assert (it.state, it.failures) == (RolloutState.PAUSED, 1)
    assert surveyed(it, seen(canary, generation=1)) == replace(it, down=frozenset())  # not by its old box
    it = surveyed(it, seen(canary, generation=3))
    assert (outcome(it, canary), it.members[0].detail) == (Outcome.RECREATED, "it came online late")
    assert (it.state, it.failures) == (RolloutState.PAUSED, 1)  # an operator still has to resume it


def test_a_member_whose_request_was_rejected_does_not_count_as_recreated_when_online() -> None:
    it = rollout(2)
    refused = replace(it.members[0], outcome=Outcome.FAILED, detail="deferred: the budget is spent")
    it = rules.members_started(it, [refused], T0)
    assert outcome(surveyed(it, seen("ws-0")), "ws-0") is Outcome.FAILED


def test_a_box_in_progress_with_the_old_image_is_replaced_again_a_limited_number_of_times() -> None:
    it = rollout(image_id=NEW)
    again = rules.member_result(in_flight(), seen("ws-0", image_id=OLD), it, T0)
    assert again.outcome is Outcome.WAITING
    assert rules.member_result(in_flight(), seen("ws-0", image_id=NEW), it, T0).outcome is Outcome.RECREATED
    last_attempt = replace(in_flight(), attempts=rules.MAX_ATTEMPTS)
    assert rules.member_result(last_attempt, seen("ws-0", image_id=OLD), it, T0).outcome is Outcome.FAILED


@dataclass
class World:
    """A fleet whose boxes come online, fail, or go down for other reasons."""

    random: Random
    bad: set[str]
    generation: dict[str, int] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    """Down for reasons other than the rollout."""
    failed: set[str] = field(default_factory=set)

    def survey(self, it: Rollout, *, calm: bool) -> Survey:
        states = []
        for member in rules.in_flight(it):
            if self.random.random() < 0.3 and not calm:
                states.append(seen(member.workspace_id, phase=Phase.RECREATING, available=False))
            elif member.workspace_id in self.bad:
                self.failed.add(member.workspace_id)
                states.append(seen(member.workspace_id, phase=Phase.FAILED, available=False))
            else:
                self.down.discard(member.workspace_id)
                states.append(seen(member.workspace_id))
        if not calm and self.random.random() < 0.2:
            self.down ^= {self.random.choice(it.members).workspace_id}
        if calm:
            self.down.clear()
        blocked = "frozen" if not calm and self.random.random() < 0.1 else None
        return Survey(seen=tuple(states), down=frozenset(self.down | self.failed), blocked_reason=blocked)


@given(
    seed=st.integers(0, 2**32),
    members=st.integers(1, 40),
    allowed=st.integers(1, 10),
    max_failures=st.integers(1, 5),
    bad=st.sets(st.integers(0, 39), max_size=12),
)
def test_no_start_exceeds_the_unavailable_limit_and_each_member_gets_an_outcome(
    seed: int, members: int, allowed: int, max_failures: int, bad: set[int]
) -> None:
    world = World(random=Random(seed), bad={f"ws-{number}" for number in bad})
    it = rollout(members, allowed=allowed, max_failures=max_failures)
    for round_ in range(3000):
        if rules.is_over(it):
            break
        calm = round_ > 200
        it = rules.apply_survey(it, world.survey(it, calm=calm), T0)
        assert it.canary_passed or len(rules.in_flight(it)) <= 1
        if it.state is RolloutState.PAUSED:
            assert it.failures >= (max_failures if it.canary_passed else 1) or not it.canary_passed
            assert started(it)[1] == []
            it, refused = rules.resumed(it)
            assert refused is None
            it = rules.apply_survey(it, world.survey(it, calm=calm), T0)
            if calm and rules.count(it, Outcome.FAILED) >= allowed:
                world.failed.clear()  # an operator has repaired the failed members
                it = replace(it, down=frozenset())
        before = rules.unavailable(it)
        it, due = started(it)
        after = rules.unavailable(it)
        assert len(after) <= max(allowed, len(before)), "a start exceeds the limit of unavailable members"
        assert len(rules.in_flight(it)) <= (allowed if it.canary_passed else 1)
        assert not due or it.blocked_reason is None
        assert before <= after
        if calm and it.state is RolloutState.ROLLING and not due and not rules.in_flight(it):
            world.failed.clear()
    assert rules.is_over(it)
    assert {member.outcome for member in it.members} <= {Outcome.RECREATED, Outcome.FAILED}
    assert {member.workspace_id for member in it.members if member.outcome is Outcome.FAILED} <= world.bad


def test_manual_requests_have_the_highest_priority_and_rollouts_the_lowest() -> None:
    rolling = rollout_requester("admin:alice", "november")
    assert is_human(rolling)
    assert is_rollout_request(rolling)
    assert not is_rollout_request("admin:alice")

    def waits(*names: str) -> Provisioning:
        return Provisioning(generation=2, since=T0, requesters=names)

    assert step_priority(waits(rolling)) is ROLLOUT_PRIORITY
    assert step_priority(waits(rolling, "admin:bob")) is MANUAL_PRIORITY  # an operator joined
    assert step_priority(waits("admin:bob")) is MANUAL_PRIORITY
    for middle in (waits("watchdog"), waits(rolling, "watchdog"), waits(), None):
        assert step_priority(middle).priority_key is None
