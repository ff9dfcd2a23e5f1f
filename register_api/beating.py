"""Beats of known boxes, taken in together: in one transaction what came while the one before was under way.

Judges none of them. What is not plain, or fails with the others, is left to be taken in alone.
"""

from collections.abc import Sequence

import psycopg
import structlog

from register_api.evidence import Credentials
from register_api.gathering import Gathering
from register_api.lanes import Lanes
from register_api.schemas import HeartbeatBody
from store import beats_together
from store.beats_together import Presented
from store.standing import Found

MOST_TOGETHER = 200
"""A statement of a few milliseconds, so that those who come just after it began don't wait for long."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class BeatsTogether:
    """The way in that all plain beats of one process share."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._gathering = Gathering(self._write, most=MOST_TOGETHER)

    async def take_in(self, body: HeartbeatBody, credentials: Credentials) -> Found | None:
        """What the record says, if the beat is counted now, durably; None: nothing was written.

        Only callers with a token that was live a moment ago share: nobody else makes them wait. Raises
        `StoreUnavailable`.
        """
        sha256 = credentials.sha256
        if sha256 is None or not self._lanes.knows(sha256):
            return None
        presented = Presented(
            workspace_id=body.workspace_id,
            sha256=sha256,
            secret_generation=credentials.secret_generation,
            beat=body.beat(),
        )
        return await self._gathering.add(presented)

    async def _write(self, beats: Sequence[Presented]) -> Sequence[Found | None]:
        async with self._lanes.shared() as conn:
            try:
                return await beats_together.take_in(conn, beats)
            except psycopg.OperationalError:
                raise  # the database is away: so it is for each of them
            except psycopg.Error as error:
                # One of them, and nobody knows which: alone, it fails alone.
                _log.warning("heartbeat.apart", beats=len(beats), error=type(error).__name__)
                return [None] * len(beats)
