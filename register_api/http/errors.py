"""Error responses: one body for every error, as JSON or as RFC 9457 problem details.

A body never contains a credential, nor anything that the code and the request do not already reveal.
"""

import json
import random
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from register_api.http.error_codes import ERROR_SPECS, Action, ErrorCode

REQUEST_ID_HEADER = "x-request-id"
PROBLEM = "application/problem+json"
CODE_SCOPE_KEY = "onebox.code"
"""The ASGI scope's key for the error code of the response; metrics read it."""

_REQUEST_ID_SCOPE_KEY = "onebox.request_id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""Request IDs of callers that are safe in logs and headers; UUIDs and trace IDs match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """What this error adds to its code, or replaces."""

    workspace_id: str | None = None
    error: str | None = None
    """Replaces the code's message."""
    action: Action | None = None
    retry_after: int | None = None
    credential_present: bool = False
    headers: dict[str, str] | None = None


def request_id(scope: Scope) -> str:
    """The caller's request ID if it is safe, else a generated one; the same for the whole request."""
    known = scope.get(_REQUEST_ID_SCOPE_KEY)
    if isinstance(known, str):
        return known
    sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    # Correlates log lines only, so it need not be unpredictable.
    chosen = sent if _REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(64):016x}"
    scope[_REQUEST_ID_SCOPE_KEY] = chosen
    return chosen


def error_body(code: ErrorCode, *, request_id: str, detail: ErrorDetail | None = None) -> dict[str, object]:
    """The members that every error body has."""
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
    """The response for an error code."""
    detail = detail or ErrorDetail()
    spec = ERROR_SPECS[code]
    request.scope[CODE_SCOPE_KEY] = code
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
        # RFC 6750, section 3.1: no error code for a request without authentication information.
        headers["www-authenticate"] = "Bearer" + (
            ' error="invalid_token"' if detail.credential_present else ""
        )
    return Response(
        json.dumps(body, ensure_ascii=False),
        status_code=spec.status,
        headers=headers,
        media_type=PROBLEM if problem else "application/json",
    )
