"""The register API's ceiling: the same process as `onebox api`, with constant handlers.

Server, settings and process come from `workers.api`, so that they stay equal. The application routes, limits,
counts and names the calls as usual.
"""

import sys

from starlette.requests import Request
from starlette.responses import Response

from register_api.http.responses import json_response
from register_api.registration.routes import BoxRoutes
from register_api.schema.response_models import HeartbeatResponse
from workers import api


async def handler(_: BoxRoutes, request: Request) -> Response:
    """Read the request completely, then respond as to a heartbeat."""
    await request.body()
    return json_response(request, HeartbeatResponse(lifecycle_generation=1))


def main() -> int:
    """Serve until SIGTERM."""
    for call in ("register", "heartbeat"):
        setattr(BoxRoutes, call, handler)
    return api.run()


if __name__ == "__main__":
    sys.exit(main())
