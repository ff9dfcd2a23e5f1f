"""The codec server as an ASGI application: Temporal's remote codec protocol behind a login.

Logs callers and the number of payloads, never their content.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog
from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import PayloadCodec

from cli.codec.access import Access
from cli.codec.body import read_body
from cli.codec.browser_login import COOKIE, LoginPages
from cli.codec.browser_login import MAX_BYTES as LOGIN_MAX_BYTES
from workflows.shared.encryption import KeyUnknown

MAX_BYTES = 8 * 1024 * 1024
"""Temporal limits messages to 4 MB; base64 makes them a third longer."""

HEADERS = ("authorization", "authorization-extras", "content-type", "x-namespace")
"""The headers that the UI sends."""

PREFLIGHT_SECONDS = 600

Convert = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]

log: structlog.stdlib.BoundLogger = structlog.get_logger("codec")


def create_app(access: Access, codec: PayloadCodec, origins: Sequence[str]) -> Starlette:
    """The application. It has no state, so any number of processes can serve it."""
    endpoints, browsers = _CodecEndpoints(access, codec, frozenset(origins)), LoginPages(access)
    return Starlette(
        routes=[
            Route("/decode", endpoints.decode, methods=["POST"], max_body_size=MAX_BYTES),
            Route("/encode", endpoints.encode, methods=["POST"], max_body_size=MAX_BYTES),
            Route("/", browsers.page, methods=["GET"]),
            Route("/login", browsers.log_in, methods=["POST"], max_body_size=LOGIN_MAX_BYTES),
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
        exception_handlers={HTTPException: _http_error},
    )


class _CodecEndpoints:
    """The two endpoints of the protocol; both return as many payloads as they receive."""

    def __init__(self, access: Access, codec: PayloadCodec, origins: frozenset[str]) -> None:
        self._access = access
        self._codec = codec
        self._origins = origins

    async def decode(self, request: Request) -> Response:
        """`POST /decode`: decrypt payloads that UI or CLI received from Temporal."""
        return await self._convert(request, "decoded", self._codec.decode)

    async def encode(self, request: Request) -> Response:
        """`POST /encode`: encrypt payloads that the CLI sends to Temporal."""
        return await self._convert(request, "encoded", self._codec.encode)

    async def _convert(self, request: Request, done: str, convert: Convert) -> Response:
        name = self._name(request)
        if name is None:
            log.warning("codec.refused", path=request.url.path)
            return _refusal(401, "a token is required, or a login at this server's page")
        body = await read_body(request)
        try:
            converted = await convert(_payloads(body))
        except (ParseError, ValueError, RecursionError):
            # The exception may quote the body.
            return _refusal(400, 'the body is not {"payloads": [{"metadata": {…}, "data": "…"}, …]}')
        except KeyUnknown as error:
            log.warning("codec.key_unknown", by=name, error=str(error))
            return _refusal(422, str(error))
        log.info(f"codec.{done}", by=name, payloads=len(converted))
        content = MessageToJson(Payloads(payloads=converted), indent=None)
        return Response(content, media_type="application/json", headers={"cache-control": "no-store"})

    def _name(self, request: Request) -> str | None:
        """The caller's name; None if it has no access."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            name = self._access.by_token(token.strip())
            if name is not None:
                return name
        # A browser sends the cookie for the pages of every site; only the UI's pages have access.
        if request.headers.get("origin") not in self._origins:
            return None
        return self._access.by_session(request.cookies.get(COOKIE, ""), datetime.now(UTC))


def _payloads(body: bytes) -> Sequence[Payload]:
    content = json.loads(body)
    if not isinstance(content, dict):
        raise ValueError("not an object")
    return ParseDict(content, Payloads(), ignore_unknown_fields=True).payloads


def _refusal(status: int, text: str) -> Response:
    headers = {"cache-control": "no-store"}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": text}, status, headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})
