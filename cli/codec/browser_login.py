"""The login of browsers: a page that takes a token once, and a cookie that stands for it.

The UI cannot be given a token of ours to send; it can be told to send cookies along.
"""

import asyncio
import base64
import hashlib
from datetime import UTC, datetime
from html import escape
from urllib.parse import parse_qs

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cli.codec.access import SESSION_LIFETIME, Access

COOKIE = "__Host-onebox-codec"
"""By its prefix, browsers take it over TLS (or from this very machine) only, and from no other host."""

MAX_BYTES = 4096

BODY_TIMEOUT_SECONDS = 10.0

_STYLE = (
    ":root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}"
    "body{max-width:32rem;margin:15vh auto;padding:0 1rem}input,button{font:inherit;padding:.4rem .6rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}

_LOGIN_FORM = """<form method="post" action="/login">
<p><label>Token
<input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Log in</button></p></form>
<p>Then the Temporal UI shows payloads in clear text in this browser.</p>"""

_LOGOUT_FORM = """<p>Logged in as {name}: the Temporal UI shows payloads in clear text in this browser.</p>
<form method="post" action="/logout"><button>Log out</button></form>"""

log: structlog.stdlib.BoundLogger = structlog.get_logger("codec")


class LoginPages:
    """The page, login and logout. Without scripts."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def page(self, request: Request) -> Response:
        """`GET /`: who is logged in, or the form."""
        name = self._access.by_session(request.cookies.get(COOKIE, ""), datetime.now(UTC))
        return _page(_LOGIN_FORM if name is None else _LOGOUT_FORM.format(name=escape(name)))

    async def log_in(self, request: Request) -> Response:
        """`POST /login`: a session for a token."""
        name = self._access.by_token(await _token(request))
        if name is None:
            log.warning("codec.login_refused")
            return _page(f"<p><strong>This token is not known here.</strong></p>{_LOGIN_FORM}", status=401)
        log.info("codec.logged_in", by=name)
        answer = RedirectResponse("/", 303, _HEADERS)
        answer.set_cookie(
            COOKIE,
            self._access.session(name, datetime.now(UTC)),
            max_age=int(SESSION_LIFETIME.total_seconds()),
            secure=True,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def log_out(self, _: Request) -> Response:
        """`POST /logout`: this browser forgets its session."""
        answer = RedirectResponse("/", 303, _HEADERS)
        answer.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")
        return answer


async def _token(request: Request) -> str:
    """The token of the form; an empty text for whatever is none."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    return ""
    except (TimeoutError, ClientDisconnect):
        return ""
    given = parse_qs(body.decode(errors="replace")).get("token", [""])
    return given[0].strip()


def _page(content: str, *, status: int = 200) -> Response:
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Onebox codec server</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<body><h1>Onebox codec server</h1>{content}</body></html>",
        status,
        _HEADERS,
    )
