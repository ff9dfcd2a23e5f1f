"""What goes into the audit trail: every decision about a known workspace, a flood as its count.

Decides nothing, and holds no credential.
"""

from collections import OrderedDict
from dataclasses import replace
from time import monotonic

from register_api.auth.credentials import Caller, Credentials
from register_api.auth.identity import CallerIdentity, Peer
from store.db.pool import Connection
from store.registration import audit
from store.registration.audit import AuditEntry

REPEAT_INTERVAL_SECONDS = 10.0
"""The same answer to the same source about the same workspace gets a row once in so many seconds."""

TRACKED_REFUSALS_LIMIT = 10_000
"""Beyond them, the least recent count is forgotten: memory is bounded, the trail loses a count of repeats."""


class Auditor:
    """Writes the trail of one process."""

    def __init__(self) -> None:
        self._repeats: OrderedDict[tuple[str, str, str, str], tuple[float, int]] = OrderedDict()

    async def write(self, conn: Connection, entry: AuditEntry) -> None:
        """Append the decision."""
        await audit.append(conn, entry)

    async def write_refusal(self, conn: Connection, entry: AuditEntry) -> None:
        """Append a refusal. The same one again and again is thinned out, and counted.

        What a proven caller does that a human should see is always written.
        """
        if not entry.needs_attention or entry.identity == CallerIdentity.UNPROVEN:
            repeats = self._repeats_due(entry)
            if repeats is None:
                return
            entry = replace(entry, repeats=repeats)
        await audit.append(conn, entry)

    def _repeats_due(self, entry: AuditEntry) -> int | None:
        """How many repeats the row stands for; None if it only counts for a later one."""
        kind = (entry.workspace_id, entry.operation, entry.code, str(entry.source))
        now = monotonic()
        last, repeats = self._repeats.pop(kind, (-REPEAT_INTERVAL_SECONDS, 0))
        is_due = now - last >= REPEAT_INTERVAL_SECONDS
        self._repeats[kind] = (now, 0) if is_due else (last, repeats + 1)
        if len(self._repeats) > TRACKED_REFUSALS_LIMIT:
            self._repeats.popitem(last=False)
        return repeats if is_due else None


def audit_entry(
    workspace_id: str,
    *,
    call: str,
    code: str,
    caller: Caller,
    credentials: Credentials,
    token_prefix: str | None,
    request_id: str,
    alert: bool = False,
) -> AuditEntry:
    """The decision about a caller, as the trail holds it."""
    return AuditEntry(
        workspace_id=workspace_id,
        generation=caller.generation,
        operation=call,
        identity=caller.identity,
        credential_kind=caller.bearer,
        code=code,
        token_prefix=token_prefix,
        source=credentials.source,
        from_box=caller.peer is Peer.MATCHES,
        needs_attention=alert,
        request_id=request_id,
    )
