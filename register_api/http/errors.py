"""Error answers: one body for all of them, as JSON or as RFC 9457 problem details.

Chooses no code; never shows a credential, nor anything that the code and the request don't already say.
"""

import json
import random
import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from register_api.http.error_codes import ERROR_SPECS, Action, ErrorCode

REQUEST_ID_HEADER = "x-request-id"
PROBLEM = "application/problem+json"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""A sender's own ID is kept if it is safe in logs and headers; UUIDs and trace IDs are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """What makes this error differ from others with its code."""

    workspace_id: str | None = None
    error: str | None = None
    """In place of the code's sentence."""
    action: Action | None = None
    retry_after: int | None = None
    credential_present: bool = False
    headers: dict[str, str] | None = None


def request_id(scope: Scope) -> str:
    """The sender's request ID, or one of ours; the same for the whole request."""
    known = scope.get("onebox.request_id")
    if isinstance(known, str):
        return known
    chosen = _sent(scope) or f"{random.getrandbits(64):016x}"  # finds log lines, and proves nothing
    scope["onebox.request_id"] = chosen
    return chosen


def _sent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            return text if _REQUEST_ID.fullmatch(text) else None
    return None


def error_body(code: ErrorCode, *, request_id: str, detail: ErrorDetail | None = None) -> dict[str, object]:
    """The members that every error has."""
    detail = detail or ErrorDetail()
    spec = ERROR_SPECS[code]
    return {
        "error": detail.error or spec.error,
        "code": code,
        "retryable": spec.retry_after is not None,
        "action": detail.action or spec.action,
        "retry_after": detail.retry_after or spec.retry_after,
        "workspace_id": detail.workspace_id,
        "request_id": request_id,
        "hint": spec.hint,
    }


def error_response(request: Request, code: ErrorCode, detail: ErrorDetail | None = None) -> Response:
    """The answer for a code."""
    detail = detail or ErrorDetail()
    spec = ERROR_SPECS[code]
    request.scope["onebox.code"] = code  # for the figures
    body = error_body(code, request_id=request_id(request.scope), detail=detail)
    problem = PROBLEM in request.headers.get("accept", "")
    if problem:
        body |= {
            "type": f"urn:onebox:error:{code}",
            "title": spec.error,
            "status": spec.status,
            "detail": detail.error or spec.hint or spec.error,
        }
    headers = {REQUEST_ID_HEADER: request_id(request.scope), "cache-control": "no-store"}
    headers |= detail.headers or {}
    if body["retry_after"] is not None:
        headers["retry-after"] = str(body["retry_after"])
    if spec.status == 401:
        # RFC 6750, section 3.1: no error code for a request that carries no authentication information.
        headers["www-authenticate"] = "Bearer" + (
            ' error="invalid_token"' if detail.credential_present else ""
        )
    return Response(
        json.dumps(body, ensure_ascii=False),
        status_code=spec.status,
        headers=headers,
        media_type=PROBLEM if problem else "application/json",
    )
