"""The WSGI application around moto: applies faults, executes each AWS request, and records it.

`launches` and `records` implement the effects; this module keeps their order and the lock.
"""

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

from werkzeug.wrappers import Response

from devstack.aws import dry_runs, launches, records, volumes
from devstack.aws.cloud import Cloud, StateWriter
from devstack.aws.control import Control
from devstack.aws.faults import ArmedFault, Faults
from devstack.aws.instances import Machine
from devstack.aws.values import JSON, WORKSPACE_TAG, FaultKind, Outcome
from devstack.aws.wire import EC2, Call, Environ, Refused, error_answer, error_code, read_call

StartResponse = Callable[..., object]


class FaultLayer:
    """The application on the endpoint's port."""

    def __init__(self, cloud: Cloud, *, saver: StateWriter | None = None) -> None:
        self._cloud = cloud
        self._saver = saver
        self._faults = Faults()
        self._control = Control(cloud, self._faults, saver=saver)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        if str(environ["PATH_INFO"]).startswith("/_onebox/"):
            return self._control(environ, start_response)
        response = self._answer(read_call(environ))
        if response is None:
            connection = environ["werkzeug.socket"]
            assert isinstance(connection, socket.socket)  # noqa: S101
            connection.shutdown(socket.SHUT_RDWR)
            response = Response()  # the client has disconnected
        return response(environ, start_response)  # type: ignore[arg-type]

    def _answer(self, call: Call) -> Response | None:
        """Return the response; None if it is lost."""
        met = self._faults.match(call.action, self._workspaces(call))
        kinds = {armed.fault.fault for armed in met}
        for armed in met:
            if armed.fault.fault is FaultKind.DELAY:
                time.sleep(armed.fault.seconds)
        with self._cloud.lock:
            response = self._effect(call, met)
        if call.changes_something and response.status_code == 200 and self._saver is not None:
            self._saver.save()
        for armed in met:
            if armed.fault.fault is FaultKind.HOLD:
                self._faults.hold(armed)
        return None if FaultKind.LOST_ANSWER in kinds else response

    def _effect(self, call: Call, matched: list[ArmedFault]) -> Response:
        """Execute the call and record it in the journal."""
        now = self._cloud.advance()
        if call.is_ours:
            self._cloud.call_counts.add(f"{call.service}:{call.action}", self._meant(call))
        machines = self._machines(call)
        parameters: JSON = {
            name: value
            for name, value in call.parameters.items()
            if name not in {"UserData", "Action", "Version"}
        }
        workspace, generation = launches.names_of(call, machines)
        workspace = workspace or self._workspace_of_volume(call)
        outcome = Outcome.DONE
        try:
            for armed in matched:
                if armed.fault.fault is FaultKind.ERROR:
                    raise Refused(armed.fault.code, armed.fault.message, status=armed.fault.status)
            if call.is_dry_run:
                raise dry_runs.answer(self._cloud, call)
            match call.action:
                case "RunInstances":
                    response, outcome, machines = launches.run_instances(self._cloud, call, now=now)
                case "TerminateInstances" | "StopInstances" | "StartInstances":
                    response = launches.change_states(self._cloud, call, now=now)
                case "DescribeInstances":
                    response = self._listing(call, matched, now=now)
                case "ChangeResourceRecordSets":
                    changes = records.read_changes(call)
                    parameters = {"changes": [{"action": c.action, **asdict(c.record)} for c in changes]}
                    workspace = records.workspace_of(changes)
                    response = records.apply_changes(self._cloud, call, changes)
                case action if action in volumes.ACTIONS:
                    response = volumes.answer(self._cloud, call, now=now)
                case _:
                    response = self._cloud.dispatch(call)
        except Refused as refused:
            response = error_answer(call.service, refused)
        if call.changes_something and response.status_code == 200:
            for machine in machines:
                self._cloud.machines.delay(machine, _added_delay(matched))
        if call.changes_something:
            refused_code = error_code(response) if response.status_code >= 400 else None
            self._cloud.journal.add(
                call.action,
                Outcome.REFUSED if refused_code else outcome,
                at=now,
                workspace=workspace,
                generation=generation,
                instance_ids=[machine.instance_id for machine in machines],
                code=refused_code,
                parameters=parameters,
            )
        return response

    def _listing(self, call: Call, matched: list[ArmedFault], *, now: float) -> Response:
        if any(armed.fault.fault is FaultKind.EMPTY_LIST for armed in matched):
            return launches.empty_listing()
        late = max(
            (armed.fault.seconds for armed in matched if armed.fault.fault is FaultKind.LATE_LIST),
            default=0.0,
        )
        unseen = {machine.instance_id for machine in self._cloud.machines if machine.launched_at + late > now}
        missing = unseen & set(call.listed("InstanceId"))
        if missing:
            raise Refused(
                "InvalidInstanceID.NotFound", f"The instance IDs '{', '.join(sorted(missing))}' do not exist"
            )
        return launches.without_instances(launches.describe_instances(self._cloud, call), unseen)

    def _machines(self, call: Call) -> list[Machine]:
        """Return the instances that a call names, directly or by their volume."""
        if call.service != EC2:
            return []
        names = [*call.listed("InstanceId"), call.parameters.get("InstanceId", "")]
        if volume_id := call.parameters.get("VolumeId"):
            volume = self._cloud.ec2(call.region).volumes.get(volume_id)
            names.append(volume.attachment.instance.id if volume and volume.attachment else "")
        return [machine for name in names if (machine := self._cloud.machines.get(name))]

    def _workspace_of_volume(self, call: Call) -> str | None:
        if call.service != EC2 or (volume := volumes.volume_of(self._cloud, call)) is None:
            return None
        return volumes.workspace_of(volume)

    def _workspaces(self, call: Call) -> set[str]:
        """Return the workspaces of a call."""
        names = {call.tags().get(WORKSPACE_TAG), *call.filters().get(f"tag:{WORKSPACE_TAG}", [])}
        if call.action == "ChangeResourceRecordSets":
            try:
                names.add(records.workspace_of(records.read_changes(call)))
            except Refused:
                return set()  # refused later as malformed
        with self._cloud.lock:
            names |= {machine.workspace for machine in self._machines(call)}
            names.add(self._workspace_of_volume(call))
        return {name for name in names if name}

    def _meant(self, call: Call) -> str | None:
        """Return the workspace of a call, including calls that filter by ID or name."""
        filters = call.filters()
        for instance_id in filters.get("instance-id", []):
            if machine := self._cloud.machines.get(instance_id):
                return machine.workspace
        for volume_id in filters.get("volume-id", []):
            if volume := self._cloud.ec2(call.region).volumes.get(volume_id):
                return volumes.workspace_of(volume)
        if call.record_name:
            return records.workspace_in(call.record_name)
        return next(iter(self._workspaces(call)), None)


def _added_delay(matched: list[ArmedFault]) -> float:
    """Return how much longer the next state transitions take, in seconds."""
    slow = [armed.fault.seconds for armed in matched if armed.fault.fault is FaultKind.SLOW_CHANGE]
    return max(slow, default=0.0)
