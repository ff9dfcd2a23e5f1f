"""Who holds a workspace's DNS name: the A record, its TXT companion, and the change from one box to the next.

Pure: it reads what was listed, and says what to send. The companion names workspace, generation and attempt,
so that a compare-and-swap is exact even if an address comes back (ABA), and the name never goes backwards.
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
"""What answers for the host name, or forbids an A record beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whose box a DNS name points at."""

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
        """Read a TXT record's value; None if it is no claim."""
        match = _CLAIM.fullmatch(text)
        if match is None:
            return None
        return cls(
            owner=unquote(match[1]), workspace_id=match[2], generation=int(match[3]), attempt=int(match[4])
        )

    def is_of(self, other: "Claim") -> bool:
        """Whether both are of the same workspace of the same control plane."""
        return (self.owner, self.workspace_id) == (other.owner, other.workspace_id)


@dataclass(frozen=True, slots=True)
class InSync:
    """The name points at the box already."""


@dataclass(frozen=True, slots=True)
class NewerHolder:
    """A newer launch holds the name."""

    holder: Claim


@dataclass(frozen=True, slots=True)
class HeldByOthers:
    """The name is not ours."""

    detail: str


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """One atomic batch: it fails if a record is not exactly as it was read."""

    changes: "tuple[ChangeTypeDef, ...]"


def ownership_txt_name(name: str) -> str:
    """Where the claim stands: below the name, so that it can't collide with a host's other TXT records."""
    return f"_onebox.{name}"


def host_of(name: str) -> str | None:
    """The host name whose claim would stand at this name; None if it is no such place."""
    host = name.rstrip(".").lower().removeprefix("_onebox.")
    return host if same_name(ownership_txt_name(host), name) else None


def same_name(one: str, other: str) -> bool:
    """Route 53 adds the final dot, and names have no case."""
    return one.rstrip(".").lower() == other.rstrip(".").lower()


def plan_upsert(
    name: str, claim: Claim, *, ip: str, ttl: int, found: "Iterable[ResourceRecordSetUnionTypeDef]"
) -> InSync | NewerHolder | HeldByOthers | ChangeSet:
    """What brings the name to the box of the claim."""
    holder = _holder(name, claim, list(found))
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
    name: str, claim: Claim, *, found: "Iterable[ResourceRecordSetUnionTypeDef]"
) -> InSync | HeldByOthers | ChangeSet:
    """What takes the name of a workspace away, whatever launch of it holds it."""
    holder = _holder(name, claim, list(found))
    if isinstance(holder, HeldByOthers):
        return holder
    if not holder.records:
        return InSync()
    return ChangeSet(_changes("DELETE", holder.records))


@dataclass(frozen=True, slots=True)
class _Holder:
    records: "list[ResourceRecordSetUnionTypeDef]"
    claim: Claim | None


def _holder(name: str, claim: Claim, found: "list[ResourceRecordSetUnionTypeDef]") -> _Holder | HeldByOthers:
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
        return HeldByOthers(f"{name} has {_types(addresses)} records that Onebox did not write")
    values = [value["Value"] for record in companions for value in record.get("ResourceRecords", [])]
    held = Claim.parse(values[0]) if len(values) == 1 else None
    if held is None:
        return HeldByOthers(f"{ownership_txt_name(name)} is not a claim that Onebox wrote")
    if not held.is_of(claim):
        return HeldByOthers(f"{name} is held by workspace {held.workspace_id} of owner {held.owner}")
    plain = [record for record in addresses if record["Type"] == "A" and "SetIdentifier" not in record]
    if len(plain) < len(addresses) or any("AliasTarget" in record for record in plain):
        return HeldByOthers(f"{name} has other {_types(addresses)} records beside the one that Onebox wrote")
    return _Holder([*plain, *companions], held)


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
