"""A server with the workspaces of the OpenAPI document's examples."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.register_api.serving import PATIENT, ApiProcess, api_process


@contextmanager
def examples_process(database: str) -> Iterator[ApiProcess]:
    """A process that serves ws-1 and ws-2, each with a box that has not registered yet."""
    with psycopg.connect(database, autocommit=True) as conn:
        for number in (1, 2):
            name = f"ws-{number}"
            conn.execute("INSERT INTO workspaces (workspace_id, generation) VALUES (%s, 1)", [name])
            conn.execute(
                "INSERT INTO generations (workspace_id, generation, key_id, spec, private_ip, url)"
                " VALUES (%s, 1, 'k1', '{}', '10.0.0.7', 'http://x:8000')",
                [name],
            )
            conn.execute("INSERT INTO heartbeats (workspace_id, generation) VALUES (%s, 1)", [name])
    with api_process(database, waits=PATIENT) as process:
        yield process
