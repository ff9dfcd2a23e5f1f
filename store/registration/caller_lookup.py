"""Finds the workspace that a caller names and the token that it presents. Makes no decision."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from psycopg.rows import class_row

from store.db.pool import Connection
from workflows.workspace.enums import Intent


@dataclass(frozen=True, slots=True)
class CallerRecord:
    """A workspace, and the presented token if it belongs to the workspace, in any state."""

    intent: str
    deleted: bool
    newest: int
    """The newest generation ever opened; 0 if there is none."""
    current: int | None
    """The current generation; None while the workspace is stopped."""
    private_ip: IPv4Address | IPv6Address | None
    """The recorded address of the current generation's instance."""
    token_id: UUID | None
    token_generation: int | None
    token_state: str | None
    token_prefix: str | None

    @property
    def parsed_intent(self) -> Intent:
        """The intent as an enum."""
        return Intent(self.intent)


_FIND_CALLER = """
SELECT w.intent, w.deleted_at IS NOT NULL AS deleted, w.generation AS newest, g.generation AS current,
       g.private_ip, t.token_id, t.generation AS token_generation, t.state AS token_state,
       t.prefix AS token_prefix
FROM workspaces w
LEFT JOIN generations g ON g.workspace_id = w.workspace_id AND g.superseded_at IS NULL
LEFT JOIN tokens t ON t.sha256 = %(sha256)s::bytea AND t.workspace_id = w.workspace_id
WHERE w.workspace_id = %(workspace_id)s
"""


async def find_caller(conn: Connection, workspace_id: str, *, sha256: bytes | None) -> CallerRecord | None:
    """The workspace, with its token that has this hash; None if the workspace does not exist."""
    async with conn.cursor(row_factory=class_row(CallerRecord)) as cursor:
        await cursor.execute(_FIND_CALLER, {"workspace_id": workspace_id, "sha256": sha256})
        return await cursor.fetchone()


async def still_current(
    conn: Connection, workspace_id: str, generation: int, *, exclusive: bool = False
) -> bool:
    """Lock the generation until the transaction ends; False if it is not the current one.

    `exclusive` is for callers that update the row next: two shared locks would deadlock on the update.
    """
    mode = "NO KEY UPDATE" if exclusive else "SHARE"
    cursor = await conn.execute(
        f"""
        SELECT FROM generations WHERE workspace_id = %s AND generation = %s AND superseded_at IS NULL
        FOR {mode}
        """,
        [workspace_id, generation],
    )
    return cursor.rowcount == 1
