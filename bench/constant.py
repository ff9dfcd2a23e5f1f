"""The register API's ceiling: its own server, as `onebox api` starts it, with a constant as the application.

Server, settings and process are `workers.api`'s, so that they cannot drift apart; only what answers is other.
"""

import sys

from starlette.types import Receive, Scope, Send

from workers import api

ANSWER = b'{"status":"ok","lifecycle_generation":1}'
"""As long as the answer to a beat."""

HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def constant(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the request to its end, and answer."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        continue
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


def main() -> int:
    """Serve until SIGTERM."""
    vars(api)["create_app"] = lambda *_, **__: constant
    return api.run()


if __name__ == "__main__":
    sys.exit(main())
