"""Register API calls as bytes for the load generator, and the throughput of one database connection."""

import json
import time
from collections.abc import Sequence

import psycopg

from bench.load.load import Call
from bench.parts.fixtures import SeededWorkspace

HEARTBEAT, REGISTER = "/registry/heartbeat", "/registry/register"

_UPDATE = "UPDATE heartbeats SET last_heartbeat_at = now(), active_tasks = %s WHERE workspace_id = %s"


def heartbeats(boxes: Sequence[SeededWorkspace]) -> list[Call]:
    """A full heartbeat of each box, as runtimes send it."""
    return [
        Call(
            bearer=box.token,
            body=json.dumps(
                {
                    "workspace_id": box.workspace_id,
                    "error_rate": 0.0,
                    "sample_error": "",
                    "active_tasks": 1,
                    "current_task": "answering",
                    "uptime_seconds": 7200,
                }
            ),
        )
        for box in boxes
    ]


def registers(boxes: Sequence[SeededWorkspace]) -> list[Call]:
    """The first register call of each box, with its bootstrap secret."""
    return [
        Call(
            bearer=box.secret,
            body=json.dumps(
                {
                    "id": box.workspace_id,
                    "url": "http://10.0.0.1:8000",
                    "agent_card": {
                        "name": box.workspace_id,
                        "description": "an agent",
                        "version": "1.0.0",
                        "url": "http://10.0.0.1:8000",
                        "skills": [],
                        "capabilities": {},
                    },
                }
            ),
        )
        for box in boxes
    ]


def updates_per_second(database_url: str, names: Sequence[str], *, seconds: float) -> float:
    """Return the row updates per second of one psycopg connection, each with its own commit."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        started = time.perf_counter()
        deadline, done = started + seconds, 0
        while time.perf_counter() < deadline:
            connection.execute(_UPDATE, [done % 8, names[done % len(names)]], prepare=True)
            done += 1
        return done / (time.perf_counter() - started)
