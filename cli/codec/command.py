"""The command `onebox codec`: serves the codec server for Temporal's UI and CLI until SIGTERM."""

from datetime import timedelta

import structlog
import uvicorn

from cli.codec.access import Access
from cli.codec.app import create_app
from cli.codec.settings import CodecSettings
from register_api.http.connection_limits import LimitedHttpProtocol
from workers.serving.graceful_shutdown import Drain, DrainingServer
from workers.serving.listening import listen
from workers.settings.common import load
from workers.telemetry import logs
from workflows.shared.encryption import Encryption

GRACE_SECONDS = 5
"""How long running requests may take after SIGTERM; a request takes milliseconds."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("codec")


def run() -> int:
    """Serve until SIGTERM or SIGINT, finish running requests, and return the exit code.

    Raises `CannotListen`.
    """
    settings = load(CodecSettings)
    logs.configure(log_format=settings.log_format, level=settings.log_level)
    keys = settings.payload_key_ring
    listeners = listen("CODEC_BIND", settings.codec_bind)
    server = DrainingServer(
        uvicorn.Config(
            create_app(
                Access.of(settings.codec_token_hashes, keys), Encryption(keys), settings.codec_origins
            ),
            http=LimitedHttpProtocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        ),
        drain=Drain(),
        delay=timedelta(),
    )
    log.info("codec.started", bind=settings.codec_bind, keys=list(keys.keys), origins=settings.codec_origins)
    server.run(listeners)
    log.info("codec.stopped")
    return 0 if server.started else 1
