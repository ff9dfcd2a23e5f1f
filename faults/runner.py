"""A fault injection run: rounds of faults under load, a settling phase after each, and the verdict.

`injection` causes the faults, `workload` sends the requests, `invariants` checks the evidence.
"""

import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psycopg
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig

from devstack.console import Console, connected
from devstack.temporal import temporal_cli
from faults import quiescence
from faults.collectors import Collectors, read_texts
from faults.injection import Injector, supported_kinds
from faults.invariants.evidence import Evidence, QuietPeriod, UnsettledWorkspace
from faults.invariants.verdict import find_violations
from faults.quiescence import Quiescence, RestState
from faults.replaying import replayed
from faults.schedule import Round, schedule
from faults.stage import STALE_SECONDS, Stage, staged
from faults.status_observer import StatusObserver
from faults.summary import RoundResult, RunSummary
from faults.workload import Callers
from workflows.delegation.messages import workflow_id_of

WORKSPACES = 8

SETTLE_SECONDS = 240.0
"""Limit for settling after the last fault. Worst case by the rules, in sequence: 60 s until a token in use
is reissued, 60 s until an instance that was not found counts as terminated, and a minute of delegation
retries, on a machine that shares two cores between all of it."""

QUIET_SECONDS = 3.0

Say = Callable[[str], None]


@dataclass(slots=True)
class FaultRun:
    """One fault injection run in progress."""

    stage: Stage
    console: Console
    collectors: Collectors
    callers: Callers
    injector: Injector
    workspaces: list[str]
    say: Say
    results: list[RoundResult] = field(default_factory=list)
    quiet_periods: list[QuietPeriod] = field(default_factory=list)
    unsettled: list[UnsettledWorkspace] = field(default_factory=list)
    command_lines: dict[str, str] = field(default_factory=dict)
    all_workspaces: list[str] = field(default_factory=list)
    """Every workspace of the run, including deleted ones."""

    async def play(self, rounds: Sequence[Round]) -> None:
        """Play all rounds, and wait for a settled state before and after."""
        self.say(f"the stack is up; starting {len(self.workspaces)} workspaces")
        for workspace in self.workspaces:
            await self._begin(workspace)
        await self._wait_until_quiescent("the beginning")
        for each in rounds:
            await self._round(each)
        await self._end_work()

    async def _begin(self, workspace: str) -> None:
        await self.console.start(workspace)
        self.all_workspaces.append(workspace)

    async def _round(self, it: Round) -> None:
        over = asyncio.Event()
        effective, ineffective = Counter[str](), Counter[str]()
        before = len(self.callers.log.sent)
        self.say(f"round {it.number}: {len(it.faults)} faults, many at the same time")
        async with asyncio.TaskGroup() as tasks:
            calls = tasks.create_task(self.callers.call_until(over))

            async def bring(number: int) -> None:
                fault = it.faults[number]
                await asyncio.sleep(fault.at)
                counts = effective if await self.injector.inject(fault) else ineffective
                counts[fault.kind.name] += 1

            await asyncio.gather(*(bring(number) for number in range(len(it.faults))))
            over.set()
            await calls
        await self.injector.end_all()
        ended = time.monotonic()
        calm = await self._wait_until_quiescent(f"round {it.number}")
        after = time.monotonic() - ended if calm.settled else None
        rests = Counter(seen.rest for seen in calm.seen)
        self.results.append(
            RoundResult(
                number=it.number,
                effective=dict(effective),
                ineffective=dict(ineffective),
                settled_after=after,
                online=rests[RestState.ONLINE],
                stopped=rests[RestState.STOPPED],
                deleted=rests[RestState.DELETED],
                held_back=rests[RestState.HELD_BACK],
            )
        )
        settling = "not settled in time" if after is None else f"settled after {after:.1f} s"
        sent = len(self.callers.log.sent) - before
        self.say(
            f"round {it.number}: {effective.total()} effective faults, {sent} requests accepted, {settling}:"
            f" {', '.join(f'{number} {rest}' for rest, number in rests.items())}"
            + (f"; without effect: {', '.join(ineffective)}" if ineffective else "")
        )
        await self._operator_requests(calm)
        await self._quiet()

    async def _wait_until_quiescent(self, when: str) -> Quiescence:
        """Wait until everything is settled; record what is not settled in time."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            calm = await self._look()
            if calm is not None and calm.settled:
                return calm
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        calm = calm or Quiescence(seen=(), pending=("PostgreSQL cannot be read",))
        moving = [it for it in calm.seen if it.rest is RestState.MOVING]
        for seen in moving:
            self.unsettled.append(
                UnsettledWorkspace(
                    workspace=seen.workspace,
                    at=time.time(),
                    seen=f"after {when}: {seen.detail}",
                    unauthorized=await self._is_unauthorized(seen.workspace),
                )
            )
        for pending in calm.pending:
            self.unsettled.append(
                UnsettledWorkspace(
                    workspace="", at=time.time(), seen=f"after {when}: {pending}", unauthorized=False
                )
            )
        return calm

    async def _look(self) -> Quiescence | None:
        requests = {(it.workspace, it.request_id) for it in self.callers.log.sent}
        url = self.collectors.database_url
        try:
            return await asyncio.to_thread(quiescence.read_quiescence, url, list(self.workspaces), requests)
        except psycopg.Error:
            return None

    async def _is_unauthorized(self, workspace: str) -> bool:
        """Whether the box's heartbeats are answered with 401, as the box reports it."""
        for box in self.stage.stack.boxes:
            if box.workspace == workspace:
                url = f"http://{box.private_ip}:{self.stage.listen_port}/_control"
                try:
                    async with httpx2.AsyncClient(timeout=5, trust_env=False) as http:
                        return bool((await http.get(url)).json()["heartbeat_status"] == 401)
                except httpx2.HTTPError:
                    return False
        return False

    async def _operator_requests(self, calm: Quiescence) -> None:
        """Do what needs an operator: start stopped workspaces, reset budgets, replace deleted workspaces."""
        for workspace in [*calm.in_state(RestState.STOPPED), *calm.in_state(RestState.HELD_BACK)]:
            await self.callers.operator_request(workspace, "request_start", reason="next round")
        for workspace in calm.in_state(RestState.DELETED):
            self.workspaces.remove(workspace)
            new = f"faulty-{len(self.all_workspaces) + 1}"
            self.workspaces.append(new)
            await self._begin(new)
        for row in await self.console.rows("SELECT delegation_id FROM delegations WHERE dead_lettered"):
            await self.console.signal(
                workflow_id_of(str(row["delegation_id"])), "resend", requested_by="admin:carol"
            )
        await self._wait_until_quiescent("the operator requests")

    async def _quiet(self) -> None:
        """Wait some seconds without any requests."""
        began, calm = time.time(), await self._look()
        await asyncio.sleep(QUIET_SECONDS)
        after = await self._look()
        if calm is not None and after is not None:
            online = set(calm.in_state(RestState.ONLINE)) & set(after.in_state(RestState.ONLINE))
            self.quiet_periods.append(
                QuietPeriod(began=began, ended=time.time(), workspaces=tuple(sorted(online)))
            )
        for name, pid in self.stage.stack.pids.items():
            self.command_lines[f"the command line of {name}"] = _command_line(pid)

    async def _end_work(self) -> None:
        """Wait until every delegation ends, now that all its targets are back."""
        calm = await self._wait_until_quiescent("the last round")
        await self._operator_requests(calm)

    def evidence(self, watcher: StatusObserver) -> Evidence:
        """Collect all evidence."""
        state_dir = self.stage.stack.state_dir
        events, runs = self.collectors.histories(self.all_workspaces)
        logs = [*state_dir.glob("logs/*.log"), *state_dir.glob("boxes/*/box.log")]
        log = self.callers.log
        return Evidence(
            aws_calls=self.collectors.aws_calls(),
            changes=self.collectors.changes(),
            recorded=self.collectors.recorded(),
            sent=tuple(log.sent),
            delegated=tuple(log.delegated),
            status_samples=watcher.status_samples,
            unauthorized_attempts=tuple(log.unauthorized_attempts),
            audited=self.collectors.audited(),
            events=events,
            replayed=asyncio.run(replayed(runs)),
            quiet_periods=tuple(self.quiet_periods),
            unsettled=tuple(self.unsettled),
            addresses=self.collectors.addresses(),
            processed={
                file.name: frozenset(file.read_text().split()) for file in self.stage.ledgers.iterdir()
            },
            secrets=self._secrets(),
            texts={f"the history of {run.workspace}, run {run.run_id}": run.text for run in runs}
            | {
                f"{file.parent.name}/{file.name}": text
                for file in logs
                for text in read_texts([file]).values()
            }
            | {
                f"Temporal's {name}": text
                for name, text in read_texts(state_dir.glob("temporal/temporal.db*")).items()
            }
            | self.command_lines,
            stale_after=STALE_SECONDS,
        )

    def _secrets(self) -> dict[str, str]:
        stack = self.stage.stack
        found = self.collectors.bootstrap_secrets() | self.callers.log.secrets
        for file in stack.state_dir.glob("boxes/*/configs/.auth_token"):
            found[f"the token of {file.parent.parent.name}"] = file.read_text().strip()
        key = stack.environment["SERVER_KEYS"].partition(":")[2]
        password = psycopg.conninfo.conninfo_to_dict(stack.database_url)["password"]
        return found | {
            "the server's key": key,
            "the operator's token": stack.operator_token,
            "the database's password": str(password),
        }


async def _run(stage: Stage, *, seed: int, rounds: int, say: Say) -> RunSummary:
    stack = stage.stack
    collectors = Collectors(
        database_url=stack.database_url,
        aws_url=stack.aws_url,
        temporal_address=stack.temporal_address,
        temporal_cli=temporal_cli(),
    )
    collectors.begin()
    workspaces = [f"faulty-{number}" for number in range(1, WORKSPACES + 1)]
    began = time.monotonic()
    async with connected(stack) as console:
        callers = Callers(console, seed=seed, workspaces=workspaces)
        run = FaultRun(
            stage=stage,
            console=console,
            collectors=collectors,
            callers=callers,
            injector=Injector(
                stage, console.aws, workspaces, replace=callers.trigger, delegate=callers.delegate
            ),
            workspaces=workspaces,
            say=say,
        )
        watcher = StatusObserver(
            collectors,
            api_url=stack.register_api_url,
            operator_token=stack.operator_token,
            workspaces=workspaces,
        )
        kinds = supported_kinds(disk=stage.disk is not None)
        with watcher:
            await run.play(schedule(seed, rounds=rounds, kinds=kinds))
        say("checking the invariants …")
        evidence = await asyncio.to_thread(run.evidence, watcher)
    states = {
        str(it.row["delegation_id"]): str(it.row["state"])
        for it in evidence.changes
        if it.table == "delegations" and it.row["type"] != "canary"
    }
    return RunSummary(
        seed=seed,
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        minutes=(time.monotonic() - began) / 60,
        settle_limit=SETTLE_SECONDS,
        rounds=tuple(run.results),
        requests=dict(callers.log.counts),
        outcomes=dict(Counter(it.outcome for it in evidence.recorded)),
        recreates=len(
            {
                (it.workspace, it.row["generation"])
                for it in evidence.changes
                if it.table == "generations" and it.row["generation"] != 1
            }
        ),
        delegations=dict(Counter(states.values())),
        reset=sum(it.reset for it in evidence.replayed),
        evidence={
            "AWS calls": len(evidence.aws_calls),
            "changes in PostgreSQL": len(evidence.changes),
            "history events": len(evidence.events),
            "runs replayed": len(evidence.replayed),
            "status samples": len(evidence.status_samples),
            "audited calls": len(evidence.audited),
            "unauthorized attempts": len(evidence.unauthorized_attempts),
            "quiet periods": len(evidence.quiet_periods),
            "secrets": len(evidence.secrets),
            "texts": len(evidence.texts),
        },
        violations=tuple(find_violations(evidence)),
    )


def play(*, seed: int, rounds: int, say: Say) -> RunSummary:
    """Run fault injection, from the start of the stack to the verdict."""
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter="error"))))
    say("starting the stack with a proxy for every connection …")
    with staged() as stage:
        if stage.disk is None:
            say("the kernel allows no separate disk for PostgreSQL, so the disk-full fault is left out")
        return asyncio.run(_run(stage, seed=seed, rounds=rounds, say=say))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
