"""Evidence of a run without violations; tests plant violations in it."""

from dataclasses import replace

from faults.invariants.evidence import (
    AuditRow,
    AwsCall,
    BoxTruth,
    Change,
    Event,
    Evidence,
    PromisedDelegation,
    QuietPeriod,
    RecordedRequest,
    ReplayResult,
    SentRequest,
    StatusSample,
    UnauthorizedAttempt,
)

WORKSPACE = "ws"
OLD, NEW = "i-old", "i-new"
SECRET = "s3cr3t-" * 6


def deed(at: float, action: str, outcome: str, instance: str = "", generation: int | None = None) -> AwsCall:
    return AwsCall(
        at=at,
        action=action,
        outcome=outcome,
        workspace=WORKSPACE,
        generation=generation,
        instances=(instance,) if instance else (),
    )


def state(at: float, instance: str, name: str, generation: int) -> AwsCall:
    return deed(at, "StateChange", name, instance, generation)


def named(at: float, address: str) -> AwsCall:
    changes = [{"action": "CREATE", "type": "A", "name": "ws.boxes.internal.", "values": [address]}]
    return replace(deed(at, "ChangeResourceRecordSets", "done"), parameters={"changes": changes})


def change(seq: int, table: str, *, transaction: int | None = None, **row: object) -> Change:
    return Change(
        seq=seq,
        at=float(seq),
        transaction=transaction if transaction is not None else seq,
        table=table,
        workspace=WORKSPACE,
        row=row,
    )


def token(seq: int, token_id: str, generation: int, state: str, transaction: int | None = None) -> Change:
    return change(
        seq, "tokens", transaction=transaction, token_id=token_id, generation=generation, state=state
    )


def delegation(seq: int, state: str, delegation_id: str = "d1") -> Change:
    return change(seq, "delegations", delegation_id=delegation_id, state=state)


def request(request_id: str, outcome: str, generation: int, observed: int | None = None) -> RecordedRequest:
    return RecordedRequest(
        workspace=WORKSPACE,
        request_id=request_id,
        kind="recreate",
        requested_by="watchdog",
        observed_generation=observed,
        outcome=outcome,
        generation=generation,
        at=20.0,
    )


WELL = BoxTruth(
    at=50.0,
    generation=2,
    registered=True,
    live_tokens=1,
    heartbeat_age=0.5,
    not_processing=False,
    canary_answered=True,
)


def look(
    before: BoxTruth = WELL, after: BoxTruth = WELL, phase: str = "online", generation: int = 2
) -> StatusSample:
    return StatusSample(
        workspace=WORKSPACE, at=50.0, phase=phase, generation=generation, before=before, after=after
    )


def audited(call: str, verdict: str, code: str) -> AuditRow:
    return AuditRow(workspace=WORKSPACE, at=40.0, generation=2, call=call, verdict=verdict, code=code)


def run(failure: str | None = None, *, reset: bool = False) -> ReplayResult:
    return ReplayResult(workspace=WORKSPACE, run_id="run", at=28.0, failure=failure, reset=reset)


HONEST = Evidence(
    aws_calls=(
        deed(1, "RunInstances", "launched", OLD, 1),
        state(1, OLD, "pending", 1),
        state(2, OLD, "running", 1),
        named(3, "10.0.0.1"),
        state(21, OLD, "shutting-down", 1),
        state(22, OLD, "terminated", 1),
        deed(23, "RunInstances", "launched", NEW, 2),
        deed(24, "RunInstances", "token_replayed", NEW, 2),
        state(23, NEW, "pending", 2),
        state(25, NEW, "running", 2),
        named(26, "10.0.0.2"),
    ),
    changes=(
        change(1, "generations", generation=1),
        token(2, "t1", 1, "pending"),
        token(3, "t1", 1, "active"),
        delegation(5, "queued"),
        delegation(6, "delivered"),
        delegation(7, "processed"),
        # One transaction revokes the old tokens and opens the new generation.
        token(20, "t1", 1, "revoked", transaction=20),
        change(21, "generations", transaction=20, generation=2),
        token(27, "t2", 2, "pending"),
        token(28, "t2", 2, "active"),
    ),
    recorded=(
        request("r1", "accepted", 2, observed=1),
        request("r2", "joined", 2, observed=1),
        request("r3", "stale", 2, observed=1),
    ),
    sent=(
        SentRequest(workspace=WORKSPACE, request_id="r1", at=20.0, outcome="accepted"),
        SentRequest(workspace=WORKSPACE, request_id="r2", at=20.0, outcome=None),
    ),
    delegated=(PromisedDelegation(delegation_id="d1", target=WORKSPACE, at=5.0),),
    status_samples=(
        look(),
        look(replace(WELL, heartbeat_age=99.0), WELL),
        look(phase="degraded", generation=1),
    ),
    unauthorized_attempts=(UnauthorizedAttempt(workspace=WORKSPACE, at=30.0, status=401, got_token=False),),
    audited=(
        audited("register", "current", "minted"),
        audited("register", "superseded", "superseded"),
        audited("register", "unproven", "token_invalid"),
        audited("token created by operator", "unproven", "created"),
    ),
    events=(Event(workspace=WORKSPACE, at=28.0, type="workflow_task_completed"),),
    replayed=(run(), run("it parts", reset=True)),
    quiet_periods=(QuietPeriod(began=60.0, ended=63.0, workspaces=(WORKSPACE,)),),
    addresses={"10.0.0.1": (WORKSPACE, 1), "10.0.0.2": (WORKSPACE, 2), "10.0.0.9": ("another", 1)},
    processed={WORKSPACE: frozenset({"d1"})},
    secrets={"the server's key": SECRET},
    texts={"worker.log": "nothing to see"},
    stale_after=6.0,
)
"""Evidence without any violation."""
