"""Healthy workspaces as database rows, without boxes and workflows.

The rows match those that the product writes; its own keys derive the credentials.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

import psycopg
from psycopg.types.json import Jsonb

from activities.user_data import render
from activities.workspace import box_spec
from activities.workspace.box_spec import BoxDefaults
from store.registration.credentials import ServerKeys, token_hash, token_prefix

AGE = timedelta(hours=2)
"""Time since they came online: past all deadlines."""

DEFAULTS = BoxDefaults(
    image_id="ami-0abcdef1234567890",
    instance_types=("t3.small",),
    register_api_url="http://register.example:8080",
    runtime_command="/opt/runtime/run",
    runtime_user="agent",
    runtime_port=8000,
    configs_dir="/configs",
)
"""As long as in the field; it launches nothing."""

_Connection: TypeAlias = psycopg.Connection[tuple[object, ...]]

_ROWS = (
    """
    INSERT INTO workspaces (workspace_id, generation, revision, phase, created_at)
    SELECT name, 1, 5, CASE WHEN %(online)s THEN 'online' ELSE 'awaiting_registration' END, now() - %(age)s
    FROM planted
    """,
    """
    INSERT INTO generations (workspace_id, generation, key_id, spec, opened_at, instance_id, private_ip,
                             url, registered_at, last_register_at, online_at)
    SELECT name, 1, %(key)s, %(spec)s, now() - %(age)s, 'i-' || left(md5(name), 17),
           '10.0.0.1'::inet + number,
           CASE WHEN %(online)s THEN 'http://10.0.0.1:8000' END, came.at, came.at, came.at
    FROM planted, (SELECT CASE WHEN %(online)s THEN now() - %(age)s END) AS came (at)
    """,
    """
    INSERT INTO launches (workspace_id, generation, attempt, client_token, request, user_data, requested_at,
                          instance_id)
    SELECT name, 1, 1, md5(name), %(request)s, %(user_data)s, now() - %(age)s,
           'i-' || left(md5(name), 17)
    FROM planted
    """,
    """
    INSERT INTO heartbeats (workspace_id, generation, last_heartbeat_at, alive_since)
    SELECT name, 1, CASE WHEN %(online)s THEN now() END, CASE WHEN %(online)s THEN now() - %(age)s END
    FROM planted
    """,
    """
    INSERT INTO tokens (workspace_id, generation, state, sha256, prefix, key_id, last_used_at)
    SELECT name, 1, 'active', sha256, prefix, %(key)s, now() FROM planted WHERE %(online)s
    """,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeededWorkspace:
    """A workspace and its box's credentials."""

    workspace_id: str
    secret: str = field(repr=False)
    """The bootstrap secret of its generation 1."""
    token: str = field(repr=False)
    """Its live token, if it is online."""


def seed_workspaces(
    database_url: str, *, server_keys: str, names: Iterable[str], online: bool = True
) -> Sequence[SeededWorkspace]:
    """Create workspaces with these names: online for two hours, or launched and not yet registered."""
    keys = ServerKeys.parse(server_keys)
    planted = [
        SeededWorkspace(
            workspace_id=name,
            secret=keys.bootstrap_secret(name, 1, key_id=keys.current),
            token=secrets.token_urlsafe(32),
        )
        for name in names
    ]

    def tell(connection: _Connection) -> None:
        with connection.cursor().copy("COPY planted FROM STDIN") as copy:
            for number, each in enumerate(planted):
                copy.write_row((number, each.workspace_id, token_hash(each.token), token_prefix(each.token)))

    _insert(database_url, tell, online=online, key_id=keys.current, template=_user_data())
    return planted


def seed_many(database_url: str, *, first: int, end: int) -> None:
    """Create online workspaces without known credentials, numbered from `first`, on the server itself.

    Their launches lack the 16 KB of user data, which the measured queries do not read.
    """

    def tell(connection: _Connection) -> None:
        connection.execute(
            "INSERT INTO planted SELECT number, 'ws-' || number, sha256(number::text::bytea), "
            "left(md5(number::text), 8)"
            " FROM generate_series(%s::bigint, %s::bigint) AS number",
            [first, end - 1],
        )

    _insert(database_url, tell, online=True, key_id="k1", template="")


def _insert(
    database_url: str, tell: Callable[[_Connection], None], *, online: bool, key_id: str, template: str
) -> None:
    """Insert all rows of the workspaces in the table `planted`, with their tokens' hashes."""
    resolved = box_spec.resolve(DEFAULTS, {})
    request = box_spec.run_instances_request(
        resolved, owner="bench", workspace_id="planted", generation=1, attempt=1
    )
    values = {
        "online": online,
        "age": AGE if online else timedelta(),
        "key": key_id,
        "spec": Jsonb(box_spec.dump(resolved)),
        "request": Jsonb(request),
        "user_data": template,
    }
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE planted (number bigint, name text, sha256 bytea, prefix text) ON COMMIT "
            "DROP"
        )
        # Foreign keys are checked in bulk, because row-by-row checks would dominate.
        connection.execute("SET LOCAL session_replication_role = replica")
        tell(connection)
        for rows in _ROWS:
            connection.execute(rows.encode(), values)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _user_data() -> str:
    return render.render_template(
        workspace_id="planted",
        generation=1,
        register_api_url=DEFAULTS.register_api_url,
        runtime_command=DEFAULTS.runtime_command,
        runtime_user=DEFAULTS.runtime_user,
        runtime_port=DEFAULTS.runtime_port,
        configs_dir=DEFAULTS.configs_dir,
    )
