"""The endpoint table. Routes and the OpenAPI document are both generated from it."""

from register_api.http.error_codes import ErrorCode
from register_api.schema import request_models, response_models
from register_api.schema.delegation_endpoints import DELEGATION_OPERATIONS
from register_api.schema.endpoint import (
    BODY_CODES,
    CLOSED_CODES,
    IDENTITY_CODES,
    USE_CODES,
    WORKSPACE_ID,
    AllowedCaller,
    Operation,
    Parameter,
)

TOKEN_ID = Parameter(
    name="token_id",
    location="path",
    description="The token's ID, as returned by the list.",
    schema={"type": "string", "format": "uuid"},
    example="5f0f8a2e-57a5-4a2c-9a55-0d9f6f0c2b11",
)
CALLER_WORKSPACE = Parameter(
    name="X-Workspace-ID",
    location="header",
    description="The workspace that the bearer token belongs to. Operators can omit it.",
    schema={"type": "string"},
    example="ws-1",
    required=False,
)
BEFORE = Parameter(
    name="before",
    location="query",
    description="Return only entries with a smaller ID; pass `next_before` of the previous page.",
    schema={"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
    example=12345,
    required=False,
)
LIMIT = Parameter(
    name="limit",
    location="query",
    description="Maximum number of entries.",
    schema={"type": "integer", "minimum": 1, "maximum": 100, "default": 100},
    example=50,
    required=False,
)

_EXAMPLE_TOKEN = "dGhpcyBpcyBhbiBleGFtcGxlIG9mIGEgdG9rZW4uLi4"  # noqa: S105 - an example
_CARD = {"name": "Anna", "description": "Answers mail.", "version": "1.4.2", "skills": []}

OPERATIONS = (
    Operation(
        name="register",
        method="POST",
        path="/registry/register",
        description="Register a box. The response contains a token if the box needs one. Until that "
        "token is first used, every register call of the box returns the same token. Send the "
        "bootstrap secret as bearer or as X-Bootstrap-Token. On 503, retry with backoff. Without a genuine "
        "credential, the response is 401 whether or not the workspace exists.",
        body=request_models.RegisterBody,
        body_example={"id": "ws-1", "url": "http://10.0.0.7:8000", "agent_card": _CARD},
        response_model=response_models.RegisterResponse,
        example={"status": "registered", "auth_token": _EXAMPLE_TOKEN},
        caller=AllowedCaller.BOX,
        codes=(
            *BODY_CODES,
            *IDENTITY_CODES,
            ErrorCode.WORKSPACE_UNKNOWN,
            *CLOSED_CODES,
            ErrorCode.INSTANCE_NOT_READY,
            ErrorCode.TOKEN_IN_USE,
            ErrorCode.MINT_LIMITED,
        ),
    ),
    Operation(
        name="heartbeat",
        method="POST",
        path="/registry/heartbeat",
        description="Report that the box is alive, every 30 s. A heartbeat counts only with a live instance "
        "token of the current generation. Without a genuine credential, the response is 401 whether or not "
        "the workspace exists.",
        body=request_models.HeartbeatBody,
        body_example={
            "workspace_id": "ws-1",
            "error_rate": 0.0,
            "sample_error": "",
            "active_tasks": 0,
            "current_task": "",
            "uptime_seconds": 42,
        },
        response_model=response_models.HeartbeatResponse,
        example={"status": "ok", "lifecycle_generation": 3},
        caller=AllowedCaller.BOX,
        codes=(*BODY_CODES, *USE_CODES),
    ),
    Operation(
        name="update_card",
        method="POST",
        path="/registry/update-card",
        description="Replace the workspace's agent card. Without a genuine credential, the response is 401 "
        "whether or not the workspace exists.",
        body=request_models.CardBody,
        body_example={"workspace_id": "ws-1", "agent_card": _CARD},
        response_model=response_models.CardUpdated,
        example={"status": "updated"},
        caller=AllowedCaller.BOX,
        codes=(*BODY_CODES, *USE_CODES),
    ),
    Operation(
        name="discover",
        method="GET",
        path="/registry/discover/{workspace_id}",
        description="Return the URL at which another workspace's box accepts messages.",
        parameters=(WORKSPACE_ID, CALLER_WORKSPACE),
        response_model=response_models.DiscoverResponse,
        example={"id": "ws-2", "url": "http://10.0.0.9:8000/a2a", "name": "Ben"},
        caller=AllowedCaller.READER,
        codes=(*USE_CODES, ErrorCode.TARGET_UNREACHABLE),
    ),
    Operation(
        name="record",
        method="GET",
        path="/workspaces/{workspace_id}",
        description="Read the workspace record: phase, conditions, last error.",
        parameters=(WORKSPACE_ID,),
        response_model=response_models.WorkspaceRecord,
        example={
            "workspace_id": "ws-1",
            "phase": "online",
            "generation": 3,
            "instance_id": "i-0123456789abcdef0",
            "private_ip": "10.0.0.7",
            "dns_name": "ws-1.boxes.example.com",
            "url": "http://10.0.0.7:8000",
            "last_heartbeat_at": "2026-06-11T22:20:03Z",
            "last_processed_at": None,
            "recreates": 1,
            "last_error": None,
            "conditions": [],
            "work": [],
        },
        caller=AllowedCaller.READER,
        codes=USE_CODES,
    ),
    Operation(
        name="state",
        method="GET",
        path="/workspaces/{workspace_id}/state",
        description="Tell a box of any generation whether it still serves the workspace. Accepts the "
        "bootstrap secret of any generation.",
        parameters=(WORKSPACE_ID,),
        response_model=response_models.StateResponse,
        example={"workspace_id": "ws-1", "status": "superseded", "paused": False, "deleted": False},
        caller=AllowedCaller.BOX,
        codes=(*IDENTITY_CODES, ErrorCode.WORKSPACE_UNKNOWN),
    ),
    Operation(
        name="audit_trail",
        method="GET",
        path="/workspaces/{workspace_id}/audit",
        description="Read the audit log: who called as this workspace, with which evidence, and the result. "
        "Newest first. Counted heartbeats and allowed reads are not logged.",
        parameters=(WORKSPACE_ID, BEFORE, LIMIT),
        response_model=response_models.AuditTrail,
        example={
            "entries": [
                {
                    "id": 12344,
                    "at": "2026-06-11T22:20:02Z",
                    "call": "register",
                    "generation": 3,
                    "verdict": "current",
                    "bearer": "not_valid",
                    "code": "minted",
                    "token_prefix": None,
                    "source": "10.0.0.7",
                    "from_box": True,
                    "alert": False,
                    "request_id": "4bf92f3577b34da6",
                    "repeats": 0,
                }
            ],
            "next_before": None,
        },
        caller=AllowedCaller.READER,
        codes=(ErrorCode.REQUEST_INVALID, *USE_CODES),
    ),
    Operation(
        name="list_tokens",
        method="GET",
        path="/workspaces/{workspace_id}/tokens",
        description="List the live tokens of the workspace, without the token values.",
        parameters=(WORKSPACE_ID,),
        response_model=response_models.TokenList,
        example={
            "tokens": [
                {
                    "id": "5f0f8a2e-57a5-4a2c-9a55-0d9f6f0c2b11",
                    "kind": "api",
                    "name": "nightly report",
                    "prefix": "dGhpcyBp",
                    "state": "active",
                    "generation": None,
                    "created_by": "operator",
                    "created_at": "2026-06-11T22:00:00Z",
                    "last_used_at": None,
                }
            ],
            "count": 1,
        },
        caller=AllowedCaller.ADMIN,
        codes=(*USE_CODES, ErrorCode.FORBIDDEN),
    ),
    Operation(
        name="create_token",
        method="POST",
        path="/workspaces/{workspace_id}/tokens",
        description="Create an API token for a tool of the workspace. It stays valid when the box is "
        "recreated. It does not identify a box. The token is returned only in this response.",
        parameters=(WORKSPACE_ID,),
        body=request_models.TokenBody,
        body_example={"name": "nightly report"},
        body_required=False,
        response_model=response_models.TokenCreated,
        example={
            "id": "5f0f8a2e-57a5-4a2c-9a55-0d9f6f0c2b11",
            "auth_token": _EXAMPLE_TOKEN,
            "workspace_id": "ws-1",
            "name": "nightly report",
            "prefix": "dGhpcyBp",
            "message": "Store this token now: it is not shown again.",
        },
        status=201,
        caller=AllowedCaller.ADMIN,
        codes=(*BODY_CODES, *USE_CODES, ErrorCode.FORBIDDEN, ErrorCode.TOKENS_LIMITED),
    ),
    Operation(
        name="revoke_token",
        method="DELETE",
        path="/workspaces/{workspace_id}/tokens/{token_id}",
        description="Revoke a token immediately. If it is an instance token, its box registers again "
        "and gets a new one.",
        parameters=(WORKSPACE_ID, TOKEN_ID),
        response_model=response_models.TokenRevoked,
        example={"status": "revoked"},
        caller=AllowedCaller.ADMIN,
        codes=(*USE_CODES, ErrorCode.FORBIDDEN, ErrorCode.TOKEN_UNKNOWN),
    ),
    *DELEGATION_OPERATIONS,
    Operation(
        name="healthz",
        method="GET",
        path="/healthz",
        description="Report that the process is running.",
        response_model=response_models.Health,
        example={"status": "ok"},
    ),
    Operation(
        name="readyz",
        method="GET",
        path="/readyz",
        description="Report whether the process can serve: it is not shutting down, and the database "
        "is reachable and has all migrations.",
        response_model=response_models.Health,
        example={"status": "ready"},
        codes=(ErrorCode.NOT_READY,),
    ),
)
