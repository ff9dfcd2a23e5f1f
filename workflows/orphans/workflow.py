"""SweepWorkflow: one pass of the orphan sweep, started by a schedule.

An activity classifies what is listed. Orphans of a workspace with a workflow are reported to it; the sweep
terminates only the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.orphans import contract as orphans_contract
    from workflows.orphans.rules import OrphanAction, OrphanKind
    from workflows.shared import names
    from workflows.shared.activity_options import AWS, EC2
    from workflows.shared.markdown import plain, table
    from workflows.shared.run_activity import failure_reason, run_activity
    from workflows.workspace import contract as workspace_contract


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a pass found and did: the workflow's result."""

    instances: orphans_contract.OrphansFound | None = None
    """None if the instances could not be listed."""
    names: orphans_contract.OrphansFound | None = None
    ended: tuple[str, ...] = ()
    """The instances that this pass has terminated, and the DNS names that it has removed."""
    left: tuple[str, ...] = ()
    """The orphans that were not terminated, each with the reason."""
    failures: tuple[str, ...] = ()


@workflow.defn(name=names.SWEEP_TYPE)
class SweepWorkflow:
    """One pass."""

    @workflow.init
    def __init__(self, *payload: object) -> None:  # noqa: ARG002 - ignores its input
        self._ended: list[str] = []
        self._left: list[str] = []
        self._failures: list[str] = []

    @workflow.run
    async def run(self, *payload: object) -> SweepReport:  # noqa: ARG002 - the settings are the worker's
        """Instances first, then names."""
        pass_id = workflow.info().run_id
        instances = names = None
        try:
            instances = await run_activity(
                orphans_contract.find_orphan_instances,
                orphans_contract.FindOrphans(pass_id=pass_id),
                AWS,
                activity_id="instances",
                summary="list and classify the instances with this control plane's tag",
            )
        except ActivityError as error:
            self._failed("instances", error)
        if instances is not None:
            await self._end_instances(instances)
        try:
            names = await run_activity(
                orphans_contract.find_orphan_names,
                orphans_contract.FindOrphans(pass_id=pass_id, used=_acted(instances)),
                AWS,
                activity_id="names",
                summary="list and classify the DNS names with this control plane's claim",
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
                ended = await run_activity(
                    workspace_contract.terminate_orphans,
                    workspace_contract.TerminateOrphans(workspace_id=workspace_id, instances=instances),
                    EC2,
                    activity_id=f"end-{workspace_id}",
                    summary=f"{workspace_id}: terminate orphan instances",
                )
            except ActivityError as error:
                self._failed(workspace_id, error)
            else:
                self._ended += ended.terminated
                self._left += ended.left

    async def _remove_names(self, found: orphans_contract.OrphansFound) -> None:
        for workspace_id, names in _to_end(found, OrphanKind.NAME).items():
            try:
                await run_activity(
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
        """Report the failure; the next pass tries again."""
        if is_cancelled_exception(error):
            raise error
        self._failures.append(f"{what}: {failure_reason(error)}")


def details(report: SweepReport) -> str:
    """What a pass found and did, in Markdown."""
    lines = []
    for name, found in (("instances", report.instances), ("DNS names", report.names)):
        if found is None:
            lines.append(f"**{name}**: could not be listed.\n")
            continue
        counts = ", ".join(f"{number} {action}" for action, number in sorted(found.actions.items()))
        dry_run = " (dry run: no action taken)" if found.dry_run else ""
        lines.append(
            f"**{name}**: {found.looked_at} with this control plane's tags{dry_run}; {counts or 'none'}.\n"
        )
        if found.orphans:
            lines += table(
                ("what", "workspace", "generation", "seen", "action"),
                (
                    (plain(it.name), plain(it.workspace_id), str(it.generation), f"{it.times}×", it.action)
                    for it in found.orphans
                ),
            )
            lines.append("")
    for title, entries in (("ended", report.ended), ("left", report.left), ("failed", report.failures)):
        lines += [f"- {title}: {plain(entry)}" for entry in entries]
    return "\n".join(lines)


def _acted(found: orphans_contract.OrphansFound | None) -> int:
    if found is None:
        return 0
    return sum(number for action, number in found.actions.items() if OrphanAction(action).acts)


def _to_end(found: orphans_contract.OrphansFound, kind: OrphanKind) -> Mapping[str, tuple[str, ...]]:
    """The orphans that the sweep itself terminates or removes, by workspace."""
    if found.dry_run:
        return {}
    to_terminate = [one for one in found.orphans if one.action is OrphanAction.END and one.kind is kind]
    workspaces: Iterable[str] = sorted({one.workspace_id for one in to_terminate})
    return {
        workspace: tuple(one.name for one in to_terminate if one.workspace_id == workspace)
        for workspace in workspaces
    }
