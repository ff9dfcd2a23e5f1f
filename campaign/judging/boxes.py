"""Instances and names, by the AWS endpoint's journal: I1, I8, and one launch for each generation (I2)."""

from collections import defaultdict
from collections.abc import Iterator

from campaign.judging.evidence import Deed, Evidence, Violation

ALIVE = ("pending", "running")


def one_alive(evidence: Evidence) -> Iterator[Violation]:
    """I1: one instance alive at a time, and none launched before the one before has ended."""
    state: dict[str, dict[str, str]] = defaultdict(dict)
    for deed in evidence.deeds:
        if deed.action != "StateChange" or deed.workspace is None:
            continue
        instances = state[deed.workspace]
        instance = deed.instances[0]
        is_new = instance not in instances
        others = {name: it for name, it in instances.items() if name != instance and it != "terminated"}
        instances[instance] = deed.outcome
        if deed.outcome in ALIVE and any(it in ALIVE for it in others.values()):
            yield _violation("I1", deed, f"{instance} is {deed.outcome} beside {_told(others)}")
        elif is_new and others:
            yield _violation("I1", deed, f"{instance} was launched while {_told(others)}")


def one_launch(evidence: Evidence) -> Iterator[Violation]:
    """I2: overlapping requests, retries and lost answers launch one instance of a generation."""
    launched: dict[tuple[str, int | None], str] = {}
    for deed in evidence.deeds:
        if deed.outcome != "launched" or deed.workspace is None:
            continue
        for instance in deed.instances:
            before = launched.setdefault((deed.workspace, deed.generation), instance)
            if before != instance:
                yield _violation(
                    "I2", deed, f"generation {deed.generation} got {instance}, and had {before} already"
                )


def names_go_forwards(evidence: Evidence) -> Iterator[Violation]:
    """I8: a workspace's name changes at most once for each generation, and only forwards."""
    newest: dict[str, int] = {}
    for deed in evidence.deeds:
        if deed.action != "ChangeResourceRecordSets" or deed.outcome != "done" or deed.workspace is None:
            continue
        for address in _written(deed):
            owner, generation = evidence.addresses.get(address, (None, 0))
            if owner != deed.workspace:
                yield _violation("I8", deed, f"the name points to {address}, which is {owner or 'nobody'}'s")
                continue
            before = newest.get(deed.workspace, 0)
            if generation <= before:
                yield _violation(
                    "I8", deed, f"the name was changed for generation {generation} after {before}"
                )
            newest[deed.workspace] = max(before, generation)


def _written(deed: Deed) -> list[str]:
    """The addresses that a batch puts in place."""
    changes = deed.parameters.get("changes")
    if not isinstance(changes, list):
        return []
    return [
        str(value)
        for change in changes
        if change.get("action") in ("CREATE", "UPSERT") and change.get("type") == "A"
        for value in change.get("values", ())
    ]


def _told(instances: dict[str, str]) -> str:
    return ", ".join(f"{name} is {state}" for name, state in instances.items())


def _violation(invariant: str, deed: Deed, what: str) -> Violation:
    return Violation(invariant=invariant, workspace=deed.workspace or "", at=deed.at, what=what)
