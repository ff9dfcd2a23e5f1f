"""The answers of handlers: success as JSON, refusals as the error body.

Decides nothing; every answer carries the request's ID, and none may be cached.
"""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from register_api.decision import Refused
from register_api.errors import REQUEST_ID_HEADER, ErrorDetail, error_response, request_id
from register_api.evidence import Credentials


def answer(request: Request, document: BaseModel, *, status: int = 200) -> Response:
    """Success, with a JSON body."""
    headers = {REQUEST_ID_HEADER: request_id(request.scope), "cache-control": "no-store"}
    return Response(
        document.model_dump_json(), status_code=status, headers=headers, media_type="application/json"
    )


def refusal(request: Request, refused: Refused, *, workspace_id: str, credentials: Credentials) -> Response:
    """The error body of a decision."""
    detail = ErrorDetail(
        workspace_id=workspace_id,
        action=refused.action,
        retry_after=refused.retry_after,
        credential_came=credentials.came,
    )
    return error_response(request, refused.code, detail)
