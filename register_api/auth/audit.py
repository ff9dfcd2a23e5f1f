"""Writes the audit log: every decision about a known workspace; repeated refusals as a count.

Entries hold no credential.
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
"""The same refusal of the same source for the same workspace gets one row per interval."""

TRACKED_REFUSALS_LIMIT = 10_000
"""Bounds the memory for counts. Beyond it the least recent count is dropped."""


class Auditor:
    """Writes the audit log of one process."""

    def __init__(self) -> None:
        self._repeats: OrderedDict[tuple[str, str, str, str], tuple[float, int]] = OrderedDict()

    async def write(self, conn: Connection, entry: AuditEntry) -> None:
        """Append an entry."""
        await audit.append(conn, entry)

    async def write_refusal(self, conn: Connection, entry: AuditEntry) -> None:
        """Append a refusal, or only count it if it repeats one within the interval.

        A refusal of a proven caller that needs an operator's attention is always written.
        """
        if not entry.needs_attention or entry.identity == CallerIdentity.UNPROVEN:
            repeats = self._repeats_due(entry)
            if repeats is None:
                return
            entry = replace(entry, repeats=repeats)
        await audit.append(conn, entry)

    def _repeats_due(self, entry: AuditEntry) -> int | None:
        """How many unwritten repeats a row for this entry stands for; None if no row is due yet."""
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
    """The audit log entry for a decision about a caller."""
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
