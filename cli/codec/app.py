"""The codec server as an ASGI application: Temporal's remote codec protocol, behind a login.

Logs who asked and how much, never what; it keeps nothing.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog
from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import PayloadCodec

from cli.codec.access import Access
from cli.codec.browser_login import COOKIE, LoginPages
from workflows.shared.encryption import KeyUnknown

MAX_BYTES = 8 * 1024 * 1024
"""A message of Temporal's has 4 MB at most, which base64 makes a third longer."""

BODY_TIMEOUT_SECONDS = 10.0
"""A caller that sends a byte a minute must not hold a connection."""

HEADERS = ("authorization", "authorization-extras", "content-type", "x-namespace")
"""What the UI sends."""

PREFLIGHT_SECONDS = 600

Convert = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]

log: structlog.stdlib.BoundLogger = structlog.get_logger("codec")


def create_app(access: Access, codec: PayloadCodec, origins: Sequence[str]) -> Starlette:
    """The application; it has no state, so any number of processes may serve it."""
    served, browsers = _CodecEndpoints(access, codec, frozenset(origins)), LoginPages(access)
    return Starlette(
        routes=[
            Route("/decode", served.decode, methods=["POST"]),
            Route("/encode", served.encode, methods=["POST"]),
            Route("/", browsers.page, methods=["GET"]),
            Route("/login", browsers.log_in, methods=["POST"]),
            Route("/logout", browsers.log_out, methods=["POST"]),
            Route("/healthz", _healthz, methods=["GET"]),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=["POST"],
                allow_headers=HEADERS,
                allow_credentials=True,
                max_age=PREFLIGHT_SECONDS,
            )
        ],
    )


class _CodecEndpoints:
    """The two calls of the protocol: payloads in, as many payloads out."""

    def __init__(self, access: Access, codec: PayloadCodec, origins: frozenset[str]) -> None:
        self._access = access
        self._codec = codec
        self._origins = origins

    async def decode(self, request: Request) -> Response:
        """`POST /decode`: what UI and CLI were sent by Temporal."""
        return await self._convert(request, "decoded", self._codec.decode)

    async def encode(self, request: Request) -> Response:
        """`POST /encode`: what the CLI is about to send to it."""
        return await self._convert(request, "encoded", self._codec.encode)

    async def _convert(self, request: Request, done: str, convert: Convert) -> Response:
        name = self._name(request)
        if name is None:
            log.warning("codec.refused", path=request.url.path)
            return _refusal(401, "a token is needed, or a login at this server's own page")
        body = await _body(request)
        if isinstance(body, Response):
            return body
        try:
            converted = await convert(_payloads(body))
        except (ParseError, ValueError, RecursionError):
            # The fault may quote what was sent.
            return _refusal(400, 'the body is not {"payloads": [{"metadata": {…}, "data": "…"}, …]}')
        except KeyUnknown as error:
            log.warning("codec.key_unknown", by=name, error=str(error))
            return _refusal(422, str(error))
        log.info(f"codec.{done}", by=name, payloads=len(converted))
        answer = MessageToJson(Payloads(payloads=converted), indent=None)
        return Response(answer, media_type="application/json", headers={"cache-control": "no-store"})

    def _name(self, request: Request) -> str | None:
        """Who asks, if it is somebody who may."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            name = self._access.by_token(token.strip())
            if name is not None:
                return name
        # A browser sends the cookie whoever's page asks: only the UI's may.
        if request.headers.get("origin") not in self._origins:
            return None
        return self._access.by_session(request.cookies.get(COOKIE, ""), datetime.now(UTC))


def _payloads(body: bytes) -> Sequence[Payload]:
    given = json.loads(body)
    if not isinstance(given, dict):
        raise ValueError("not an object")
    return ParseDict(given, Payloads(), ignore_unknown_fields=True).payloads


async def _body(request: Request) -> bytes | Response:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    return _refusal(413, f"the body is longer than {MAX_BYTES} bytes")
    except TimeoutError:
        return _refusal(408, f"the body took longer than {BODY_TIMEOUT_SECONDS:g} s")
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    return bytes(body)


def _refusal(status: int, text: str) -> Response:
    headers = {"cache-control": "no-store"}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not waited for
    return JSONResponse({"error": text}, status, headers)


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})
