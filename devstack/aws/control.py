"""The requests under /_onebox/: faults, journal, counts, instances. JSON in, JSON out.

Used by tests, the demo and the box host; AWS has no such paths.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict

from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from devstack.aws.cloud import Cloud, StateWriter
from devstack.aws.faults import Faults
from devstack.aws.instances import Machine
from devstack.aws.journal import count, timestamp
from devstack.aws.launches import power_off
from devstack.aws.values import Fault, InvalidFault
from devstack.aws.volumes import data_volumes
from devstack.aws.wire import Environ

ROUTES = Map(
    [
        Rule("/_onebox/info", methods=["GET"], endpoint="info"),
        Rule("/_onebox/faults", methods=["GET"], endpoint="faults"),
        Rule("/_onebox/faults", methods=["POST"], endpoint="inject"),
        Rule("/_onebox/faults", methods=["DELETE"], endpoint="clear"),
        Rule("/_onebox/faults/release", methods=["POST"], endpoint="release"),
        Rule("/_onebox/journal", methods=["GET"], endpoint="journal"),
        Rule("/_onebox/counts", methods=["GET"], endpoint="counts"),
        Rule("/_onebox/calls", methods=["GET"], endpoint="calls"),
        Rule("/_onebox/instances", methods=["GET"], endpoint="instances"),
        Rule("/_onebox/instances/<instance_id>/user-data", methods=["GET"], endpoint="user_data"),
        Rule("/_onebox/shutdown", methods=["POST"], endpoint="shutdown"),
    ]
)


class Control:
    """Handles the requests under /_onebox/."""

    def __init__(self, cloud: Cloud, faults: Faults, *, saver: StateWriter | None = None) -> None:
        self._cloud = cloud
        self._faults = faults
        self._saver = saver

    def __call__(self, environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
        """Handle one request."""
        request = Request(environ)
        try:
            endpoint, arguments = ROUTES.bind_to_environ(environ).match()
            response = self._answer(str(endpoint), request, **arguments)
        except InvalidFault as error:
            response = _json({"error": str(error)}, status=400)
        except HTTPException as error:
            response = _json({"error": error.description}, status=error.code or 500)
        return response(environ, start_response)  # type: ignore[arg-type]

    def _answer(self, endpoint: str, request: Request, *, instance_id: str = "") -> Response:
        match endpoint:
            case "inject":
                return _json({"id": self._faults.inject(Fault.from_json(request.get_json()))}, status=201)
            case "clear":
                self._faults.clear()
                return _json({})
            case "release":
                if not self._faults.release(_member(request, "id")):
                    raise NotFound("there is no such fault")
                return _json({})
            case "faults":
                return _json([status.to_json() for status in self._faults.statuses()])
        with self._cloud.lock:
            now = self._cloud.advance()
            match endpoint:
                case "info":
                    return _json(asdict(self._cloud.info()))
                case "journal":
                    since = request.args.get("since", 0, type=int)
                    workspace = request.args.get("workspace")
                    entries = self._cloud.journal.entries(workspace=workspace, since=since)
                    return _json([entry.to_json() for entry in entries])
                case "counts":
                    entries = self._cloud.journal.entries(workspace=request.args.get("workspace"))
                    return _json(asdict(count(entries)))
                case "calls":
                    return _json(self._cloud.call_counts.of(request.args.get("workspace")))
                case "instances":
                    return _json([_view(machine) for machine in self._cloud.machines])
                case "user_data":
                    return Response(
                        self._machine(instance_id).user_data, content_type="application/octet-stream"
                    )
            power_off(self._cloud, self._machine(_member(request, "instance_id")), now=now)
        if self._saver is not None:
            self._saver.save()
        return _json({})

    def _machine(self, instance_id: str) -> Machine:
        machine = self._cloud.machines.get(instance_id)
        if machine is None:
            raise NotFound(f"there is no instance {instance_id}")
        return machine


def _view(machine: Machine) -> dict[str, object]:
    return {
        "instance_id": machine.instance_id,
        "state": machine.state,
        "private_ip": machine.private_ip,
        "launched_at": timestamp(machine.launched_at),
        "tags": machine.tags,
        "user_data_sha256": hashlib.sha256(machine.user_data).hexdigest(),
        "data_volumes": data_volumes(machine),
    }


def _member(request: Request, name: str) -> str:
    document = request.get_json()
    if not isinstance(document, dict) or not isinstance(document.get(name), str):
        raise BadRequest(f"an object with the member {name} is expected")
    return str(document[name])


def _json(document: object, *, status: int = 200) -> Response:
    return Response(json.dumps(document), status=status, content_type="application/json")
