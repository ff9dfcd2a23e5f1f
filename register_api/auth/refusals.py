"""Error responses for calls that a rule refused."""

from starlette.requests import Request
from starlette.responses import Response

from register_api.auth.credentials import Credentials
from register_api.auth.rules import Refused
from register_api.http.errors import ErrorDetail, error_response


def refusal_response(
    request: Request, refused: Refused, *, workspace_id: str, credentials: Credentials
) -> Response:
    """The error response for a refused call."""
    detail = ErrorDetail(
        workspace_id=workspace_id,
        action=refused.action,
        retry_after=refused.retry_after,
        credential_present=credentials.present,
    )
    return error_response(request, refused.code, detail)
