"""The command `onebox migrate`: applies missing migrations; waits briefly for a server that is starting."""

import asyncio
import signal
import sys
import time

import psycopg

from store.db.migrate import MigrationError, migrate
from workers.settings.common import StoreSettings, load

WAIT_SECONDS = 30.0
"""A database that starts together with this command is up within seconds."""


INTERRUPTED = 128 + signal.SIGTERM
"""A shell's exit code for SIGTERM. No migration is half applied, but some may be missing."""


async def run() -> int:
    """Apply missing migrations; SIGTERM rolls back the current one, also if this is a container's PID 1."""
    work = asyncio.ensure_future(_run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        sys.stderr.write("onebox migrate: interrupted; the current migration was rolled back\n")
        return INTERRUPTED


async def _run() -> int:
    """Apply missing migrations and print their names; print the error otherwise."""
    url = load(StoreSettings).database_url.get_secret_value()
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            applied = await migrate(url)
        except MigrationError as error:
            sys.stderr.write(f"onebox migrate: {error}\n")
            return 1
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                sys.stderr.write(
                    f"onebox migrate: PostgreSQL was not reachable for {WAIT_SECONDS:.0f} s "
                    f"({str(error).splitlines()[0]}); see DATABASE_URL\n"
                )
                return 1
            await asyncio.sleep(0.2)
        else:
            sys.stdout.write("".join(f"applied {name}\n" for name in applied) or "up to date\n")
            return 0
