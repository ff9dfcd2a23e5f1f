"""RunInstances and related calls as in EC2: client tokens, timed state transitions, listings."""

import base64
import hashlib
from xml.etree import ElementTree

from werkzeug.wrappers import Response

from devstack.aws.cloud import ClientTokenRecord, Cloud
from devstack.aws.instances import STATE_CODES, Machine
from devstack.aws.values import GENERATION_TAG, WORKSPACE_TAG, Outcome
from devstack.aws.volumes import keeping_attachments
from devstack.aws.wire import Call, Refused, all_of, ec2_answer, error_code, read_xml, text_of, write_xml

CLIENT_TOKEN_LENGTH = 64
"""EC2's limit, in ASCII characters."""

NO_INSTANCE = "i-00000000000000000"
"""An ID that no instance has."""


def run_instances(cloud: Cloud, call: Call, *, now: float) -> tuple[Response, Outcome, list[Machine]]:
    """Launch an instance, or return the launch of the same client token. Raises `Refused`."""
    token = call.parameters.get("ClientToken", "")
    if len(token) > CLIENT_TOKEN_LENGTH or not token.isascii():
        raise Refused(
            "InvalidParameterValue",
            f"Invalid value '{token}' for clientToken: at most {CLIENT_TOKEN_LENGTH} ASCII characters",
        )
    key = (call.region, _zone(cloud, call), token)
    digest = _digest(call)
    replay = cloud.client_tokens.get(key) if token else None
    if replay is not None:
        machines = _replayed(cloud, replay, digest)
        return _run_answer(cloud, call, machines), Outcome.TOKEN_REPLAYED, machines
    backend = cloud.ec2(call.region)
    before = set(backend.reservations)
    response = cloud.dispatch(call)
    new = [reservation for name, reservation in backend.reservations.items() if name not in before]
    if response.status_code != 200:
        for reservation in new:
            del backend.reservations[reservation.id]  # moto leaves an empty one when it refuses
        if error_code(response) == "InvalidInstanceType.NotFound":  # moto's own invention
            kind = call.parameters.get("InstanceType", "")
            raise Refused("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        return response, Outcome.REFUSED, []
    user_data = base64.b64decode(call.parameters.get("UserData", ""))
    machines = [
        cloud.machines.launched(instance, region=call.region, tags=call.tags(), user_data=user_data, now=now)
        for reservation in new
        for instance in reservation.instances
    ]
    for machine in machines:
        cloud.machines.begin(machine, now=now)
    if token:
        ids = tuple(machine.instance_id for machine in machines)
        cloud.client_tokens[key] = ClientTokenRecord(digest=digest, instance_ids=ids, at=now)
    return _run_answer(cloud, call, machines), Outcome.LAUNCHED, machines


def change_states(cloud: Cloud, call: Call, *, now: float) -> Response:
    """TerminateInstances, StopInstances and StartInstances: moto validates, `instances` times them."""
    machines = [
        machine for instance_id in call.listed("InstanceId") if (machine := cloud.machines.get(instance_id))
    ]
    before = {machine.instance_id: machine.state for machine in machines}
    with keeping_attachments(machines):
        response = cloud.dispatch(call)
    if response.status_code != 200:
        return response
    for machine in machines:
        if call.action == "TerminateInstances":
            cloud.machines.terminate(machine, now=now)
        elif call.action == "StopInstances":
            cloud.machines.stop(machine, now=now)
        else:
            cloud.machines.begin(machine, now=now)
    items = "".join(
        f"<item><instanceId>{machine.instance_id}</instanceId>"
        f"{_state('currentState', machine.state)}"
        f"{_state('previousState', before[machine.instance_id])}</item>"
        for machine in machines
    )
    return ec2_answer(call.action, f"<instancesSet>{items}</instancesSet>")


def power_off(cloud: Cloud, machine: Machine, *, now: float) -> None:
    """Shut the instance down from inside; the launch parameters select stop or terminate."""
    if machine.instance.instance_initiated_shutdown_behavior == "terminate":
        with keeping_attachments([machine]):
            machine.instance.terminate()
        cloud.machines.terminate(machine, now=now)
    else:
        cloud.machines.stop(machine, now=now)


def describe_instances(cloud: Cloud, call: Call) -> Response:
    """DescribeInstances, including the filter `client-token`, which moto lacks."""
    wanted = call.filters().get("client-token")
    if wanted is None:
        return cloud.dispatch(call)
    ids = {
        instance_id
        for (region, _, token), replay in cloud.client_tokens.items()
        if region == call.region and token in wanted
        for instance_id in replay.instance_ids
    }
    parameters = dict(call.parameters)
    name = next(key for key, value in parameters.items() if key.endswith("Name") and value == "client-token")
    stem = name.removesuffix("Name")
    for key in [key for key in parameters if key.startswith(stem)]:
        del parameters[key]
    parameters[name] = "instance-id"
    for number, instance_id in enumerate(sorted(ids) or [NO_INSTANCE], start=1):
        parameters[f"{stem}Value.{number}"] = instance_id
    return cloud.dispatch(call.with_parameters(parameters))


def without_instances(response: Response, instance_ids: set[str]) -> Response:
    """Return a DescribeInstances response without those instances."""
    if response.status_code != 200 or not instance_ids:
        return response
    document = read_xml(response.get_data())
    for reservations in all_of(document, "reservationSet"):
        for reservation in list(reservations):
            for instances in all_of(reservation, "instancesSet"):
                for instance in list(instances):
                    if text_of(instance, "instanceId") in instance_ids:
                        instances.remove(instance)
                if not len(instances):
                    reservations.remove(reservation)
    return Response(write_xml(document), content_type=response.content_type)


def empty_listing() -> Response:
    """Return an empty DescribeInstances response."""
    return ec2_answer("DescribeInstances", "<reservationSet/>")


def names_of(call: Call, machines: list[Machine]) -> tuple[str | None, int | None]:
    """Return the workspace and the generation of a call, from its tags or its instances."""
    tags = call.tags() or (machines[0].tags if machines else {})
    generation = tags.get(GENERATION_TAG, "")
    return tags.get(WORKSPACE_TAG), int(generation) if generation.isdecimal() else None


def _replayed(cloud: Cloud, replay: ClientTokenRecord, digest: str) -> list[Machine]:
    if replay.digest != digest:
        raise Refused(
            "IdempotentParameterMismatch",
            "The client token was used before, with other request parameters.",
        )
    machines = [
        machine for instance_id in replay.instance_ids if (machine := cloud.machines.get(instance_id))
    ]
    if not machines:
        raise Refused("IdempotentInstanceTerminated", "The instance of this client token was terminated.")
    return machines


def _zone(cloud: Cloud, call: Call) -> str:
    """Return the scope of a client token: the requested zone, if any."""
    subnet_id = call.parameters.get("SubnetId") or call.parameters.get("NetworkInterface.1.SubnetId")
    for zone, subnets in cloud.ec2(call.region).subnets.items():
        if subnet_id in subnets:
            return str(zone)
    return subnet_id or call.parameters.get("Placement.AvailabilityZone", "")


def _digest(call: Call) -> str:
    meant = sorted(
        (key, value) for key, value in call.parameters.items() if key not in {"ClientToken", "DryRun"}
    )
    return hashlib.sha256(repr(meant).encode()).hexdigest()


def _run_answer(cloud: Cloud, call: Call, machines: list[Machine]) -> Response:
    """Return the launch in its current state, in the form of a RunInstances response."""
    listing = {"Action": "DescribeInstances", "Version": call.parameters["Version"]} | {
        f"InstanceId.{number}": machine.instance_id for number, machine in enumerate(machines, start=1)
    }
    document = read_xml(cloud.dispatch(call.with_parameters(listing)).get_data())
    reservation = all_of(document, "reservationSet/item")[0]
    content = "".join(write_xml(part) for part in reservation)
    return ec2_answer("RunInstances", content)


def _state(name: str, state: str) -> str:
    element = ElementTree.Element(name)
    ElementTree.SubElement(element, "code").text = str(STATE_CODES[state])
    ElementTree.SubElement(element, "name").text = state
    return ElementTree.tostring(element, encoding="unicode")
