"""The compare-and-swap of a name, decided from what was listed."""

from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.workspace.dns_records import (
    ChangeSet,
    Claim,
    HeldByOthers,
    InSync,
    NewerHolder,
    ownership_txt_name,
    plan_upsert,
    remove,
    same_name,
)

if TYPE_CHECKING:
    from mypy_boto3_route53.type_defs import ResourceRecordSetUnionTypeDef as Record

NAME = "ws-1.boxes.test"


def claim(generation: int, attempt: int = 1, *, owner: str = "prod", workspace: str = "ws-1") -> Claim:
    return Claim(owner=owner, workspace_id=workspace, generation=generation, attempt=attempt)


def record(
    name: str, kind: 'Literal["A", "AAAA", "CNAME", "TXT", "MX"]', value: str, ttl: int = 30
) -> "Record":
    return {"Name": f"{name}.", "Type": kind, "TTL": ttl, "ResourceRecords": [{"Value": value}]}


def held(by: Claim, ip: str = "10.0.0.1") -> "list[Record]":
    return [record(NAME, "A", ip), record(ownership_txt_name(NAME), "TXT", by.text)]


def pointed(
    to: Claim, found: "list[Record]", ip: str = "10.0.0.9"
) -> InSync | NewerHolder | HeldByOthers | ChangeSet:
    return plan_upsert(NAME, to, ip=ip, ttl=30, found=found)


def actions(swap: object) -> list[tuple[str, str]]:
    assert isinstance(swap, ChangeSet)
    return [(change["Action"], change["ResourceRecordSet"]["Type"]) for change in swap.changes]


def test_a_free_name_is_created_and_never_upserted() -> None:
    assert actions(pointed(claim(1), [])) == [("CREATE", "A"), ("CREATE", "TXT")]


def test_the_next_generation_deletes_exactly_what_was_read() -> None:
    before = held(claim(1))
    swap = pointed(claim(2), before)
    assert actions(swap) == [("DELETE", "A"), ("DELETE", "TXT"), ("CREATE", "A"), ("CREATE", "TXT")]
    assert isinstance(swap, ChangeSet)
    assert [change["ResourceRecordSet"] for change in swap.changes[:2]] == before


def test_the_same_launch_at_the_same_address_is_in_sync() -> None:
    assert isinstance(pointed(claim(2), held(claim(2), "10.0.0.9")), InSync)


def test_an_address_that_comes_back_is_still_another_claim() -> None:
    # ABA: generation 3 got the address of generation 1. A writer that read generation 1 must not win.
    swap = pointed(claim(3), held(claim(1), "10.0.0.9"))
    assert actions(swap) == [("DELETE", "A"), ("DELETE", "TXT"), ("CREATE", "A"), ("CREATE", "TXT")]
    assert isinstance(swap, ChangeSet)
    deleted = [change["ResourceRecordSet"] for change in swap.changes if change["Action"] == "DELETE"]
    created = [change["ResourceRecordSet"] for change in swap.changes if change["Action"] == "CREATE"]
    assert deleted[1].get("ResourceRecords") != created[1].get("ResourceRecords")


@given(
    mine=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    theirs=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_a_name_never_goes_backwards(mine: tuple[int, int], theirs: tuple[int, int]) -> None:
    decided = pointed(claim(*mine), held(claim(*theirs)))
    assert isinstance(decided, NewerHolder) == (theirs > mine)


def test_a_removed_record_is_restored() -> None:
    assert actions(pointed(claim(1), held(claim(1))[1:])) == [
        ("DELETE", "TXT"),
        ("CREATE", "A"),
        ("CREATE", "TXT"),
    ]


def test_a_changed_record_is_corrected() -> None:
    assert len(actions(pointed(claim(1), held(claim(1), "6.6.6.6")))) == 4


@pytest.mark.parametrize(
    "found",
    [
        [record(NAME, "A", "10.0.0.1")],
        [record(NAME, "CNAME", "elsewhere.test")],
        [record(NAME, "AAAA", "::1")],
        [record(NAME, "A", "10.0.0.1"), record(ownership_txt_name(NAME), "TXT", '"hello"')],
        [record(ownership_txt_name(NAME), "CNAME", "elsewhere.test")],
        held(claim(1, owner="staging")),
        held(claim(1, workspace="ws-2")),
        [*held(claim(1)), record(NAME, "AAAA", "::1")],
        [{**record(NAME, "A", "10.0.0.1"), "SetIdentifier": "blue", "Weight": 1}, *held(claim(1))[1:]],
        [
            {
                "Name": NAME,
                "Type": "A",
                "AliasTarget": {"HostedZoneId": "Z", "DNSName": "x", "EvaluateTargetHealth": False},
            },
            *held(claim(1))[1:],
        ],
    ],
)
def test_a_name_of_another_owner_is_held_by_others(found: "list[Record]") -> None:
    assert isinstance(pointed(claim(2), found), HeldByOthers)
    assert isinstance(remove(NAME, claim(2), found=found), HeldByOthers)


def test_an_address_of_the_workspace_without_a_claim_is_healed_and_removed() -> None:
    found, ours = [record(NAME, "A", "10.0.0.1")], frozenset({"10.0.0.1", "10.0.0.2"})
    healed = plan_upsert(NAME, claim(2), ip="10.0.0.9", ttl=30, found=found, addresses=ours)
    assert actions(healed) == [("DELETE", "A"), ("CREATE", "A"), ("CREATE", "TXT")]
    assert actions(remove(NAME, claim(2), found=found, addresses=ours)) == [("DELETE", "A")]


@pytest.mark.parametrize(
    "found",
    [
        [record(NAME, "A", "10.0.0.3")],
        [
            {
                **record(NAME, "A", "10.0.0.1"),
                "ResourceRecords": [{"Value": "10.0.0.1"}, {"Value": "10.0.0.3"}],
            }
        ],
        [{**record(NAME, "A", "10.0.0.1"), "SetIdentifier": "blue", "Weight": 1}],
        [record(NAME, "A", "10.0.0.1"), record(NAME, "AAAA", "::1")],
        [record(NAME, "A", "10.0.0.1"), record(ownership_txt_name(NAME), "TXT", '"hello"')],
        held(claim(1, owner="staging")),
    ],
)
def test_no_other_record_is_taken_for_the_workspaces_own(found: "list[Record]") -> None:
    ours = frozenset({"10.0.0.1", "10.0.0.2"})
    upsert = plan_upsert(NAME, claim(2), ip="10.0.0.9", ttl=30, found=found, addresses=ours)
    assert isinstance(upsert, HeldByOthers)
    assert isinstance(remove(NAME, claim(2), found=found, addresses=ours), HeldByOthers)


def test_other_records_at_the_name_do_not_matter() -> None:
    found = [record(NAME, "MX", "10 mail.test"), record(NAME, "TXT", '"v=spf1"')]
    assert actions(pointed(claim(1), found)) == [("CREATE", "A"), ("CREATE", "TXT")]


def test_removing_deletes_both_records_of_any_generation() -> None:
    assert actions(remove(NAME, claim(0, 0), found=held(claim(7)))) == [("DELETE", "A"), ("DELETE", "TXT")]
    assert isinstance(remove(NAME, claim(0, 0), found=[]), InSync)


@given(owner=st.text(max_size=30), generation=st.integers(1, 2**31 - 1), attempt=st.integers(1, 999))
def test_a_claim_reads_back_whatever_the_owner_is_called(owner: str, generation: int, attempt: int) -> None:
    written = claim(generation, attempt, owner=owner)
    assert Claim.parse(written.text) == written
    assert written.text.isascii()


@pytest.mark.parametrize(
    "text", ["", '""', '"onebox"', "onebox owner=a", '"onebox owner=a workspace=b generation=-1 attempt=1"']
)
def test_other_texts_are_no_claims(text: str) -> None:
    assert Claim.parse(text) is None


def test_names_are_compared_without_final_dot_and_case() -> None:
    assert same_name("WS-1.Boxes.test.", NAME)
    assert not same_name("ws-10.boxes.test", NAME)
