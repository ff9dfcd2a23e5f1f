"""The register API's ceilings: the same process as `onebox api`, with a constant response.

Server, settings and process come from `workers.api`, so that they stay equal. The constant replaces a handler
of the application (`handler`) or the whole application (`application`).
"""

import sys

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from register_api.http.responses import json_response
from register_api.registration.routes import BoxRoutes
from register_api.schema.response_models import HeartbeatResponse
from workers import api

ANSWER = b'{"status":"ok","lifecycle_generation":1}'
"""As long as the response to a heartbeat."""

HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the request completely, then respond."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        continue
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


async def handler(_: BoxRoutes, request: Request) -> Response:
    """The same within the application, which routes, limits, counts and names the call as usual."""
    await request.body()
    return json_response(request, HeartbeatResponse(lifecycle_generation=1))


def main(what: str) -> int:
    """Serve until SIGTERM."""
    if what == "application":
        vars(api)["create_app"] = lambda *_, **__: application
    else:
        for call in ("register", "heartbeat"):
            setattr(BoxRoutes, call, handler)
    return api.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
