"""Plans the DNS changes of a workspace: an A record, and a TXT record with the launch that owns it. Pure.

The TXT record contains workspace, generation and attempt. It makes the compare-and-swap exact even if an
address is reused (ABA), and keeps a late attempt from pointing the name back to an older box. If somebody
deletes it, an A record with an address of one of the workspace's boxes still counts as the workspace's.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mypy_boto3_route53.type_defs import ChangeTypeDef, ResourceRecordSetUnionTypeDef

_CLAIM = re.compile(
    r'"onebox owner=([^ "]*) workspace=([^ "]*) generation=([0-9]{1,10}) attempt=([0-9]{1,10})"'
)

_EXCLUSIVE = frozenset({"A", "AAAA", "CNAME"})
"""Record types that resolve the host name or exclude an A record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The launch that owns a DNS name."""

    owner: str
    workspace_id: str
    generation: int
    attempt: int

    @property
    def text(self) -> str:
        """The value of the TXT record."""
        return (
            f'"onebox owner={quote(self.owner, safe="")} workspace={self.workspace_id} '
            f'generation={self.generation} attempt={self.attempt}"'
        )

    @classmethod
    def parse(cls, text: str) -> "Claim | None":
        """Parse the value of a TXT record; None if it is not a claim."""
        match = _CLAIM.fullmatch(text)
        if match is None:
            return None
        return cls(
            owner=unquote(match[1]), workspace_id=match[2], generation=int(match[3]), attempt=int(match[4])
        )

    def is_of(self, other: "Claim") -> bool:
        """Whether both claims are of the same workspace of the same control plane."""
        return (self.owner, self.workspace_id) == (other.owner, other.workspace_id)


@dataclass(frozen=True, slots=True)
class InSync:
    """The records are as wanted."""


@dataclass(frozen=True, slots=True)
class NewerHolder:
    """A newer launch owns the name."""

    holder: Claim


@dataclass(frozen=True, slots=True)
class HeldByOthers:
    """The name has records that this workspace does not own."""

    detail: str


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """One atomic change batch. Route 53 rejects it if a record differs from what was read."""

    changes: "tuple[ChangeTypeDef, ...]"


def ownership_txt_name(name: str) -> str:
    """The name of the claim's TXT record, below the host name to avoid its other TXT records."""
    return f"_onebox.{name}"


def host_of(name: str) -> str | None:
    """The host name that a claim at this name is for; None if it is not a name of a claim."""
    host = name.rstrip(".").lower().removeprefix("_onebox.")
    return host if same_name(ownership_txt_name(host), name) else None


def same_name(one: str, other: str) -> bool:
    """Compare DNS names: Route 53 adds the final dot, and names are case-insensitive."""
    return one.rstrip(".").lower() == other.rstrip(".").lower()


def plan_upsert(
    name: str,
    claim: Claim,
    *,
    ip: str,
    ttl: int,
    found: "Iterable[ResourceRecordSetUnionTypeDef]",
    addresses: frozenset[str] = frozenset(),
) -> InSync | NewerHolder | HeldByOthers | ChangeSet:
    """The change that points the name at the claim's box. `addresses` are those of all its boxes."""
    holder = _holder(name, claim, list(found), addresses)
    if isinstance(holder, HeldByOthers):
        return holder
    wanted: list[ResourceRecordSetUnionTypeDef] = [
        {"Name": name, "Type": "A", "TTL": ttl, "ResourceRecords": [{"Value": ip}]},
        {
            "Name": ownership_txt_name(name),
            "Type": "TXT",
            "TTL": ttl,
            "ResourceRecords": [{"Value": claim.text}],
        },
    ]
    if holder.claim is not None:
        if (holder.claim.generation, holder.claim.attempt) > (claim.generation, claim.attempt):
            return NewerHolder(holder=holder.claim)
        if [_content(record) for record in holder.records] == [_content(record) for record in wanted]:
            return InSync()
    return ChangeSet((*_changes("DELETE", holder.records), *_changes("CREATE", wanted)))


def remove(
    name: str,
    claim: Claim,
    *,
    found: "Iterable[ResourceRecordSetUnionTypeDef]",
    addresses: frozenset[str] = frozenset(),
) -> InSync | HeldByOthers | ChangeSet:
    """The change that removes the workspace's name, whichever of its launches owns it."""
    holder = _holder(name, claim, list(found), addresses)
    if isinstance(holder, HeldByOthers):
        return holder
    if not holder.records:
        return InSync()
    return ChangeSet(_changes("DELETE", holder.records))


@dataclass(frozen=True, slots=True)
class _Holder:
    records: "list[ResourceRecordSetUnionTypeDef]"
    claim: Claim | None


def _holder(
    name: str, claim: Claim, found: "list[ResourceRecordSetUnionTypeDef]", ours: frozenset[str]
) -> _Holder | HeldByOthers:
    addresses = [
        record for record in found if same_name(record["Name"], name) and record["Type"] in _EXCLUSIVE
    ]
    companions = [
        record
        for record in found
        if same_name(record["Name"], ownership_txt_name(name)) and record["Type"] in ("TXT", "CNAME")
    ]
    if not addresses and not companions:
        return _Holder([], None)
    if not companions:
        if all(_points_to(record, ours) for record in addresses):
            return _Holder(addresses, None)  # somebody deleted the claim
        return HeldByOthers(f"{name} has {_types(addresses)} records that Onebox did not write")
    values = [value["Value"] for record in companions for value in record.get("ResourceRecords", [])]
    owner = Claim.parse(values[0]) if len(values) == 1 else None
    if owner is None:
        return HeldByOthers(f"{ownership_txt_name(name)} is not a claim written by Onebox")
    if not owner.is_of(claim):
        return HeldByOthers(
            f"{name} belongs to workspace {owner.workspace_id} of control plane {owner.owner}"
        )
    if not all(map(_is_plain, addresses)):
        return HeldByOthers(
            f"{name} has other {_types(addresses)} records in addition to the one that Onebox wrote"
        )
    return _Holder([*addresses, *companions], owner)


def _is_plain(record: "ResourceRecordSetUnionTypeDef") -> bool:
    return record["Type"] == "A" and "SetIdentifier" not in record and "AliasTarget" not in record


def _points_to(record: "ResourceRecordSetUnionTypeDef", addresses: frozenset[str]) -> bool:
    values = {value["Value"] for value in record.get("ResourceRecords", [])}
    return _is_plain(record) and values <= addresses


def _changes(action: str, records: "list[ResourceRecordSetUnionTypeDef]") -> "tuple[ChangeTypeDef, ...]":
    return tuple(
        {"Action": "DELETE" if action == "DELETE" else "CREATE", "ResourceRecordSet": record}
        for record in records
    )


def _content(record: "ResourceRecordSetUnionTypeDef") -> tuple[str, int, list[str]]:
    values = [value["Value"] for value in record.get("ResourceRecords", [])]
    return record["Type"], record.get("TTL", 0), values


def _types(records: "list[ResourceRecordSetUnionTypeDef]") -> str:
    return ", ".join(sorted({record["Type"] for record in records}))
