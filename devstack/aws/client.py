"""Client of the endpoint's control API (faults, journal, counts, instances), without loading moto.

AWS requests go through boto3.
"""

import gzip
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import httpx2

from devstack.aws.values import JSON, Counts, Entry, FaultKind, FaultStatus, Info, InstanceView

POLL_SECONDS = 0.02

GZIP_MAGIC = b"\x1f\x8b"

CALL_SECONDS = 60.0
"""Calls take milliseconds on an idle machine."""

WAIT_SECONDS = 120.0


class EndpointRefused(RuntimeError):
    """The endpoint refused a request; the text gives the reason."""


class AwsEndpoint:
    """One AWS endpoint of the devstack. Thread-safe."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx2.Client(base_url=url, timeout=CALL_SECONDS, trust_env=False)

    def inject(
        self,
        action: str,
        fault: FaultKind | str,
        *,
        code: str | None = None,
        message: str | None = None,
        status: int | None = None,
        seconds: float | None = None,
        times: int | None = 1,
        workspace: str | None = None,
    ) -> str:
        """Inject a fault, by default for one request (`times=None`: until cleared). Returns its ID."""
        members: JSON = {
            "action": action,
            "fault": str(fault),
            "code": code,
            "message": message,
            "status": status,
            "seconds": seconds,
            "times": times,
            "workspace": workspace,
        }
        given = {name: value for name, value in members.items() if value is not None}
        return str(_object(self._send("POST", "/_onebox/faults", json=given))["id"])

    def faults(self) -> list[FaultStatus]:
        """The injected faults and their effects."""
        return [FaultStatus.from_json(item) for item in _objects(self._send("GET", "/_onebox/faults"))]

    def fault(self, fault_id: str) -> FaultStatus:
        """Return one fault. Raises `EndpointRefused` if it was cleared."""
        for status in self.faults():
            if status.id == fault_id:
                return status
        raise EndpointRefused(f"{fault_id} is not armed")

    def wait_until_held(self, fault_id: str, *, seconds: float = WAIT_SECONDS) -> None:
        """Wait until a `hold` fault holds a response; its effect is done. Raises `TimeoutError`."""
        self._wait(lambda: self.fault(fault_id).holding > 0, seconds, f"{fault_id} holds no answer")

    def wait_until_used(self, fault_id: str, *, times: int = 1, seconds: float = WAIT_SECONDS) -> None:
        """Wait until a fault has affected this many requests. Raises `TimeoutError`."""
        self._wait(lambda: self.fault(fault_id).used >= times, seconds, f"{fault_id} was not used")

    def release(self, fault_id: str) -> None:
        """Release the responses that a fault holds, and clear it."""
        self._send("POST", "/_onebox/faults/release", json={"id": fault_id})

    def clear(self) -> None:
        """Clear all faults, and release the responses that they hold."""
        self._send("DELETE", "/_onebox/faults")

    def journal(self, *, workspace: str | None = None, since: int = 0) -> list[Entry]:
        """Return the journal entries after the entry numbered `since`."""
        parameters: dict[str, str] = {"since": str(since)} | ({"workspace": workspace} if workspace else {})
        return [
            Entry.from_json(item)
            for item in _objects(self._send("GET", "/_onebox/journal", query=parameters))
        ]

    def counts(self, workspace: str | None = None) -> Counts:
        """Return counts of the effects."""
        query = {"workspace": workspace} if workspace else {}
        return Counts(**_object(self._send("GET", "/_onebox/counts", query=query)))  # type: ignore[arg-type]

    def calls(self, workspace: str | None = None) -> dict[str, int]:
        """Return production code's requests per IAM action, including reads and dry runs."""
        query = {"workspace": workspace} if workspace else {}
        answer = _object(self._send("GET", "/_onebox/calls", query=query))
        return {action: int(str(number)) for action, number in answer.items()}

    def instances(self, workspace: str | None = None) -> list[InstanceView]:
        """Return the instances, including those that ended within the last hour."""
        views = [
            InstanceView(**item | {"data_volumes": tuple(map(str, item["data_volumes"]))})  # type: ignore[arg-type, call-overload]
            for item in _objects(self._send("GET", "/_onebox/instances"))
        ]
        return [view for view in views if workspace is None or view.workspace == workspace]

    def user_data(self, instance_id: str) -> str:
        """The user data of an instance, decompressed as cloud-init does."""
        content = self._send("GET", f"/_onebox/instances/{instance_id}/user-data").content
        return (gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content).decode()

    def shutdown(self, instance_id: str) -> None:
        """Power an instance off from inside."""
        self._send("POST", "/_onebox/shutdown", json={"instance_id": instance_id})

    def info(self) -> Info:
        """Return the hosted zone and the other values that a control plane needs."""
        document = _object(self._send("GET", "/_onebox/info"))
        subnets = document.pop("subnet_ids")
        assert isinstance(subnets, list)  # noqa: S101
        return Info(subnet_ids=tuple(map(str, subnets)), **document)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> "AwsEndpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        query: dict[str, str] | None = None,
    ) -> httpx2.Response:
        response = self._client.request(method, path, json=json, params=query)
        if response.is_error:
            raise EndpointRefused(f"{method} {path}: {response.status_code} {response.text}")
        return response

    @staticmethod
    def _wait(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise} within {seconds:g} s")
            time.sleep(POLL_SECONDS)


def _object(response: httpx2.Response) -> JSON:
    document = response.json()
    assert isinstance(document, dict)  # noqa: S101
    return document


def _objects(response: httpx2.Response) -> list[JSON]:
    document = response.json()
    assert isinstance(document, list)  # noqa: S101
    return document
