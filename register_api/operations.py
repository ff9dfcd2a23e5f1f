"""Every call that the API answers: path, bodies, answers, errors, who may call, and an example of each.

The routes and the OpenAPI document are both made from this table: what is served is what is documented.
"""

from register_api import documents, schemas
from register_api.answers import Code
from register_api.delegation_operations import WORK
from register_api.operation import (
    BODY_CODES,
    CLOSED_CODES,
    IDENTITY_CODES,
    USE_CODES,
    WORKSPACE_ID,
    Caller,
    Operation,
    Parameter,
)

TOKEN_ID = Parameter(
    name="token_id",
    place="path",
    about="The token's ID, as the list has it.",
    schema={"type": "string", "format": "uuid"},
    example="5f0f8a2e-57a5-4a2c-9a55-0d9f6f0c2b11",
)
ASKER = Parameter(
    name="X-Workspace-ID",
    place="header",
    about="The workspace that asks: whose token the bearer is. Operators need none.",
    schema={"type": "string"},
    example="ws-1",
    required=False,
)
BEFORE = Parameter(
    name="before",
    place="query",
    about="Only decisions with a smaller ID: `next_before` of the page before.",
    schema={"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
    example=12345,
    required=False,
)
LIMIT = Parameter(
    name="limit",
    place="query",
    about="At most so many.",
    schema={"type": "integer", "minimum": 1, "maximum": 100, "default": 100},
    example=50,
    required=False,
)

_SHOWN_TOKEN = "dGhpcyBpcyBhbiBleGFtcGxlIG9mIGEgdG9rZW4uLi4"  # noqa: S105 - an example
_CARD = {"name": "Anna", "description": "Answers mail.", "version": "1.4.2", "skills": []}

OPERATIONS = (
    Operation(
        name="register",
        method="POST",
        path="/registry/register",
        about="Register a box. Carries a token in the answer where one was minted; until that token is used "
        "for the first time, every register call of the box gets the same one. The bootstrap secret comes as "
        "bearer or as X-Bootstrap-Token. A 503 means: again, with backoff.",
        body=schemas.RegisterBody,
        body_example={"id": "ws-1", "url": "http://10.0.0.7:8000", "agent_card": _CARD},
        answer=documents.RegisteredAnswer,
        example={"status": "registered", "auth_token": _SHOWN_TOKEN},
        caller=Caller.BOX,
        codes=(
            *BODY_CODES,
            *IDENTITY_CODES,
            Code.WORKSPACE_UNKNOWN,
            *CLOSED_CODES,
            Code.INSTANCE_NOT_READY,
            Code.TOKEN_IN_USE,
            Code.MINT_LIMITED,
        ),
    ),
    Operation(
        name="heartbeat",
        method="POST",
        path="/registry/heartbeat",
        about="A sign of life, every 30 s. Counts only with a live instance token of the current generation.",
        body=schemas.HeartbeatBody,
        body_example={
            "workspace_id": "ws-1",
            "error_rate": 0.0,
            "sample_error": "",
            "active_tasks": 0,
            "current_task": "",
            "uptime_seconds": 42,
        },
        answer=documents.HeartbeatAnswer,
        example={"status": "ok", "lifecycle_generation": 3},
        caller=Caller.BOX,
        codes=(*BODY_CODES, *USE_CODES),
    ),
    Operation(
        name="update_card",
        method="POST",
        path="/registry/update-card",
        about="Replace the agent card.",
        body=schemas.CardBody,
        body_example={"workspace_id": "ws-1", "agent_card": _CARD},
        answer=documents.CardUpdated,
        example={"status": "updated"},
        caller=Caller.BOX,
        codes=(*BODY_CODES, *USE_CODES),
    ),
    Operation(
        name="discover",
        method="GET",
        path="/registry/discover/{workspace_id}",
        about="Where another workspace's box takes messages.",
        parameters=(WORKSPACE_ID, ASKER),
        answer=documents.Discovered,
        example={"id": "ws-2", "url": "http://10.0.0.9:8000/a2a", "name": "Ben"},
        caller=Caller.READER,
        codes=(*USE_CODES, Code.TARGET_UNREACHABLE),
    ),
    Operation(
        name="record",
        method="GET",
        path="/workspaces/{workspace_id}",
        about="The record: phase, conditions, last error.",
        parameters=(WORKSPACE_ID,),
        answer=documents.WorkspaceRecord,
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
        caller=Caller.READER,
        codes=USE_CODES,
    ),
    Operation(
        name="state",
        method="GET",
        path="/workspaces/{workspace_id}/state",
        about="What a box of whatever generation must know: whether it is over. Takes the bootstrap secret, "
        "too, of whatever generation.",
        parameters=(WORKSPACE_ID,),
        answer=documents.StateAnswer,
        example={"workspace_id": "ws-1", "status": "superseded", "paused": False, "deleted": False},
        caller=Caller.BOX,
        codes=(*IDENTITY_CODES, Code.WORKSPACE_UNKNOWN),
    ),
    Operation(
        name="audit_trail",
        method="GET",
        path="/workspaces/{workspace_id}/audit",
        about="Who called as this workspace, what they proved, what they were told; newest first. Beats that "
        "count and reads that are allowed leave no row.",
        parameters=(WORKSPACE_ID, BEFORE, LIMIT),
        answer=documents.AuditTrail,
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
        caller=Caller.READER,
        codes=(Code.REQUEST_INVALID, *USE_CODES),
    ),
    Operation(
        name="list_tokens",
        method="GET",
        path="/workspaces/{workspace_id}/tokens",
        about="The live tokens of the workspace, without their texts.",
        parameters=(WORKSPACE_ID,),
        answer=documents.TokenList,
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
        caller=Caller.KEEPER,
        codes=(*USE_CODES, Code.FORBIDDEN),
    ),
    Operation(
        name="create_token",
        method="POST",
        path="/workspaces/{workspace_id}/tokens",
        about="Make an API token for a tool of the workspace. It survives recreates, and is no evidence of a "
        "box. Its text is in this answer and nowhere else.",
        parameters=(WORKSPACE_ID,),
        body=schemas.TokenBody,
        body_example={"name": "nightly report"},
        body_required=False,
        answer=documents.TokenCreated,
        example={
            "id": "5f0f8a2e-57a5-4a2c-9a55-0d9f6f0c2b11",
            "auth_token": _SHOWN_TOKEN,
            "workspace_id": "ws-1",
            "name": "nightly report",
            "prefix": "dGhpcyBp",
            "message": "Keep this token now: it is not shown again.",
        },
        status=201,
        caller=Caller.KEEPER,
        codes=(*BODY_CODES, *USE_CODES, Code.FORBIDDEN, Code.TOKENS_LIMITED),
    ),
    Operation(
        name="revoke_token",
        method="DELETE",
        path="/workspaces/{workspace_id}/tokens/{token_id}",
        about="Revoke a token, at once. Of an instance's token: its box registers again and gets another.",
        parameters=(WORKSPACE_ID, TOKEN_ID),
        answer=documents.TokenRevoked,
        example={"status": "revoked"},
        caller=Caller.KEEPER,
        codes=(*USE_CODES, Code.FORBIDDEN, Code.TOKEN_UNKNOWN),
    ),
    *WORK,
    Operation(
        name="healthz",
        method="GET",
        path="/healthz",
        about="The process answers.",
        answer=documents.Health,
        example={"status": "ok"},
    ),
    Operation(
        name="readyz",
        method="GET",
        path="/readyz",
        about="The database answers, and has the schema that this code needs.",
        answer=documents.Health,
        example={"status": "ready"},
        codes=(Code.NOT_READY,),
    ),
)
