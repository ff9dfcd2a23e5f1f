"""Tokens, from PostgreSQL's changes, the audit log and unauthorized calls: I4, I6, I7, I11."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from faults.invariants.evidence import Change, Evidence, Violation

LIVE = ("pending", "active", "retiring")

TERMINAL_STATUSES = frozenset({"superseded", "workspace_removed", "workspace_stopped"})
"""Allowed responses to a box of an older generation; any other response would not end it."""

BOXES_CALLS = ("register", "heartbeat", "update-card")

ACCEPTED_CODES = frozenset({"minted", "replayed", "confirmed", "registered"})
"""Audit results of an accepted register call."""


def one_generation_has_tokens(evidence: Evidence) -> Iterator[Violation]:
    """I4: at each commit, live tokens are of one generation, at most one pending and one active."""
    last_of = {change.transaction: change.seq for change in evidence.changes}
    tokens: dict[str, dict[str, Change]] = defaultdict(dict)
    for change in evidence.changes:
        if change.table == "tokens":
            tokens[change.workspace][str(change.row["token_id"])] = change
        if last_of[change.transaction] != change.seq:
            continue
        live = [it for it in tokens[change.workspace].values() if it.row["state"] in LIVE]
        generations = {str(it.row["generation"]) for it in live}
        if len(generations) > 1:
            yield _violation("I4", change, f"tokens of generations {', '.join(sorted(generations))} are live")
        counts = Counter(str(it.row["state"]) for it in live)
        for state in ("pending", "active"):
            if counts[state] > 1:
                yield _violation("I4", change, f"{counts[state]} tokens are {state}")


def the_superseded_get_nothing(evidence: Evidence) -> Iterator[Violation]:
    """I6: a superseded generation gets no new token, and its box gets the answer `exit`."""
    newest: dict[str, int] = defaultdict(int)
    seen: set[str] = set()
    for change in evidence.changes:
        generation = change.row.get("generation")
        if not isinstance(generation, int):
            continue
        if change.table == "generations":
            newest[change.workspace] = max(newest[change.workspace], generation)
        elif change.table == "tokens" and (token := str(change.row["token_id"])) not in seen:
            seen.add(token)
            if generation < newest[change.workspace]:
                yield _violation(
                    "I6",
                    change,
                    f"generation {generation} got a token after {newest[change.workspace]}",
                )
    for row in evidence.audited:
        if row.verdict == "superseded" and row.call in BOXES_CALLS and row.code not in TERMINAL_STATUSES:
            yield Violation(
                invariant="I6",
                workspace=row.workspace,
                at=row.at,
                what=f"a superseded box's {row.call} was answered with {row.code}",
            )


def unknown_callers_get_nothing(evidence: Evidence) -> Iterator[Violation]:
    """I7: a caller without evidence gets no token."""
    for attempt in evidence.unauthorized_attempts:
        if attempt.got_token or attempt.status == 200:
            yield Violation(
                invariant="I7",
                workspace=attempt.workspace,
                at=attempt.at,
                what=f"an unknown caller's register call was answered with {attempt.status}",
            )
    for row in evidence.audited:
        if row.verdict == "unproven" and row.code in ACCEPTED_CODES:
            yield Violation(
                invariant="I7",
                workspace=row.workspace,
                at=row.at,
                what=f"the {row.call} of a caller without evidence was answered with {row.code}",
            )


def secrets_stay_secret(evidence: Evidence) -> Iterator[Violation]:
    """I11: no secret is in histories, logs or command lines. The report names the secret, not its value."""
    for name, secret in evidence.secrets.items():
        for place, text in evidence.texts.items():
            if secret and secret in text:
                yield Violation(invariant="I11", workspace="", at=0.0, what=f"{name} is in {place}")


def _violation(invariant: str, change: Change, what: str) -> Violation:
    return Violation(invariant=invariant, workspace=change.workspace, at=change.at, what=what)
