"""SweepWorkflow: one pass of the orphan sweep, started by its schedule.

It decides nothing: what is an orphan is judged by an activity, beside the record. What has a workflow is
reported there and not touched; only what has none is ended here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.orphans import contract as orphans_contract
    from workflows.orphans.rules import OrphanAction, OrphanKind
    from workflows.shared.activity_options import AWS, EC2
    from workflows.shared.markdown import plain, table
    from workflows.workspace import contract as workspace_contract
    from workflows.workspace import messages
    from workflows.workspace.phases import runner


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a pass saw and did; its workflow's result."""

    instances: orphans_contract.OrphansFound | None = None
    """None: they could not be listed."""
    names: orphans_contract.OrphansFound | None = None
    ended: tuple[str, ...] = ()
    """Instances that are being terminated, and names that were removed, by this pass itself."""
    left: tuple[str, ...] = ()
    """What turned out to be claimed or kept, each with the reason."""
    failures: tuple[str, ...] = ()


@workflow.defn(name=messages.SWEEP_TYPE)
class SweepWorkflow:
    """One pass."""

    @workflow.init
    def __init__(self, *payload: object) -> None:  # noqa: ARG002 - whatever it was started with
        self._ended: list[str] = []
        self._left: list[str] = []
        self._failures: list[str] = []

    @workflow.run
    async def run(self, *payload: object) -> SweepReport:  # noqa: ARG002 - the settings are the worker's
        """Instances first, then names: a name whose box is there is of no use either."""
        pass_id = workflow.info().run_id
        instances = names = None
        try:
            instances = await runner.call(
                orphans_contract.find_orphan_instances,
                orphans_contract.FindOrphans(pass_id=pass_id),
                AWS,
                activity_id="instances",
                summary="list the instances with our owner tag, and judge them",
            )
        except ActivityError as error:
            self._failed("instances", error)
        if instances is not None:
            await self._end_instances(instances)
        try:
            names = await runner.call(
                orphans_contract.find_orphan_names,
                orphans_contract.FindOrphans(pass_id=pass_id, used=_acted(instances)),
                AWS,
                activity_id="names",
                summary="list the DNS names with our claim, and judge them",
            )
        except ActivityError as error:
            self._failed("names", error)
        if names is not None:
            await self._remove_names(names)
        report = SweepReport(
            instances=instances,
            names=names,
            ended=tuple(self._ended),
            left=tuple(self._left),
            failures=tuple(self._failures),
        )
        workflow.set_current_details(details(report))
        return report

    async def _end_instances(self, found: orphans_contract.OrphansFound) -> None:
        for workspace_id, instances in _to_end(found, OrphanKind.INSTANCE).items():
            try:
                ended = await runner.call(
                    orphans_contract.terminate_orphans,
                    orphans_contract.TerminateOrphans(workspace_id=workspace_id, instances=instances),
                    EC2,
                    activity_id=f"end-{workspace_id}",
                    summary=f"{workspace_id}: terminate what nobody claims",
                )
            except ActivityError as error:
                self._failed(workspace_id, error)
            else:
                self._ended += ended.terminated
                self._left += ended.left

    async def _remove_names(self, found: orphans_contract.OrphansFound) -> None:
        for workspace_id, names in _to_end(found, OrphanKind.NAME).items():
            try:
                await runner.call(
                    workspace_contract.remove_address,
                    workspace_contract.RemoveAddress(workspace_id=workspace_id),
                    AWS,
                    activity_id=f"remove-{workspace_id}",
                    summary=f"{workspace_id}: remove its DNS name",
                )
            except ActivityError as error:
                self._failed(workspace_id, error)
            else:
                self._ended += names

    def _failed(self, what: str, error: ActivityError) -> None:
        """Note it: what failed is looked at again by the next pass."""
        if is_cancelled_exception(error):
            raise error
        cause = error.cause
        why = f"{cause.type}: {cause.message}" if isinstance(cause, ApplicationError) else f"timeout: {cause}"
        self._failures.append(f"{what}: {why}")


def details(report: SweepReport) -> str:
    """What a pass saw and did, in Markdown."""
    lines = []
    for name, found in (("instances", report.instances), ("DNS names", report.names)):
        if found is None:
            lines.append(f"**{name}**: could not be listed.\n")
            continue
        counted = ", ".join(f"{number} {verdict}" for verdict, number in sorted(found.actions.items()))
        dry = " (dry run: nothing is done)" if found.dry_run else ""
        lines.append(f"**{name}**: {found.looked_at} with our tags{dry}; {counted or 'none'}.\n")
        if found.orphans:
            lines += table(
                ("what", "workspace", "generation", "seen", "verdict"),
                (
                    (plain(it.name), plain(it.workspace_id), str(it.generation), f"{it.times}×", it.action)
                    for it in found.orphans
                ),
            )
            lines.append("")
    for title, words in (("ended", report.ended), ("left", report.left), ("failed", report.failures)):
        lines += [f"- {title}: {plain(word)}" for word in words]
    return "\n".join(lines)


def _acted(found: orphans_contract.OrphansFound | None) -> int:
    if found is None:
        return 0
    return sum(number for verdict, number in found.actions.items() if OrphanAction(verdict).acts)


def _to_end(found: orphans_contract.OrphansFound, kind: OrphanKind) -> Mapping[str, tuple[str, ...]]:
    """By workspace, what no workflow can end."""
    if found.dry_run:
        return {}
    to_terminate = [one for one in found.orphans if one.action is OrphanAction.END and one.kind is kind]
    workspaces: Iterable[str] = sorted({one.workspace_id for one in to_terminate})
    return {
        workspace: tuple(one.name for one in to_terminate if one.workspace_id == workspace)
        for workspace in workspaces
    }
