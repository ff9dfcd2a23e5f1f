"""ChangeResourceRecordSets as in Route 53: a batch applies completely or not at all.

moto lists the records. It accepts changes that Route 53 refuses, so this module applies them.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv4Address
from xml.etree import ElementTree

from moto.route53.models import FakeZone, RecordSet
from werkzeug.wrappers import Response

from devstack.aws.cloud import Cloud
from devstack.aws.wire import ROUTE_53_NAMESPACE, Call, Refused, all_of, read_xml, text_of, xml_answer

ACTIONS = ("CREATE", "DELETE", "UPSERT")

CLAIM_LABEL = "_onebox."
"""Prefix of the record that names the owner."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record set."""

    name: str
    """Lower case, with the final dot."""
    type: str
    ttl: int
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a batch."""

    action: str
    record: Record


def read_changes(call: Call) -> list[Change]:
    """Parse the changes of a batch. Raises `Refused`."""
    changes = [_read_change(element) for element in all_of(read_xml(call.body), "ChangeBatch/Changes/Change")]
    if not changes:
        raise Refused("InvalidInput", "A change batch has at least one change.")
    return changes


def apply_changes(cloud: Cloud, call: Call, changes: list[Change]) -> Response:
    """Apply all changes of the batch, or none. Raises `Refused`."""
    zone = cloud.route53().zones.get(call.zone_id)
    if zone is None:
        raise Refused("NoSuchHostedZone", f"No hosted zone found with ID: {call.zone_id}", status=404)
    records = {(record.name, record.type): record for record in map(_of_moto, zone.rrsets)}
    refusals = [refusal for change in changes if (refusal := _apply(records, change, zone))]
    if refusals:
        raise Refused("InvalidChangeBatch", f"[{', '.join(refusals)}]")
    zone.rrsets = []
    for record in records.values():
        zone.add_rrset(
            {
                "Name": record.name,
                "Type": record.type,
                "TTL": record.ttl,
                "ResourceRecords": list(record.values),
            }
        )
    submitted = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return xml_answer(
        f'<ChangeResourceRecordSetsResponse xmlns="{ROUTE_53_NAMESPACE}"><ChangeInfo>'
        f"<Id>/change/C{uuid.uuid4().hex[:20].upper()}</Id><Status>INSYNC</Status>"
        f"<SubmittedAt>{submitted}</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>"
    )


def workspace_of(changes: list[Change]) -> str:
    """Return the workspace of a batch: the first label of its name."""
    return workspace_in(changes[0].record.name)


def workspace_in(name: str) -> str:
    """Return the workspace of a record: its first label, without the owner prefix."""
    return name.removeprefix(CLAIM_LABEL).partition(".")[0]


def _read_change(element: ElementTree.Element) -> Change:
    action = text_of(element, "Action")
    if action not in ACTIONS:
        raise Refused("InvalidInput", f"Invalid XML ; '{action}' is none of {', '.join(ACTIONS)}.")
    name, kind = text_of(element, "ResourceRecordSet/Name"), text_of(element, "ResourceRecordSet/Type")
    ttl = text_of(element, "ResourceRecordSet/TTL")
    values = [
        text_of(record, "Value")
        for record in all_of(element, "ResourceRecordSet/ResourceRecords/ResourceRecord")
    ]
    if not name or not kind or not ttl.isdecimal() or not values:
        raise Refused(
            "InvalidInput",
            f"Expected Name, Type, TTL and ResourceRecords in Change with [Action={action}, Name={name}]",
        )
    if kind == "A":
        for value in values:
            try:
                IPv4Address(value)
            except AddressValueError:
                raise Refused(
                    "InvalidChangeBatch",
                    f"[Invalid Resource Record: 'FATAL problem: ARRDATAIllegalIPv4Address with '{value}'']",
                ) from None
    return Change(action, Record(f"{name.rstrip('.')}.".lower(), kind, int(ttl), tuple(values)))


def _apply(records: dict[tuple[str, str], Record], change: Change, zone: FakeZone) -> str | None:
    """Apply one change to `records`. Returns an error text if it is refused."""
    record = change.record
    key = (record.name, record.type)
    shown = f"resource record set [name='{record.name}', type='{record.type}']"
    if record.name != zone.name and not record.name.endswith(f".{zone.name}"):
        return f"RRSet with DNS name {record.name} is not permitted in zone {zone.name}"
    if change.action == "CREATE" and key in records:
        return f"Tried to create {shown} but it already exists"
    if change.action == "DELETE" and key not in records:
        return f"Tried to delete {shown} but it was not found"
    if change.action == "DELETE" and records[key] != record:
        return f"Tried to delete {shown} but the values provided do not match the current values"
    if change.action == "DELETE":
        del records[key]
    else:
        records[key] = record
    return None


def _of_moto(record: RecordSet) -> Record:
    values = [value["Value"] if isinstance(value, dict) else value for value in record.records]
    return Record(record.name, str(record.type), int(record.ttl or 0), tuple(values))
