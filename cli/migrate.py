"""`onebox migrate`: bring the schema up to date, waiting a little for a server that is just starting."""

import asyncio
import signal
import sys
import time

import psycopg

from store.db.migrate import MigrationError, migrate
from workers.settings.common import StoreSettings, load

WAIT_SECONDS = 30.0
"""A database that was started along with this command is up within seconds."""


INTERRUPTED = 128 + signal.SIGTERM
"""As a shell says it: nothing is half done, but the schema may not be up to date."""


async def run() -> int:
    """Apply what is missing; SIGTERM rolls back what isn't committed, also as a container's first process."""
    work = asyncio.ensure_future(_run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        sys.stderr.write("onebox migrate: interrupted; what was not committed is rolled back\n")
        return INTERRUPTED


async def _run() -> int:
    """Apply what is missing; say what was applied, or what is in the way."""
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
                    f"onebox migrate: PostgreSQL cannot be reached after {WAIT_SECONDS:.0f} s "
                    f"({str(error).splitlines()[0]}); see DATABASE_URL\n"
                )
                return 1
            await asyncio.sleep(0.2)
        else:
            sys.stdout.write("".join(f"applied {name}\n" for name in applied) or "up to date\n")
            return 0
