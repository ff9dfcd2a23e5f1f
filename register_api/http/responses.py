"""Success responses: JSON, the request's ID, and no caching."""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from register_api.http.errors import REQUEST_ID_HEADER, request_id


def json_response(request: Request, document: BaseModel, *, status: int = 200) -> Response:
    """A success response with a JSON body."""
    return Response(
        document.model_dump_json(),
        status_code=status,
        headers={REQUEST_ID_HEADER: request_id(request.scope), "cache-control": "no-store"},
        media_type="application/json",
    )
