"""The login of browsers: a page that accepts a token once and sets a session cookie.

The Temporal UI cannot send a token of this server, but it can send its cookies.
"""

import base64
import hashlib
from datetime import UTC, datetime
from urllib.parse import parse_qs

import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cli.codec.access import SESSION_LIFETIME, Access
from cli.codec.body import read_body

COOKIE = "__Host-onebox-codec"
"""The prefix makes browsers accept it over TLS (or from localhost) only, and only from this host."""

MAX_BYTES = 4096

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

_TEMPLATES = Environment(loader=PackageLoader("cli.codec"), autoescape=True, undefined=StrictUndefined)

log: structlog.stdlib.BoundLogger = structlog.get_logger("codec")


class LoginPages:
    """The page, the login and the logout."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def page(self, request: Request) -> Response:
        """`GET /`: the login form, or the name of the session's holder."""
        return _page(name=self._access.by_session(request.cookies.get(COOKIE, ""), datetime.now(UTC)))

    async def log_in(self, request: Request) -> Response:
        """`POST /login`: set a session cookie for a token."""
        form = parse_qs((await read_body(request)).decode(errors="replace"))
        name = self._access.by_token(form.get("token", [""])[0].strip())
        if name is None:
            log.warning("codec.login_refused")
            return _page(name=None, status=401)
        log.info("codec.logged_in", by=name)
        response = RedirectResponse("/", 303, _HEADERS)
        response.set_cookie(
            COOKIE,
            self._access.session(name, datetime.now(UTC)),
            max_age=int(SESSION_LIFETIME.total_seconds()),
            secure=True,
            httponly=True,
            samesite="strict",
        )
        return response

    async def log_out(self, _: Request) -> Response:
        """`POST /logout`: delete the session cookie."""
        response = RedirectResponse("/", 303, _HEADERS)
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")
        return response


def _page(*, name: str | None, status: int = 200) -> Response:
    template = _TEMPLATES.get_template("login.html")
    page = template.render(name=name, refused=status == 401, style=_STYLE)
    return HTMLResponse(page, status, _HEADERS)
