"""The action for each kind of resource as a table, and properties that hold for any input."""

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
    """A sighting; by default in one pass, two minutes ago. Times are in seconds since T0."""
    return Sighting(
        first_seen=after(first),
        last_seen=after(last),
        times=times,
        pass_id="before",
        acted_at=after(acted) if acted is not None else None,
    )


def sweep(
    *, at: datetime = NOW, policy: OrphanPolicy | None = None, used: int = 0, pass_id: str = "now"
) -> SweepPass:
    return SweepPass(pass_id=pass_id, owner=OWNER, at=at, policy=policy or OrphanPolicy(), used=used)


def action_for(
    resource: ListedResource,
    record: Claims,
    *,
    seen: Sighting | None = None,
    policy: OrphanPolicy | None = None,
) -> OrphanAction:
    [decisions] = decide([resource], record, {resource.name: seen or sighting()}, sweep(policy=policy))
    return decisions.action


KNOWN = claims(claim())
RESTORED = claims(claim(generation=1, instance_id=None))

TABLE: list[tuple[str, ListedResource, Claims, OrphanAction]] = [
    ("the current box", instance(BOX, generation=3), KNOWN, OrphanAction.CLAIMED),
    ("the current box, its tags changed", instance(BOX, workspace_id="ws-2"), KNOWN, OrphanAction.CLAIMED),
    ("an older generation", instance(generation=2), KNOWN, OrphanAction.ORPHAN),
    ("no generation at all", instance(generation=0, attempt=0), KNOWN, OrphanAction.ORPHAN),
    ("a second one of the current launch", instance(generation=3), KNOWN, OrphanAction.ORPHAN),
    ("a later attempt than recorded", instance(generation=3, attempt=7), KNOWN, OrphanAction.ORPHAN),
    (
        "an earlier attempt of the generation",
        instance(generation=3),
        claims(claim(attempt=2, instance_id=None)),
        OrphanAction.ORPHAN,
    ),
    (
        "the launch whose response was lost",
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
    ("of an unknown workspace", instance(workspace_id="ws-unknown"), KNOWN, OrphanAction.END),
    (
        "a database without workspaces",
        instance(workspace_id="ws-unknown"),
        claims(empty=True),
        OrphanAction.DOUBTFUL,
    ),
    ("a generation newer than recorded", instance(generation=4), KNOWN, OrphanAction.AHEAD),
    ("of another control plane", instance(owner="another"), KNOWN, OrphanAction.FOREIGN),
    ("without an owner", instance(owner=None), KNOWN, OrphanAction.FOREIGN),
    ("without a workspace", instance(workspace_id=None), KNOWN, OrphanAction.UNLABELLED),
    ("with an invalid workspace ID", instance(workspace_id="No Such"), KNOWN, OrphanAction.UNLABELLED),
    ("protected", instance(protected=True), KNOWN, OrphanAction.PROTECTED),
    (
        "protected, of an unknown workspace",
        instance(workspace_id="ws-unknown", protected=True),
        KNOWN,
        OrphanAction.PROTECTED,
    ),
    ("being terminated", instance(ending=True), KNOWN, OrphanAction.ENDING),
    ("launched a moment ago", instance(since=NOW - timedelta(minutes=4)), KNOWN, OrphanAction.YOUNG),
    ("the name of a workspace", dns_name(), KNOWN, OrphanAction.CLAIMED),
    ("the name of a stopped one", dns_name(), claims(claim(current=False)), OrphanAction.CLAIMED),
    ("the name of a deleted one", dns_name(), claims(claim(deleted=True)), OrphanAction.END),
    ("the name of an unknown workspace", dns_name("ws-unknown"), KNOWN, OrphanAction.END),
    ("a name without a workspace", dns_name(None), KNOWN, OrphanAction.UNLABELLED),
    ("a name of a newer generation", dns_name(generation=9), KNOWN, OrphanAction.AHEAD),
]


@pytest.mark.parametrize(
    ("resource", "record", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_each_kind_of_resource_has_its_action(
    resource: ListedResource, record: Claims, expected: OrphanAction
) -> None:
    assert action_for(resource, record) is expected


def test_one_sighting_is_not_enough() -> None:
    [first] = decide([instance()], KNOWN, {}, sweep())
    assert first.action is OrphanAction.SEEN_ONCE
    assert first.sighting is not None
    [again] = decide([instance()], KNOWN, {first.resource.name: first.sighting}, sweep())
    assert again.action is OrphanAction.SEEN_ONCE, "a repeated pass counts no new sighting"
    [second] = decide([instance()], KNOWN, {first.resource.name: first.sighting}, sweep(pass_id="next"))
    assert second.action is OrphanAction.ORPHAN


def test_an_expired_sighting_does_not_count() -> None:
    assert action_for(instance(), KNOWN, seen=sighting(first=0, last=60, times=5)) is OrphanAction.SEEN_ONCE


def test_the_age_of_a_dns_name_counts_from_its_first_sighting() -> None:
    record = claims(claim(deleted=True))
    assert action_for(dns_name(), record, seen=sighting(first=3_400)) is OrphanAction.YOUNG
    assert action_for(dns_name(), record, seen=sighting(first=3_300)) is OrphanAction.END


def test_a_recent_action_is_not_repeated_and_an_older_one_is() -> None:
    recent, earlier = sighting(times=5, acted=3_400), sighting(times=5, acted=3_200)
    assert action_for(instance(), KNOWN, seen=recent) is OrphanAction.IN_HAND
    assert action_for(instance(), KNOWN, seen=earlier) is OrphanAction.ORPHAN


def test_a_repeated_pass_decides_the_same() -> None:
    listed = [instance(f"i-{number:017x}") for number in range(20, 40)]
    before = {resource.name: sighting() for resource in listed}
    first = decide(listed, KNOWN, before, sweep())
    known = {it.resource.name: it.sighting for it in first if it.sighting is not None}
    second = decide(listed, KNOWN, known, sweep(at=NOW + timedelta(seconds=5)))
    assert [it.action for it in second] == [it.action for it in first]


def test_a_pass_takes_no_more_than_its_remaining_actions() -> None:
    listed = [instance(f"i-{number:017x}") for number in range(20, 30)]
    decisions = decide(listed, KNOWN, {resource.name: sighting() for resource in listed}, sweep(used=3))
    assert sum(it.action.acts for it in decisions) == 2
    assert sum(it.action is OrphanAction.OVER_CAP for it in decisions) == 8


def test_a_dry_run_reports_actions_and_records_none() -> None:
    policy = OrphanPolicy(dry_run=True)
    [decisions] = decide([instance()], KNOWN, {instance().name: sighting()}, sweep(policy=policy))
    assert decisions.action is OrphanAction.ORPHAN
    assert decisions.sighting is not None
    assert decisions.sighting.acted_at is None


def test_with_a_restored_database_unknown_workspaces_are_not_changed() -> None:
    """The database was restored from a backup: it does not have newer workspaces, which run."""
    ahead = instance("i-0000000000000000a", generation=2)
    unknown = instance("i-0000000000000000b", workspace_id="ws-of-today")
    dead = instance("i-0000000000000000c", workspace_id="ws-dead")
    record = claims(claim(generation=1, instance_id=None), claim("ws-dead", deleted=True, instance_id=None))
    listed = [ahead, unknown, dead]
    decisions = decide(listed, record, {resource.name: sighting() for resource in listed}, sweep())
    assert [it.action for it in decisions] == [OrphanAction.AHEAD, OrphanAction.DOUBTFUL, OrphanAction.END]


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
            workspace_id=draw(st.sampled_from([*WORKSPACES, "ws-unknown", "", "Bad!", None])),
            generation=draw(st.integers(0, 4)),
            attempt=draw(st.integers(0, 3)),
            since=draw(st.sampled_from([T0, NOW, NOW - timedelta(minutes=5)])),
            ending=draw(st.booleans()),
            protected=draw(st.booleans()),
        )
        for index in range(draw(st.integers(0, 12)))
    ]
    earlier = {
        resource.name: sighting(
            times=draw(st.integers(1, 4)), acted=draw(st.sampled_from([None, 3_000, 3_550]))
        )
        for resource in listed
        if draw(st.booleans())
    }
    policy = OrphanPolicy(max_actions=draw(st.integers(0, 6)), dry_run=draw(st.booleans()))
    return listed, claims(*record, empty=not record), earlier, policy


@given(situations())
def test_only_proven_orphans_get_an_action(
    situation: tuple[list[ListedResource], Claims, dict[str, Sighting], OrphanPolicy],
) -> None:
    listed, record, earlier, policy = situation
    decisions = decide(listed, record, earlier, sweep(policy=policy))
    assert [it.resource for it in decisions] == listed
    acted = [it for it in decisions if it.action.acts]
    assert len(acted) <= policy.max_actions
    for it in acted:
        resource = it.resource
        assert resource.owner == OWNER
        assert not resource.ending
        assert not resource.protected
        assert resource.name not in record.instances
        assert resource.since is not None
        assert NOW - resource.since >= policy.min_age
        assert resource.name in earlier
        assert ownership(resource, record) not in (Ownership.CLAIMED, Ownership.AHEAD)
        assert not (record.empty and it.action is OrphanAction.END)
        assert _workspace_can_act(it, record) == (it.action is not OrphanAction.END)


@given(situations())
def test_the_order_of_the_list_changes_nothing(
    situation: tuple[list[ListedResource], Claims, dict[str, Sighting], OrphanPolicy],
) -> None:
    listed, record, earlier, policy = situation
    forwards = decide(listed, record, earlier, sweep(policy=policy))
    backwards = decide(listed[::-1], record, earlier, sweep(policy=policy))
    assert forwards == backwards[::-1]


@given(situations())
def test_every_orphan_eventually_gets_an_action(
    situation: tuple[list[ListedResource], Claims, dict[str, Sighting], OrphanPolicy],
) -> None:
    """With a pass every two minutes and no action that succeeds, each orphan still gets actions."""
    listed, record, _, policy = situation
    policy = replace(policy, max_actions=2, dry_run=False)
    known: dict[str, Sighting] = {}
    acted, decisions = set[str](), tuple[OrphanDecision, ...]()
    for number in range(2 + 3 + 12):
        at = NOW + timedelta(minutes=2 * number)
        decisions = decide(listed, record, known, sweep(at=at, policy=policy, pass_id=f"pass {number}"))
        known = {it.resource.name: it.sighting for it in decisions if it.sighting is not None}
        acted |= {it.resource.name for it in decisions if it.action.acts}
    left = (OrphanAction.FOREIGN, OrphanAction.ENDING, OrphanAction.CLAIMED, OrphanAction.UNLABELLED)
    kept = (OrphanAction.PROTECTED, OrphanAction.AHEAD, OrphanAction.DOUBTFUL)
    assert acted == {it.resource.name for it in decisions if it.action not in (*left, *kept)}


def _workspace_can_act(it: OrphanDecision, record: Claims) -> bool:
    known = record.workspaces.get(it.resource.workspace_id or "")
    return known is not None and not known.deleted
