"""Workflow types, task queues, schedules and search attributes: names that outsiders depend on."""

from temporalio.common import SearchAttributeKey

WORKFLOW_TYPE = "WorkspaceWorkflow"
TASK_QUEUE = "workspaces"
EC2_TASK_QUEUE = "workspaces-ec2"
"""Only for EC2 mutations, so that one server-side rate limit covers all workers."""
WATCHDOG_TYPE = "WatchdogWorkflow"
WATCHDOG_SCHEDULE = "onebox-watchdog"
"""ID of the schedule. Pausing it in the UI or CLI pauses the watchdog."""
DELEGATION_TYPE = "DelegationWorkflow"
DELEGATIONS_TASK_QUEUE = "delegations"
"""A queue of its own: a hundred slow targets must not delay a recreate."""
SWEEP_TYPE = "SweepWorkflow"
SWEEP_SCHEDULE = "onebox-sweep"
REPAIR_TYPE = "RepairWorkflow"
REPAIR_SCHEDULE = "onebox-repair"
ROLLOUT_TYPE = "RolloutWorkflow"

PHASE = SearchAttributeKey.for_keyword("WorkspacePhase")
INSTANCE = SearchAttributeKey.for_keyword("WorkspaceInstance")
ERROR_CODE = SearchAttributeKey.for_keyword("WorkspaceErrorCode")
REASON = SearchAttributeKey.for_keyword("WorkspaceReason")
"""The reason of the condition that explains why the workspace is degraded, failed or blocked."""
GENERATION = SearchAttributeKey.for_int("WorkspaceGeneration")
DELEGATION_STATE = SearchAttributeKey.for_keyword("DelegationState")
"""`held` for dead letters, otherwise the delegation's state."""
ROLLOUT_STATE = SearchAttributeKey.for_keyword("RollState")
"""State of a rollout: `planned`, `rolling`, `paused`, `aborted`, `ended`."""
SEARCH_ATTRIBUTES = (PHASE, INSTANCE, ERROR_CODE, REASON, GENERATION, DELEGATION_STATE, ROLLOUT_STATE)
