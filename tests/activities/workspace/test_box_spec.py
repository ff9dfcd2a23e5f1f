"""What a box is made of: defaults, overrides, offerings, and the frozen request."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.workspace import box_spec
from activities.workspace.box_spec import BoxDefaults, ResolvedSpec
from workflows.workspace.enums import CanaryPolicy
from workflows.workspace.messages import WorkspaceSpec
from workflows.workspace.state import Timings

DEFAULTS = BoxDefaults(
    image_id="ami-default",
    instance_types=("t3.micro", "t3.small"),
    subnet_ids=("subnet-a", "subnet-b", "subnet-c"),
    security_group_ids=("sg-1",),
    register_api_url="http://register.test",
    runtime_command="runtime",
    runtime_user="agent",
    runtime_port=8000,
    configs_dir="/configs",
    timings=Timings(recreate_grace=timedelta(seconds=7)),
)


def resolved(spec: WorkspaceSpec) -> ResolvedSpec:
    return box_spec.resolve(DEFAULTS, box_spec.overrides(spec))


def test_an_empty_spec_takes_the_defaults() -> None:
    spec = resolved(WorkspaceSpec())
    assert (spec.image_id, spec.instance_types) == ("ami-default", ("t3.micro", "t3.small"))
    assert spec.timings == DEFAULTS.timings
    assert box_spec.overrides(WorkspaceSpec()) == {}


def test_a_spec_changes_only_what_it_names() -> None:
    spec = resolved(
        WorkspaceSpec(
            image_id="ami-own", register_deadline_seconds=90, canary=CanaryPolicy.OFF, security_group_ids=()
        )
    )
    assert spec.image_id == "ami-own"
    assert spec.security_group_ids == ()
    assert spec.subnet_ids == DEFAULTS.subnet_ids
    assert spec.timings == Timings(
        register_deadline=timedelta(seconds=90), recreate_grace=timedelta(seconds=7), canary=CanaryPolicy.OFF
    )


def test_a_stored_spec_reads_back_the_same() -> None:
    spec = resolved(WorkspaceSpec(register_deadline_seconds=0.5))
    assert box_spec.load(box_spec.dump(spec)) == spec


def test_attempts_go_through_all_subnets_of_a_type_cyclically() -> None:
    spec = resolved(WorkspaceSpec())
    assert spec.offerings == 6
    assert [spec.offering(attempt) for attempt in range(1, 8)] == [
        ("t3.micro", "subnet-a"),
        ("t3.micro", "subnet-b"),
        ("t3.micro", "subnet-c"),
        ("t3.small", "subnet-a"),
        ("t3.small", "subnet-b"),
        ("t3.small", "subnet-c"),
        ("t3.micro", "subnet-a"),
    ]


@given(
    types=st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=4, unique=True),
    subnets=st.lists(st.text(min_size=1, max_size=3), max_size=4, unique=True),
    start=st.integers(1, 50),
)
def test_every_offering_comes_up_once_in_a_round(types: list[str], subnets: list[str], start: int) -> None:
    spec = ResolvedSpec(
        image_id="ami-1",
        instance_types=tuple(types),
        subnet_ids=tuple(subnets),
        security_group_ids=(),
        runtime_port=1,
        timings=Timings(),
    )
    round_of = [spec.offering(start + number) for number in range(spec.offerings)]
    assert len(set(round_of)) == spec.offerings == len(types) * max(1, len(subnets))


@pytest.mark.parametrize("kind", ["instance", "volume", "network-interface"])
def test_the_request_tags_everything_that_a_launch_makes(kind: str) -> None:
    request = box_spec.run_instances_request(
        resolved(WorkspaceSpec()), owner="prod", workspace_id="ws", generation=4, attempt=2
    )
    specifications = request["TagSpecifications"]
    assert isinstance(specifications, list)
    (tags,) = [one["Tags"] for one in specifications if one["ResourceType"] == kind]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "Name": "ws",
        "onebox:owner": "prod",
        "onebox:workspace": "ws",
        "onebox:generation": "4",
        "onebox:attempt": "2",
    }


def test_the_request_guards_the_user_data_and_ends_with_the_box() -> None:
    request = box_spec.run_instances_request(
        resolved(WorkspaceSpec()), owner="prod", workspace_id="ws", generation=1, attempt=1
    )
    assert request["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert request["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert (request["MinCount"], request["MaxCount"]) == (1, 1)
    assert (request["InstanceType"], request["SubnetId"]) == ("t3.micro", "subnet-a")
    assert request["SecurityGroupIds"] == ["sg-1"]


def test_what_is_not_set_is_left_to_ec2() -> None:
    spec = ResolvedSpec(
        image_id="ami-1",
        instance_types=("t3.micro",),
        subnet_ids=(),
        security_group_ids=(),
        runtime_port=1,
        timings=Timings(),
    )
    request = box_spec.run_instances_request(spec, owner="o", workspace_id="ws", generation=1, attempt=1)
    assert "SubnetId" not in request
    assert "SecurityGroupIds" not in request
