"""The delegation endpoints, as part of the endpoint table."""

from register_api.http.error_codes import ErrorCode
from register_api.schema import request_models, response_models
from register_api.schema.endpoint import (
    BODY_CODES,
    USE_CODES,
    WORKSPACE_ID,
    AllowedCaller,
    Operation,
    Parameter,
)

DELEGATION_ID = Parameter(
    name="delegation_id",
    location="path",
    description="The delegation's ID.",
    schema={"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    example="0d1f2b0e-7c57-4b1e-9f5a-3f1a6f5d9a10",
)

DELEGATION_BODY_BYTES = 4 * 1024 * 1024
"""Enough for a megabyte of text in which most characters are escaped."""

_DELEGATION = "5b6c1c8a-3c5e-4a43-8d0f-6f1e0c5f7f21"
_RECORDED = "0d1f2b0e-7c57-4b1e-9f5a-3f1a6f5d9a10"

_TARGET = (
    ErrorCode.TARGET_UNKNOWN,
    ErrorCode.TARGET_DELETED,
    ErrorCode.TARGET_IS_SOURCE,
    ErrorCode.DELEGATION_ID_TAKEN,
)


DELEGATION_OPERATIONS = (
    Operation(
        name="delegate",
        method="POST",
        path="/workspaces/{workspace_id}/delegate",
        description="Delegate a task to another workspace. It is delivered by A2A message/send, with "
        "the delegation's ID as messageId and in the metadata. It is tracked until the target "
        "reports that it has processed the task.",
        parameters=(WORKSPACE_ID,),
        body=request_models.DelegateBody,
        body_example={"target_id": "ws-2", "task": "Summarise the report.", "idempotency_key": "report-7"},
        body_bytes=DELEGATION_BODY_BYTES,
        response_model=response_models.DelegationAccepted,
        example={"delegation_id": _DELEGATION, "status": "delegated", "target_id": "ws-2"},
        status=202,
        caller=AllowedCaller.READER,
        codes=(*BODY_CODES, *USE_CODES, *_TARGET, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    ),
    Operation(
        name="list_delegations",
        method="GET",
        path="/workspaces/{workspace_id}/delegations",
        description="List the delegations that the workspace sent, newest first, at most 50. Finished "
        "delegations that have not been listed yet come before others, so polling shows each result.",
        parameters=(WORKSPACE_ID,),
        response_model=response_models.DelegationList,
        example=[
            {
                "id": _DELEGATION,
                "type": "delegate",
                "source_id": "ws-1",
                "target_id": "ws-2",
                "summary": "Summarise the report.",
                "status": "completed",
                "state": "processed",
                "created_at": "2026-06-11T22:20:00Z",
                "delegation_id": _DELEGATION,
                "response_preview": "The report says that all is well.",
            }
        ],
        caller=AllowedCaller.READER,
        codes=USE_CODES,
    ),
    Operation(
        name="record_delegation",
        method="POST",
        path="/workspaces/{workspace_id}/delegations/record",
        description="Record a delegation that the source's runtime sends on its own. A call from the box's "
        "recorded address needs no bearer.",
        parameters=(WORKSPACE_ID,),
        body=request_models.RecordBody,
        body_example={"target_id": "ws-2", "task": "Summarise the report.", "delegation_id": _RECORDED},
        body_bytes=DELEGATION_BODY_BYTES,
        response_model=response_models.DelegationRecorded,
        example={"delegation_id": _RECORDED, "status": "recorded"},
        status=202,
        caller=AllowedCaller.BOX,
        codes=(*BODY_CODES, *USE_CODES, *_TARGET, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    ),
    Operation(
        name="update_delegation",
        method="POST",
        path="/workspaces/{workspace_id}/delegations/{delegation_id}/update",
        description="Report a delegation's progress: by its target or, if it was recorded, by its "
        "source. A late report changes nothing; the response contains the actual status. A "
        "terminal status needs a live token.",
        parameters=(WORKSPACE_ID, DELEGATION_ID),
        body=request_models.UpdateBody,
        body_example={"status": "in_progress"},
        response_model=response_models.DelegationUpdated,
        example={"status": "in_progress", "delegation_id": _RECORDED},
        caller=AllowedCaller.BOX,
        codes=(*BODY_CODES, *USE_CODES, ErrorCode.DELEGATION_UNKNOWN, ErrorCode.DELEGATION_NOT_YOURS),
    ),
)
