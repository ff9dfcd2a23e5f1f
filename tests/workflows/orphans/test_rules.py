"""What is an orphan and what becomes of it, as a table; and what no input may ever lead to."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import T0, after
from workflows.orphans.rules import (
    Claims,
    ListedResource,
    OrphanAction,
    OrphanDecision,
    OrphanKind,
    OrphanPolicy,
    Ownership,
    Sighting,
    SweepPass,
    WorkspaceClaim,
    decide,
    ownership,
)

OWNER = "onebox"
NOW = after(hours=1)
BOX = "i-00000000000000001"


def claim(
    workspace_id: str = "ws-1",
    *,
    deleted: bool = False,
    generation: int = 3,
    current: bool = True,
    attempt: int = 1,
    instance_id: str | None = BOX,
    refused: bool = False,
) -> WorkspaceClaim:
    return WorkspaceClaim(
        workspace_id=workspace_id,
        deleted=deleted,
        generation=generation,
        current=current,
        attempt=attempt,
        instance_id=instance_id,
        refused=refused,
    )


def claims(*workspaces: WorkspaceClaim, empty: bool = False) -> Claims:
    return Claims(
        workspaces={each.workspace_id: each for each in workspaces},
        instances=frozenset(each.instance_id for each in workspaces if each.instance_id is not None),
        empty=empty,
    )


def instance(
    name: str = "i-00000000000000009",
    *,
    owner: str | None = OWNER,
    workspace_id: str | None = "ws-1",
    generation: int = 2,
    attempt: int = 1,
    since: datetime | None = T0,
    ending: bool = False,
    protected: bool = False,
) -> ListedResource:
    return ListedResource(
        kind=OrphanKind.INSTANCE,
        name=name,
        owner=owner,
        workspace_id=workspace_id,
        generation=generation,
        attempt=attempt,
        since=since,
        ending=ending,
        protected=protected,
    )


def dns_name(workspace_id: str | None = "ws-1", *, generation: int = 3) -> ListedResource:
    return ListedResource(
        kind=OrphanKind.NAME,
        name=f"{workspace_id}.boxes.internal",
        owner=OWNER,
        workspace_id=workspace_id,
        generation=generation,
        attempt=1,
    )


def sighting(
    *, first: float = 3_000, last: float = 3_480, times: int = 1, acted: float | None = None
) -> Sighting:
    """Seen in one pass, two minutes ago, unless it says otherwise; in seconds since T0."""
    return Sighting(
        first_seen=after(first),
        last_seen=after(last),
        times=times,
        pass_id="before",
        acted_at=after(acted) if acted is not None else None,
    )


def look(
    *, at: datetime = NOW, policy: OrphanPolicy | None = None, used: int = 0, pass_id: str = "now"
) -> SweepPass:
    return SweepPass(pass_id=pass_id, owner=OWNER, at=at, policy=policy or OrphanPolicy(), used=used)


def verdict(
    resource: ListedResource,
    record: Claims,
    *,
    seen: Sighting | None = None,
    policy: OrphanPolicy | None = None,
) -> OrphanAction:
    [judged] = decide([resource], record, {resource.name: seen or sighting()}, look(policy=policy))
    return judged.action


KNOWN = claims(claim())
RESTORED = claims(claim(generation=1, instance_id=None))

TABLE: list[tuple[str, ListedResource, Claims, OrphanAction]] = [
    ("the current box", instance(BOX, generation=3), KNOWN, OrphanAction.CLAIMED),
    ("the current box, its tags changed", instance(BOX, workspace_id="ws-2"), KNOWN, OrphanAction.CLAIMED),
    ("an older generation", instance(generation=2), KNOWN, OrphanAction.ORPHAN),
    ("no generation at all", instance(generation=0, attempt=0), KNOWN, OrphanAction.ORPHAN),
    ("a second one of the current launch", instance(generation=3), KNOWN, OrphanAction.ORPHAN),
    ("a later attempt than was made", instance(generation=3, attempt=7), KNOWN, OrphanAction.ORPHAN),
    (
        "an earlier attempt of the generation",
        instance(generation=3),
        claims(claim(attempt=2, instance_id=None)),
        OrphanAction.ORPHAN,
    ),
    (
        "the launch whose answer was lost",
        instance(generation=3),
        claims(claim(instance_id=None)),
        OrphanAction.UNRECORDED_INSTANCE,
    ),
    (
        "of a launch that was refused",
        instance(generation=3),
        claims(claim(instance_id=None, refused=True)),
        OrphanAction.ORPHAN,
    ),
    (
        "of a stopped workspace",
        instance(generation=3),
        claims(claim(current=False, attempt=0, instance_id=None)),
        OrphanAction.ORPHAN,
    ),
    ("of a deleted workspace", instance(), claims(claim(deleted=True, current=False)), OrphanAction.END),
    ("of an unknown workspace", instance(workspace_id="ws-nobody"), KNOWN, OrphanAction.END),
    (
        "a record without workspaces",
        instance(workspace_id="ws-nobody"),
        claims(empty=True),
        OrphanAction.DOUBTFUL,
    ),
    ("a generation that is to come", instance(generation=4), KNOWN, OrphanAction.AHEAD),
    ("of another control plane", instance(owner="another"), KNOWN, OrphanAction.FOREIGN),
    ("without an owner", instance(owner=None), KNOWN, OrphanAction.FOREIGN),
    ("without a workspace", instance(workspace_id=None), KNOWN, OrphanAction.UNLABELLED),
    ("of a workspace that cannot be", instance(workspace_id="No Such"), KNOWN, OrphanAction.UNLABELLED),
    ("protected", instance(protected=True), KNOWN, OrphanAction.PROTECTED),
    (
        "protected, of nobody",
        instance(workspace_id="ws-nobody", protected=True),
        KNOWN,
        OrphanAction.PROTECTED,
    ),
    ("being terminated", instance(ending=True), KNOWN, OrphanAction.ENDING),
    ("launched a moment ago", instance(since=NOW - timedelta(minutes=4)), KNOWN, OrphanAction.YOUNG),
    ("the name of a workspace", dns_name(), KNOWN, OrphanAction.CLAIMED),
    ("the name of a stopped one", dns_name(), claims(claim(current=False)), OrphanAction.CLAIMED),
    ("the name of a deleted one", dns_name(), claims(claim(deleted=True)), OrphanAction.END),
    ("the name of nobody", dns_name("ws-nobody"), KNOWN, OrphanAction.END),
    ("a name that we would not give", dns_name(None), KNOWN, OrphanAction.UNLABELLED),
    ("a name that is ahead", dns_name(generation=9), KNOWN, OrphanAction.AHEAD),
]


@pytest.mark.parametrize(
    ("resource", "record", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_each_kind_of_orphan_has_its_verdict(
    resource: ListedResource, record: Claims, expected: OrphanAction
) -> None:
    assert verdict(resource, record) is expected


def test_one_sighting_is_none() -> None:
    [first] = decide([instance()], KNOWN, {}, look())
    assert first.action is OrphanAction.SEEN_ONCE
    assert first.sighting is not None
    [again] = decide([instance()], KNOWN, {first.resource.name: first.sighting}, look())
    assert again.action is OrphanAction.SEEN_ONCE, "the same pass, repeated, sees nothing new"
    [second] = decide([instance()], KNOWN, {first.resource.name: first.sighting}, look(pass_id="next"))
    assert second.action is OrphanAction.ORPHAN


def test_a_sighting_of_long_ago_does_not_count() -> None:
    assert verdict(instance(), KNOWN, seen=sighting(first=0, last=60, times=5)) is OrphanAction.SEEN_ONCE


def test_a_name_is_as_old_as_its_first_sighting() -> None:
    record = claims(claim(deleted=True))
    assert verdict(dns_name(), record, seen=sighting(first=3_400)) is OrphanAction.YOUNG
    assert verdict(dns_name(), record, seen=sighting(first=3_300)) is OrphanAction.END


def test_what_was_done_a_moment_ago_is_not_done_again_and_later_is() -> None:
    recent, earlier = sighting(times=5, acted=3_400), sighting(times=5, acted=3_200)
    assert verdict(instance(), KNOWN, seen=recent) is OrphanAction.IN_HAND
    assert verdict(instance(), KNOWN, seen=earlier) is OrphanAction.ORPHAN


def test_a_pass_that_is_repeated_says_the_same_again() -> None:
    listed = [instance(f"i-{number:017x}") for number in range(20, 40)]
    before = {found.name: sighting() for found in listed}
    first = decide(listed, KNOWN, before, look())
    known = {one.resource.name: one.sighting for one in first if one.sighting is not None}
    second = decide(listed, KNOWN, known, look(at=NOW + timedelta(seconds=5)))
    assert [one.action for one in second] == [one.action for one in first]


def test_what_waits_longest_goes_first_and_everything_has_its_turn() -> None:
    listed = [instance(f"i-{number:017x}") for number in range(20, 32)]
    known: Mapping[str, Sighting] = {found.name: sighting() for found in listed}
    acted: list[str] = []
    for number in range(3):
        judged = decide(
            listed, KNOWN, known, look(at=NOW + timedelta(minutes=2 * number), pass_id=f"pass {number}")
        )
        acted += [one.resource.name for one in judged if one.action.acts]
        known = {one.resource.name: one.sighting for one in judged if one.sighting is not None}
    assert len(acted) == len(set(acted)) == 12


def test_what_cannot_be_ended_does_not_keep_the_others_waiting() -> None:
    """Two at a time, nobody does anything about them, and each becomes due again before all had a turn."""
    listed = [instance(f"i-{number:017x}") for number in range(20, 32)]
    known: Mapping[str, Sighting] = {found.name: sighting() for found in listed}
    acted = set[str]()
    for number in range(6):
        at = NOW + timedelta(minutes=5 * number)
        judged = decide(
            listed, KNOWN, known, look(at=at, policy=OrphanPolicy(max_actions=2), pass_id=f"{number}")
        )
        acted |= {one.resource.name for one in judged if one.action.acts}
        known = {one.resource.name: one.sighting for one in judged if one.sighting is not None}
    assert len(acted) == 12


def test_a_pass_does_no_more_than_is_left_of_it() -> None:
    listed = [instance(f"i-{number:017x}") for number in range(20, 30)]
    judged = decide(listed, KNOWN, {found.name: sighting() for found in listed}, look(used=3))
    assert sum(one.action.acts for one in judged) == 2
    assert sum(one.action is OrphanAction.OVER_CAP for one in judged) == 8


def test_a_dry_run_says_what_would_be_done_and_notes_nothing_as_done() -> None:
    policy = OrphanPolicy(dry_run=True)
    [judged] = decide([instance()], KNOWN, {instance().name: sighting()}, look(policy=policy))
    assert judged.action is OrphanAction.ORPHAN
    assert judged.sighting is not None
    assert judged.sighting.acted_at is None


def test_a_record_that_ec2_is_ahead_of_ends_nothing_that_it_does_not_know() -> None:
    """It was restored from a backup: workspaces of today are unknown to it, and alive."""
    ahead = instance("i-0000000000000000a", generation=2)
    unknown = instance("i-0000000000000000b", workspace_id="ws-of-today")
    dead = instance("i-0000000000000000c", workspace_id="ws-dead")
    record = claims(claim(generation=1, instance_id=None), claim("ws-dead", deleted=True, instance_id=None))
    listed = [ahead, unknown, dead]
    judged = decide(listed, record, {found.name: sighting() for found in listed}, look())
    assert [one.action for one in judged] == [OrphanAction.AHEAD, OrphanAction.DOUBTFUL, OrphanAction.END]


def test_an_empty_list_leads_to_nothing() -> None:
    assert decide([], KNOWN, {"i-1": sighting(times=9)}, look()) == ()


WORKSPACES = ("ws-1", "ws-2", "ws-3")


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[ListedResource], Claims, dict[str, Sighting], OrphanPolicy]:
    record = [
        claim(
            workspace_id,
            deleted=draw(st.booleans()),
            generation=draw(st.integers(0, 3)),
            current=draw(st.booleans()),
            attempt=draw(st.integers(0, 2)),
            instance_id=draw(st.sampled_from([None, f"i-{index}"])),
            refused=draw(st.booleans()),
        )
        for index, workspace_id in enumerate(WORKSPACES)
        if draw(st.booleans())
    ]
    listed = [
        instance(
            f"i-{index}",
            owner=draw(st.sampled_from([OWNER, OWNER, OWNER, "another", None])),
            workspace_id=draw(st.sampled_from([*WORKSPACES, "ws-nobody", "", "Bad!", None])),
            generation=draw(st.integers(0, 4)),
            attempt=draw(st.integers(0, 3)),
            since=draw(st.sampled_from([T0, NOW, NOW - timedelta(minutes=5)])),
            ending=draw(st.booleans()),
            protected=draw(st.booleans()),
        )
        for index in range(draw(st.integers(0, 12)))
    ]
    earlier = {
        found.name: sighting(times=draw(st.integers(1, 4)), acted=draw(st.sampled_from([None, 3_000, 3_550])))
        for found in listed
        if draw(st.booleans())
    }
    policy = OrphanPolicy(max_actions=draw(st.integers(0, 6)), dry_run=draw(st.booleans()))
    return listed, claims(*record, empty=not record), earlier, policy


@given(situations())
def test_nothing_is_ever_done_about_what_is_not_surely_an_orphan(
    situation: tuple[list[ListedResource], Claims, dict[str, Sighting], OrphanPolicy],
) -> None:
    listed, record, earlier, policy = situation
    judged = decide(listed, record, earlier, look(policy=policy))
    assert [one.resource for one in judged] == listed
    acted = [one for one in judged if one.action.acts]
    assert len(acted) <= policy.max_actions
    for one in acted:
        found = one.resource
        assert found.owner == OWNER
        assert not found.ending
        assert not found.protected
        assert found.name not in record.instances
        assert found.since is not None
        assert NOW - found.since >= policy.min_age
        assert found.name in earlier
        assert ownership(found, record) not in (Ownership.CLAIMED, Ownership.AHEAD)
        assert not (record.empty and one.action is OrphanAction.END)
        assert _workspace_can_act(one, record) == (one.action is not OrphanAction.END)


@given(situations())
def test_the_order_of_the_list_changes_nothing(
    situation: tuple[list[ListedResource], Claims, dict[str, Sighting], OrphanPolicy],
) -> None:
    listed, record, earlier, policy = situation
    forwards = decide(listed, record, earlier, look(policy=policy))
    backwards = decide(listed[::-1], record, earlier, look(policy=policy))
    assert forwards == backwards[::-1]


@given(situations())
def test_whatever_nobody_claims_is_dealt_with_in_the_end(
    situation: tuple[list[ListedResource], Claims, dict[str, Sighting], OrphanPolicy],
) -> None:
    """Passes every two minutes, nothing is done by anyone: each orphan has its turn, again and again."""
    listed, record, _, policy = situation
    policy = replace(policy, max_actions=2, dry_run=False)
    known: dict[str, Sighting] = {}
    acted, judged = set[str](), tuple[OrphanDecision, ...]()
    for number in range(2 + 3 + 12):
        at = NOW + timedelta(minutes=2 * number)
        judged = decide(listed, record, known, look(at=at, policy=policy, pass_id=f"pass {number}"))
        known = {one.resource.name: one.sighting for one in judged if one.sighting is not None}
        acted |= {one.resource.name for one in judged if one.action.acts}
    left = (OrphanAction.FOREIGN, OrphanAction.ENDING, OrphanAction.CLAIMED, OrphanAction.UNLABELLED)
    kept = (OrphanAction.PROTECTED, OrphanAction.AHEAD, OrphanAction.DOUBTFUL)
    assert acted == {one.resource.name for one in judged if one.action not in (*left, *kept)}


def _workspace_can_act(one: OrphanDecision, record: Claims) -> bool:
    known = record.workspaces.get(one.resource.workspace_id or "")
    return known is not None and not known.deleted
