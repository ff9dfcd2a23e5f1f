"""What goes into the audit trail: every decision about a known workspace, a flood as its count.

Decides nothing, and holds no credential.
"""

from collections import OrderedDict
from dataclasses import replace
from time import monotonic

from register_api.evidence import Caller, Credentials
from register_api.verdict import Peer, Verdict
from store import audit
from store.audit import Entry
from store.pool import Connection

ONE_IN_SECONDS = 10.0
"""The same answer to the same source about the same workspace gets a row once in so many seconds."""

KINDS_REMEMBERED = 10_000
"""Beyond them, the least recent count is forgotten: memory is bounded, the trail loses a count of repeats."""


class Auditor:
    """Writes the trail of one process."""

    def __init__(self) -> None:
        self._repeats: OrderedDict[tuple[str, str, str, str], tuple[float, int]] = OrderedDict()

    async def write(self, conn: Connection, entry: Entry) -> None:
        """Append the decision."""
        await audit.append(conn, entry)

    async def write_refusal(self, conn: Connection, entry: Entry) -> None:
        """Append a refusal. The same one again and again is thinned out, and counted.

        What a proven caller does that a human should see is always written.
        """
        if not entry.alert or entry.verdict == Verdict.UNPROVEN:
            repeats = self._due(entry)
            if repeats is None:
                return
            entry = replace(entry, repeats=repeats)
        await audit.append(conn, entry)

    def _due(self, entry: Entry) -> int | None:
        """How many repeats the row stands for; None if it only counts for a later one."""
        kind = (entry.workspace_id, entry.call, entry.code, str(entry.source))
        now = monotonic()
        last, repeats = self._repeats.pop(kind, (-ONE_IN_SECONDS, 0))
        is_due = now - last >= ONE_IN_SECONDS
        self._repeats[kind] = (now, 0) if is_due else (last, repeats + 1)
        if len(self._repeats) > KINDS_REMEMBERED:
            self._repeats.popitem(last=False)
        return repeats if is_due else None


def entry(
    workspace_id: str,
    *,
    call: str,
    code: str,
    caller: Caller,
    credentials: Credentials,
    token_prefix: str | None,
    request_id: str,
    alert: bool = False,
) -> Entry:
    """The decision about a caller, as the trail holds it."""
    return Entry(
        workspace_id=workspace_id,
        generation=caller.generation,
        call=call,
        verdict=caller.verdict,
        bearer=caller.bearer,
        code=code,
        token_prefix=token_prefix,
        source=credentials.source,
        from_box=caller.peer is Peer.MATCHES,
        alert=alert,
        request_id=request_id,
    )
