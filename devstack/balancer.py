"""A load balancer in front of several register APIs. It forwards calls to the APIs that are ready.

It forwards each call once and does not change responses. A call that an API loses becomes a 502.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import uvicorn
from starlette.types import Receive, Scope, Send

from devstack.environment import BALANCER
from devstack.http_client import Answer, Headers, HttpClient, NoResponse
from devstack.processes import LOCALHOST

STATUS_PATH = "/_balancer"
"""Returns the balancer's view of its APIs; all other paths are forwarded."""

PROBE_SECONDS = 0.5
MAX_MISSES = 2
"""One late probe is tolerated. An API that answers `not ready` is skipped at once."""

PROBE_TIMEOUT_SECONDS = 5.0

CLIENT_IDLE_SECONDS = 75

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade"})
"""Hop-by-hop headers (RFC 9110, section 7.6.1)."""


@dataclass(slots=True, kw_only=True)
class Upstream:
    """One API and the balancer's view of it."""

    name: str
    port: int
    ready: bool = False
    misses: int = 0
    open: int = 0
    last_call: int = 0
    """Sequence number of its last call. Among equally busy APIs, the one with the lowest is next."""
    answered: int = 0
    failed: int = 0
    """Calls whose connection was refused or broke; each was answered with a 502."""


class Balancer:
    """ASGI application that forwards calls to the APIs."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = tuple(upstreams)
        self._exchanges = {
            each.name: HttpClient(LOCALHOST, each.port, local_address=BALANCER) for each in upstreams
        }
        self._turns = itertools.count(1)

    def close(self) -> None:
        """Close the connections to the APIs."""
        for each in self._exchanges.values():
            each.close()

    async def watch(self) -> None:
        """Probe all APIs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for upstream in self._upstreams:
                tasks.create_task(self._watch(upstream))

    async def _watch(self, upstream: Upstream) -> None:
        exchanges, host = self._exchanges[upstream.name], f"{LOCALHOST}:{upstream.port}".encode()
        while True:
            try:
                answer = await exchanges.call(
                    "GET", b"/readyz", headers=[(b"host", host)], seconds=PROBE_TIMEOUT_SECONDS
                )
            except NoResponse as error:
                upstream.misses += 1
                late = isinstance(error.__cause__, TimeoutError)
                upstream.ready = upstream.ready and late and upstream.misses < MAX_MISSES
            else:
                upstream.misses = 0
                upstream.ready = answer.status == 200
            await asyncio.sleep(PROBE_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one call."""
        if scope["path"] == STATUS_PATH:
            await _answer(send, 200, [asdict(each) for each in self._upstreams])
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        upstream = self._choose()
        upstream.open += 1
        try:
            answer = await self._forward(scope, upstream, body)
        except NoResponse as error:
            upstream.failed += 1
            await _answer(send, 502, {"error": f"{upstream.name}: {error}"})
            return
        finally:
            upstream.open -= 1
        upstream.answered += 1
        await _send(send, answer.status, _end_to_end(answer.headers), answer.content)

    def _choose(self) -> Upstream:
        """Return the least busy ready API. If none is ready, return the least busy of all."""
        fit = [each for each in self._upstreams if each.ready] or self._upstreams
        chosen = min(fit, key=lambda each: (each.open, each.last_call))
        chosen.last_call = next(self._turns)
        return chosen

    async def _forward(self, scope: Scope, upstream: Upstream, body: bytes) -> Answer:
        caller = scope["client"][0].encode() if scope["client"] else b"unknown"
        headers = [*_end_to_end(scope["headers"]), (b"x-forwarded-for", caller)]
        if body and b"content-length" not in dict(headers):  # chunked request
            headers.append((b"content-length", str(len(body)).encode()))
        path, query = scope["raw_path"], scope["query_string"]
        target = path + b"?" + query if query else path
        exchanges = self._exchanges[upstream.name]
        return await exchanges.call(scope["method"], target, headers=headers, body=body)


def _end_to_end(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name not in _HOP_BY_HOP]


async def _answer(send: Send, status: int, document: object) -> None:
    content = json.dumps(document).encode()
    length = str(len(content)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await _send(send, status, headers, content)


async def _send(send: Send, status: int, headers: Headers, content: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _run(port: int, upstreams: Sequence[Upstream]) -> None:
    balancer = Balancer(upstreams)
    watching = asyncio.create_task(balancer.watch())
    config = uvicorn.Config(
        balancer,
        host=LOCALHOST,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=CLIENT_IDLE_SECONDS,
    )
    await uvicorn.Server(config).serve()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    balancer.close()


def main() -> None:
    """Run the balancer until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m devstack.balancer", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("upstreams", nargs="+", metavar="NAME=PORT")
    options = parser.parse_args()
    pairs = [each.partition("=") for each in options.upstreams]
    asyncio.run(_run(options.port, [Upstream(name=name, port=int(port)) for name, _, port in pairs]))


if __name__ == "__main__":
    main()
