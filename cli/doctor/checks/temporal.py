"""What follows from what Temporal's server said: the words for each fault, and what mends it.

Judges values; asks nobody.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from cli.doctor.checks.version import Version
from cli.doctor.model import Finding, failed, ok, warning

SHORTEST_RETENTION = timedelta(days=3)
"""A weekend: whoever comes back on Monday still finds Friday's closed runs."""

ADD_ATTRIBUTES = "Run deploy/temporal-namespace.sh, or `temporal operator search-attribute create {}`."


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQueueState:
    """A task queue, and how many workers ask it for tasks."""

    name: str
    kind: str
    pollers: int
    current: Version | None = None
    """The version that its work goes to; None: workers without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleState:
    """A schedule; None where there is none of that name."""

    schedule_id: str
    paused: bool | None
    note: str = ""


def unreachable(text: str, address: str) -> Finding:
    """Why no connection came about, by the library's words."""
    check, lower = "temporal.connection", text.lower()
    if any(sign in lower for sign in ("unauthenticated", "unauthorized", "permission_denied", "jwt")):
        return failed(
            check,
            f"{address} does not accept our credentials",
            "Correct TEMPORAL_API_KEY, or the client's certificate (TEMPORAL_TLS_CLIENT_CERT_PATH).",
            "TEMPORAL_API_KEY",
        )
    if any(sign in lower for sign in ("tls", "certificate", "handshake", "invalidcontenttype")):
        return failed(
            check,
            f"TLS with {address} does not come about: {text}",
            "Set TEMPORAL_TLS=true where the server speaks TLS, false where it doesn't; for its own "
            "authority TEMPORAL_TLS_SERVER_CA_CERT_PATH.",
            "TEMPORAL_TLS",
        )
    return failed(
        check,
        f"{address} cannot be reached: {text}",
        "Start the Temporal server, or correct TEMPORAL_ADDRESS (host:port); with TLS, TEMPORAL_TLS=true.",
        "TEMPORAL_ADDRESS",
    )


def no_namespace(namespace: str, address: str) -> Finding:
    """The server does not know it."""
    return failed(
        "temporal.namespace",
        f"{address} has no namespace {namespace!r}",
        "Run deploy/temporal-namespace.sh, which creates it, or correct TEMPORAL_NAMESPACE.",
        "TEMPORAL_NAMESPACE",
    )


def namespace(name: str, retention: timedelta, *, development: bool) -> Finding:
    """Whether closed runs are kept for long enough."""
    told = f"{name!r} keeps closed runs for {retention.total_seconds() / 86_400:g} days"
    if retention < SHORTEST_RETENTION and not development:
        return warning(
            "temporal.namespace",
            f"{told}, too short for whoever wants to know what happened",
            f"`temporal operator namespace update --namespace {name} --retention 30d`",
            "TEMPORAL_NAMESPACE",
        )
    return ok("temporal.namespace", told)


def search_attributes(wanted: Mapping[str, str], known: Mapping[str, str]) -> Finding:
    """Whether all are registered, each with its type."""
    check = "temporal.search_attributes"
    missing = [name for name in wanted if name not in known]
    other = [
        f"{name} is {known[name]}, not {kind}"
        for name, kind in wanted.items()
        if known.get(name, kind) != kind
    ]
    if missing:
        options = " ".join(f"--name {name} --type {wanted[name]}" for name in missing)
        return failed(
            check,
            f"the namespace does not have {', '.join(missing)}: workflows that set them get stuck",
            ADD_ATTRIBUTES.format(options),
            "TEMPORAL_NAMESPACE",
        )
    if other:
        return failed(
            check,
            "; ".join(other),
            "Remove them (`temporal operator search-attribute remove`), run deploy/temporal-namespace.sh.",
            "TEMPORAL_NAMESPACE",
        )
    return ok(check, f"all {len(wanted)} are registered")


def queues(states: Sequence[TaskQueueState]) -> Finding:
    """Whether a worker asks each of them for tasks."""
    idle = [f"{queue.name} ({queue.kind})" for queue in states if not queue.pollers]
    if idle:
        return warning(
            "temporal.task_queues",
            f"no worker polls {', '.join(idle)}: nothing happens to workspaces",
            "Start `onebox worker` with the same TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE.",
            "TEMPORAL_NAMESPACE",
        )
    return ok(
        "temporal.task_queues",
        f"{len(states)} are polled, by {max(queue.pollers for queue in states)} each at most",
    )


def schedules(states: Sequence[ScheduleState]) -> Iterator[Finding]:
    """Whether each is there and runs."""
    for one in states:
        check = f"temporal.schedule.{one.schedule_id}"
        if one.paused is None:
            yield warning(check, "it is not there", "Start `onebox worker`, which makes it.")
        elif one.paused:
            note = f" ({one.note})" if one.note else ""
            yield warning(
                check,
                f"it is paused{note}",
                f"`temporal schedule toggle --schedule-id {one.schedule_id} --unpause` when that is over.",
            )
        else:
            yield ok(check, "it runs")
