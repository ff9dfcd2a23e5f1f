"""The rules of a fleet rollout: who is next, when it pauses, what counts as arrived, and when it is over."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.rollout import rules
from workflows.rollout.rules import Member, MemberState, Outcome, Rollout, RolloutState, Survey
from workflows.shared.activity_options import MANUAL_PRIORITY, ROLLOUT_PRIORITY, step_priority
from workflows.workspace.requests import is_human, is_rollout_request, rollout_requester
from workflows.workspace.state import Intent, Phase, Provisioning, Step

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


def begun(it: Rollout, *, generation: int = 2) -> tuple[Rollout, list[str]]:
    """Give the turns that are due, each with an accepted request."""
    turns = rules.next_members(it)
    asked = [
        replace(
            turn,
            outcome=Outcome.IN_FLIGHT,
            generation=generation,
            request_count=turn.request_count + 1,
            attempts=turn.attempts + 1,
        )
        for turn in turns
    ]
    return rules.members_started(it, asked, T0), [turn.workspace_id for turn in turns]


def looked(
    it: Rollout, *news: MemberState, down: tuple[str, ...] = (), blocked_reason: str | None = None
) -> Rollout:
    """Look: those in flight without news are still on their way."""
    told = {each.workspace_id: each for each in news}
    on_the_way = [
        told.get(member.workspace_id) or seen(member.workspace_id, phase=Phase.RECREATING, available=False)
        for member in rules.tracked_members(it)
    ]
    return rules.apply_survey(
        it, Survey(seen=tuple(on_the_way), down=frozenset(down), blocked_reason=blocked_reason), T0
    )


def proven(it: Rollout) -> Rollout:
    """The canary has come online."""
    it, [canary] = begun(it)
    return looked(it, seen(canary))


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


def test_the_canary_goes_alone_and_the_others_follow_a_share_at_a_time() -> None:
    it, first = begun(rollout())
    assert first == ["ws-0"]
    assert rules.next_members(it) == ()
    it = looked(it)
    assert rules.next_members(it) == ()  # still on its way
    it = looked(it, seen("ws-0"))
    assert outcome(it, "ws-0") is Outcome.RECREATED
    it, second = begun(it)
    assert second == ["ws-1", "ws-2"]
    it = looked(it, seen("ws-2"))
    assert begun(it)[1] == ["ws-3"]


def test_whoever_is_down_for_another_reason_takes_room() -> None:
    it = looked(proven(rollout(allowed=3)), down=("ws-0", "ws-8"))
    assert begun(it)[1] == ["ws-8", "ws-1"]  # ws-8 is down already: it can only gain


def test_members_that_are_down_are_rolled_even_where_there_is_no_room_but_not_more_at_once() -> None:
    it = looked(proven(rollout(allowed=2)), down=("ws-5", "ws-6", "ws-7", "ws-8"))
    assert begun(it)[1] == ["ws-5", "ws-6"]


def test_the_canary_is_a_healthy_member_if_there_is_room_for_one() -> None:
    assert begun(looked(rollout(allowed=2), down=("ws-0",)))[1] == ["ws-1"]
    assert begun(looked(rollout(allowed=1), down=("ws-4",)))[1] == ["ws-4"]


def test_a_failed_canary_pauses_and_the_next_one_is_a_canary_too() -> None:
    it, [canary] = begun(rollout(max_failures=3))
    it = looked(
        it, seen(canary, phase=Phase.FAILED, available=False, error="InvalidAMIID.NotFound: no such image")
    )
    assert (it.state, outcome(it, canary)) == (RolloutState.PAUSED, Outcome.FAILED)
    assert "canary" in it.why
    assert it.members[0].detail == "InvalidAMIID.NotFound: no such image"
    it, refused = rules.resumed(it)
    assert refused is None
    assert begun(looked(it, down=(canary,)))[1] == ["ws-1"]


def test_failures_pause_at_the_threshold_and_are_counted_anew_after_a_resume() -> None:
    it = proven(rollout(20, allowed=5, max_failures=3))
    it, turns = begun(it)
    lost = [seen(name, phase=Phase.FAILED, available=False) for name in turns[:2]]
    it = looked(it, *lost, down=tuple(turns[:2]))
    assert (it.state, it.failures) == (RolloutState.ROLLING, 2)
    third = seen(turns[2], phase=Phase.FAILED, available=False)
    it = looked(it, third, down=tuple(turns[:3]))
    assert (it.state, it.failures) == (RolloutState.PAUSED, 3)
    assert begun(it)[1] == []
    it = looked(it, seen(turns[3]), down=tuple(turns[:3]))  # who is on the way is waited for
    assert outcome(it, turns[3]) is Outcome.RECREATED
    it, _ = rules.resumed(it)
    assert (it.state, it.failures) == (RolloutState.ROLLING, 0)
    # Three are lost and one is on the way: there is room for one more.
    assert len(begun(looked(it, down=tuple(turns[:3])))[1]) == 1


def test_a_held_fleet_begins_nothing_and_goes_on_by_itself() -> None:
    it = looked(proven(rollout()), blocked_reason="the fleet is frozen")
    assert begun(it)[1] == []
    assert rules.wants_capacity(it)
    assert begun(looked(it))[1] == ["ws-1", "ws-2"]


def test_an_aborted_roll_waits_for_who_is_on_the_way_and_leaves_the_others_untouched() -> None:
    it, _ = begun(proven(rollout()))
    it, refused = rules.aborted(it, "by admin:alice")
    assert refused is None
    assert not rules.is_over(it)
    assert begun(it)[1] == []
    it = looked(it, seen("ws-1"), seen("ws-2"))
    assert rules.is_over(it)
    assert rules.count(it, Outcome.WAITING) == 7
    assert all(member == Member(workspace_id=member.workspace_id) for member in it.members[3:])


def test_the_failed_are_tried_again_after_all_others_under_another_request() -> None:
    it = proven(rollout(4, allowed=2))
    it, _ = begun(it)
    it = looked(it, seen("ws-1", phase=Phase.FAILED, available=False), seen("ws-2"), down=("ws-1",))
    it, refused = rules.retried(it)
    assert refused is None
    assert [member.workspace_id for member in it.members] == ["ws-0", "ws-2", "ws-3", "ws-1"]
    it, turns = begun(looked(it))
    assert turns == ["ws-3", "ws-1"]
    assert it.members[-1].request_count == 2


@pytest.mark.parametrize("state", list(RolloutState))
def test_orders_that_make_no_sense_are_refused_with_a_reason(state: RolloutState) -> None:
    it = replace(rollout(), state=state)
    taken = {
        "proceed": rules.proceeded(it)[1] is None,
        "pause": rules.paused(it, "why")[1] is None,
        "resume": rules.resumed(it)[1] is None,
        "abort": rules.aborted(it, "why")[1] is None,
        "retry_failed": rules.retried(it)[1] is None,
    }
    assert taken == {
        "proceed": state is RolloutState.PLANNED,
        "pause": state is RolloutState.ROLLING,
        "resume": state is RolloutState.PAUSED,
        "abort": state is not RolloutState.ABORTED,
        "retry_failed": False,  # none has failed
    }
    assert begun(it)[1] == ([] if state is not RolloutState.ROLLING else ["ws-0"])


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
        ({"generation": 2, "available": False}, Outcome.IN_FLIGHT),  # online by the record, but silent
        ({"generation": 2}, Outcome.RECREATED),
        ({"generation": 3}, Outcome.RECREATED),  # somebody replaced it once more
        ({"generation": 2, "phase": Phase.DEGRADED, "available": False}, Outcome.IN_FLIGHT),
        ({"generation": 2, "phase": Phase.FAILED, "available": False}, Outcome.FAILED),
        (  # the launch was refused before a generation was opened
            {"generation": 1, "phase": Phase.FAILED, "available": False, "error_generation": 2},
            Outcome.FAILED,
        ),
        (  # its deadline was missed, and the lifecycle tries by itself
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
        (  # throttled on the way: not lost
            {
                "generation": 2,
                "phase": Phase.RECREATING,
                "available": False,
                "error_phase": Step.LAUNCH,
                "error_generation": 2,
            },
            Outcome.IN_FLIGHT,
        ),
        (  # an error of the box before
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
def test_what_became_of_a_member_is_read_off_its_record(known: dict[str, object], expected: Outcome) -> None:
    assert rules.member_result(in_flight(), seen("ws-0", **known), rollout(), T0).outcome is expected


def test_a_member_that_is_not_online_in_time_has_failed_and_says_what_it_was() -> None:
    late = seen("ws-0", phase=Phase.AWAITING_REGISTRATION, available=False)
    it = rollout()
    assert rules.member_result(in_flight(), late, it, T0 + it.deadline - timedelta(seconds=1)) == in_flight()
    failed = rules.member_result(in_flight(), late, it, T0 + it.deadline)
    assert failed.outcome is Outcome.FAILED
    assert "30 min: awaiting_registration" in failed.detail


def test_a_failed_member_that_comes_online_late_is_counted_by_that() -> None:
    it, [canary] = begun(rollout(2, max_failures=1))
    it = looked(it, seen(canary, phase=Phase.FAILED, available=False), down=(canary,))
    assert (it.state, it.failures) == (RolloutState.PAUSED, 1)
    assert looked(it, seen(canary, generation=1)) == replace(it, down=frozenset())  # not by its old box
    it = looked(it, seen(canary, generation=3))
    assert (outcome(it, canary), it.members[0].detail) == (Outcome.RECREATED, "it came online late")
    assert (it.state, it.failures) == (RolloutState.PAUSED, 1)  # what paused it is still a human's to judge


def test_a_member_whose_request_was_refused_does_not_count_as_recreated_by_being_online() -> None:
    it = rollout(2)
    refused = replace(it.members[0], outcome=Outcome.FAILED, detail="deferred: the budget is spent")
    it = rules.members_started(it, [refused], T0)
    assert outcome(looked(it, seen("ws-0")), "ws-0") is Outcome.FAILED


def test_a_box_that_was_on_its_way_with_the_old_image_is_replaced_once_more_but_not_for_ever() -> None:
    it = rollout(image_id=NEW)
    again = rules.member_result(in_flight(), seen("ws-0", image_id=OLD), it, T0)
    assert again.outcome is Outcome.WAITING
    assert rules.member_result(in_flight(), seen("ws-0", image_id=NEW), it, T0).outcome is Outcome.RECREATED
    outrun = replace(in_flight(), attempts=rules.MAX_ATTEMPTS)
    assert rules.member_result(outrun, seen("ws-0", image_id=OLD), it, T0).outcome is Outcome.FAILED


@dataclass
class World:
    """A fleet whose boxes come online, fail, or go down for reasons of their own."""

    random: Random
    bad: set[str]
    generation: dict[str, int] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    """Down for other reasons than the rollout's."""
    lost: set[str] = field(default_factory=set)

    def survey(self, it: Rollout, *, calm: bool) -> Survey:
        news = []
        for member in rules.in_flight(it):
            if self.random.random() < 0.3 and not calm:
                news.append(seen(member.workspace_id, phase=Phase.RECREATING, available=False))
            elif member.workspace_id in self.bad:
                self.lost.add(member.workspace_id)
                news.append(seen(member.workspace_id, phase=Phase.FAILED, available=False))
            else:
                self.down.discard(member.workspace_id)
                news.append(seen(member.workspace_id))
        if not calm and self.random.random() < 0.2:
            self.down ^= {self.random.choice(it.members).workspace_id}
        if calm:
            self.down.clear()
        held = "frozen" if not calm and self.random.random() < 0.1 else None
        return Survey(seen=tuple(news), down=frozenset(self.down | self.lost), blocked_reason=held)


@given(
    seed=st.integers(0, 2**32),
    members=st.integers(1, 40),
    allowed=st.integers(1, 10),
    max_failures=st.integers(1, 5),
    bad=st.sets(st.integers(0, 39), max_size=12),
)
def test_whatever_happens_no_turn_makes_more_unavailable_than_allowed_and_each_member_gets_an_outcome(
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
            assert begun(it)[1] == []
            it, refused = rules.resumed(it)
            assert refused is None
            it = rules.apply_survey(it, world.survey(it, calm=calm), T0)
            if calm and rules.count(it, Outcome.FAILED) >= allowed:
                world.lost.clear()  # a human has repaired what stood in the way
                it = replace(it, down=frozenset())
        before = rules.unavailable(it)
        it, turns = begun(it)
        after = rules.unavailable(it)
        assert len(after) <= max(allowed, len(before)), "a turn takes no room that isn't there"
        assert len(rules.in_flight(it)) <= (allowed if it.canary_passed else 1)
        assert not turns or it.blocked_reason is None
        assert before <= after
        if calm and it.state is RolloutState.ROLLING and not turns and not rules.in_flight(it):
            world.lost.clear()
    assert rules.is_over(it)
    assert {member.outcome for member in it.members} <= {Outcome.RECREATED, Outcome.FAILED}
    assert {member.workspace_id for member in it.members if member.outcome is Outcome.FAILED} <= world.bad


def test_people_go_first_programs_next_and_rolls_last() -> None:
    rolling = rollout_requester("admin:alice", "november")
    assert is_human(rolling)
    assert is_rollout_request(rolling)
    assert not is_rollout_request("admin:alice")

    def waits(*names: str) -> Provisioning:
        return Provisioning(generation=2, since=T0, requesters=names)

    assert step_priority(waits(rolling)) is ROLLOUT_PRIORITY
    assert step_priority(waits(rolling, "admin:bob")) is MANUAL_PRIORITY  # a human joined the rollout's
    assert step_priority(waits("admin:bob")) is MANUAL_PRIORITY
    for middle in (waits("watchdog"), waits(rolling, "watchdog"), waits(), None):
        assert step_priority(middle).priority_key is None
