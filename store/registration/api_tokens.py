"""A workspace's tokens as operators manage them: its API tokens, and the instance tokens of its box.

An API token is shown once and stays valid until it is revoked or its workspace is deleted.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from store.db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One live token of a workspace."""

    token_id: UUID
    kind: str
    """`api`, or `instance`."""
    name: str
    prefix: str
    state: str
    generation: int | None
    """Of an instance token."""
    created_by: str
    created_at: datetime
    last_used_at: datetime | None


_LIST_LIVE = """
SELECT token_id, 'api' AS kind, name, prefix, 'active' AS state, NULL::integer AS generation, created_by,
       created_at, last_used_at
FROM api_tokens WHERE workspace_id = %(workspace_id)s AND revoked_at IS NULL
UNION ALL
SELECT token_id, 'instance', '', prefix, state, generation, 'register', created_at, last_used_at
FROM tokens WHERE workspace_id = %(workspace_id)s AND state <> 'revoked'
ORDER BY created_at, token_id
"""


async def list_live(conn: Connection, workspace_id: str) -> list[TokenRow]:
    """The tokens that are not revoked, oldest first."""
    cursor = conn.cursor(row_factory=class_row(TokenRow))
    await cursor.execute(_LIST_LIVE, {"workspace_id": workspace_id})
    return await cursor.fetchall()


async def create(
    conn: Connection, workspace_id: str, *, name: str, sha256: bytes, prefix: str, created_by: str, limit: int
) -> UUID | None:
    """Store a new API token. None if the workspace is deleted or has `limit` tokens already."""
    # The lock serializes creations for one workspace, so that the count is exact.
    await conn.execute("SELECT FROM workspaces WHERE workspace_id = %s FOR NO KEY UPDATE", [workspace_id])
    cursor = await conn.execute(
        """
        INSERT INTO api_tokens (workspace_id, name, sha256, prefix, created_by)
        SELECT workspace_id, %(name)s, %(sha256)s, %(prefix)s, %(created_by)s FROM workspaces w
        WHERE workspace_id = %(workspace_id)s AND intent <> 'delete' AND deleted_at IS NULL
          AND (SELECT count(*) FROM api_tokens t
               WHERE t.workspace_id = w.workspace_id AND t.revoked_at IS NULL) < %(limit)s
        RETURNING token_id
        """,
        {
            "workspace_id": workspace_id,
            "name": name,
            "sha256": sha256,
            "prefix": prefix,
            "created_by": created_by,
            "limit": limit,
        },
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def revoke(conn: Connection, workspace_id: str, token_id: UUID) -> str | None:
    """Revoke a live token of the workspace and return its prefix; None if there is none with this ID.

    After an instance token is revoked, its box registers with the bootstrap secret and gets a new one.
    """
    for statement in (
        "UPDATE api_tokens SET revoked_at = now()"
        " WHERE workspace_id = %s AND token_id = %s AND revoked_at IS NULL RETURNING prefix",
        "UPDATE tokens SET state = 'revoked', revoked_at = now(), nonce = NULL"
        " WHERE workspace_id = %s AND token_id = %s AND state <> 'revoked' RETURNING prefix",
    ):
        row = await (await conn.execute(statement, [workspace_id, token_id])).fetchone()
        if row is not None:
            return str(row[0])
    return None


async def verify_and_touch(conn: Connection, workspace_id: str, *, sha256: bytes) -> str | None:
    """The prefix of a live API token of the workspace, and record its use; None if it is not one.

    `last_used_at` is written at most once a minute, so that frequent polls do not cause frequent writes.
    """
    row = await (
        await conn.execute(
            "SELECT token_id, prefix, last_used_at IS NULL OR last_used_at < now() - interval '1 minute'"
            " FROM api_tokens WHERE sha256 = %s AND workspace_id = %s AND revoked_at IS NULL",
            [sha256, workspace_id],
        )
    ).fetchone()
    if row is None:
        return None
    token_id, prefix, outdated = row
    if outdated:
        await conn.execute("UPDATE api_tokens SET last_used_at = now() WHERE token_id = %s", [token_id])
    return str(prefix)
