"""Instances and DNS names, from the AWS endpoint's journal: I1, I8, and one launch per generation (I2)."""

from collections import defaultdict
from collections.abc import Iterator

from faults.invariants.evidence import AwsCall, Evidence, Violation

ALIVE = ("pending", "running")


def one_alive(evidence: Evidence) -> Iterator[Violation]:
    """I1: one instance is alive at a time; none launches before its predecessor has ended."""
    state: dict[str, dict[str, str]] = defaultdict(dict)
    for call in evidence.aws_calls:
        if call.action != "StateChange" or call.workspace is None:
            continue
        instances = state[call.workspace]
        instance = call.instances[0]
        is_new = instance not in instances
        others = {name: it for name, it in instances.items() if name != instance and it != "terminated"}
        instances[instance] = call.outcome
        if call.outcome in ALIVE and any(it in ALIVE for it in others.values()):
            yield _violation("I1", call, f"{instance} is {call.outcome} while {_join(others)}")
        elif is_new and others:
            yield _violation("I1", call, f"{instance} was launched while {_join(others)}")


def one_launch(evidence: Evidence) -> Iterator[Violation]:
    """I2: overlapping requests, retries and lost responses launch one instance per generation."""
    launched: dict[tuple[str, int | None], str] = {}
    for call in evidence.aws_calls:
        if call.outcome != "launched" or call.workspace is None:
            continue
        for instance in call.instances:
            before = launched.setdefault((call.workspace, call.generation), instance)
            if before != instance:
                yield _violation(
                    "I2", call, f"generation {call.generation} got {instance}, but already had {before}"
                )


def names_change_forwards(evidence: Evidence) -> Iterator[Violation]:
    """I8: a workspace's name changes at most once per generation, and only forwards."""
    newest: dict[str, int] = {}
    for call in evidence.aws_calls:
        if call.action != "ChangeResourceRecordSets" or call.outcome != "done" or call.workspace is None:
            continue
        for address in _written(call):
            owner, generation = evidence.addresses.get(address, (None, 0))
            if owner != call.workspace:
                yield _violation("I8", call, f"the name points to {address}, owned by {owner or 'no box'}")
                continue
            before = newest.get(call.workspace, 0)
            if generation <= before:
                yield _violation(
                    "I8", call, f"the name was changed for generation {generation} after {before}"
                )
            newest[call.workspace] = max(before, generation)


def _written(call: AwsCall) -> list[str]:
    """Return the addresses that a batch sets."""
    changes = call.parameters.get("changes")
    if not isinstance(changes, list):
        return []
    return [
        str(value)
        for change in changes
        if change.get("action") in ("CREATE", "UPSERT") and change.get("type") == "A"
        for value in change.get("values", ())
    ]


def _join(instances: dict[str, str]) -> str:
    return ", ".join(f"{name} is {state}" for name, state in instances.items())


def _violation(invariant: str, call: AwsCall, what: str) -> Violation:
    return Violation(invariant=invariant, workspace=call.workspace or "", at=call.at, what=what)
