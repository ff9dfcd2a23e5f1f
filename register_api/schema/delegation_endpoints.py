"""The calls about delegations, for the table of all operations."""

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
    description="The delegation.",
    schema={"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    example="0d1f2b0e-7c57-4b1e-9f5a-3f1a6f5d9a10",
)

DELEGATION_BODY_BYTES = 4 * 1024 * 1024
"""A megabyte of text, most of it escaped."""

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
        description="Hand work to another workspace. It is delivered by A2A message/send, with "
        "the delegation's ID as messageId and in metadata, and tracked until the "
        "target says that it has processed it.",
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
        description="The workspace's own delegations, newest first, at most 50. A poll shows each "
        "end at least once: ends that were not shown yet go before others.",
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
                "response_preview": "It says that all is well.",
            }
        ],
        caller=AllowedCaller.READER,
        codes=USE_CODES,
    ),
    Operation(
        name="record_delegation",
        method="POST",
        path="/workspaces/{workspace_id}/delegations/record",
        description="Write down a delegation that the source's runtime sends itself. Taken "
        "without a bearer, too, if the call comes from the recorded address.",
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
        description="Say how far a delegation is: by its target or, of a recorded one, by its "
        "source. Words that come too late change nothing; the answer says how far it "
        "is. A terminal word needs a live token.",
        parameters=(WORKSPACE_ID, DELEGATION_ID),
        body=request_models.UpdateBody,
        body_example={"status": "in_progress"},
        response_model=response_models.DelegationUpdated,
        example={"status": "in_progress", "delegation_id": _RECORDED},
        caller=AllowedCaller.BOX,
        codes=(*BODY_CODES, *USE_CODES, ErrorCode.DELEGATION_UNKNOWN, ErrorCode.DELEGATION_NOT_YOURS),
    ),
)
