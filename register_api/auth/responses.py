"""The answers of handlers: success as JSON, refusals as the error body.

Decides nothing; every answer carries the request's ID, and none may be cached.
"""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from register_api.auth.credentials import Credentials
from register_api.auth.rules import Refused
from register_api.http.errors import REQUEST_ID_HEADER, ErrorDetail, error_response, request_id


class _JsonResponse(Response):
    """A body with the headers that all successes have, as they are sent: Starlette's way takes longer."""

    def __init__(self, body: bytes, *, status: int, request_id: str) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
            (REQUEST_ID_HEADER.encode(), request_id.encode()),
            (b"cache-control", b"no-store"),
        ]


def json_response(request: Request, document: BaseModel, *, status: int = 200) -> Response:
    """Success, with a JSON body."""
    body = document.model_dump_json().encode()
    return _JsonResponse(body, status=status, request_id=request_id(request.scope))


def refusal_response(
    request: Request, refused: Refused, *, workspace_id: str, credentials: Credentials
) -> Response:
    """The error body of a decision."""
    detail = ErrorDetail(
        workspace_id=workspace_id,
        action=refused.action,
        retry_after=refused.retry_after,
        credential_present=credentials.present,
    )
    return error_response(request, refused.code, detail)
