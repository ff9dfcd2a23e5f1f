"""The IAM policy allows exactly what the code needs."""

import re

from activities.aws import ebs
from activities.workspace import box_spec
from activities.workspace.box_spec import BoxDefaults, resolve
from tests.deploy.policy import FREE, ROOT, WITH_TAGS, allowed_actions, named_actions, statements, words
from workflows.workspace.messages import DataVolume

DEFAULTS = BoxDefaults(
    image_id="ami-1",
    instance_types=("t3.small",),
    register_api_url="https://api.example",
    runtime_command="run",
    runtime_user="agent",
    runtime_port=8000,
    configs_dir="/configs",
)

CREATING = {"ec2:RunInstances", "ec2:CreateVolume", "ec2:CreateSnapshot"}


def test_known_calls_are_found_in_the_code() -> None:
    assert {
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "ec2:DescribeInstances",
        "ec2:DescribeVolumes",
        "ec2:DeleteSnapshot",
        "route53:ListResourceRecordSets",
        "route53:ChangeResourceRecordSets",
        "sts:GetCallerIdentity",
    } <= named_actions()


def test_exactly_the_calls_of_the_code_are_allowed() -> None:
    assert allowed_actions() - WITH_TAGS == named_actions() - FREE


def test_only_reading_is_allowed_without_naming_resources() -> None:
    for statement in statements():
        if "*" in words(statement["Resource"]):
            assert all(action.startswith("ec2:Describe") for action in words(statement["Action"]))


def test_no_action_is_a_wildcard() -> None:
    assert not [action for action in allowed_actions() if "*" in action or "?" in action]


def test_destructive_calls_require_our_tag() -> None:
    for statement in statements():
        actions = words(statement["Action"])
        if any(re.match("ec2:(Terminate|Delete|Attach|Detach)", action) for action in actions):
            assert statement["Condition"] == {"StringEquals": {"ec2:ResourceTag/onebox:owner": "${Owner}"}}


def test_tags_are_allowed_only_at_creation() -> None:
    [tagging] = [one for one in statements() if "ec2:CreateTags" in words(one["Action"])]
    condition = tagging["Condition"]
    assert isinstance(condition, dict)
    assert {f"ec2:{action}" for action in condition["StringEquals"]["ec2:CreateAction"]} == CREATING


def test_the_launch_tags_every_resource_that_requires_a_tag() -> None:
    request = box_spec.run_instances_request(
        resolve(DEFAULTS, {}), owner="acme", workspace_id="ws-1", generation=1, attempt=1
    )
    assert kinds_with_owner(request["TagSpecifications"]) == kinds_to_tag("ec2:RunInstances")


def test_a_data_volume_has_the_required_tags() -> None:
    request = ebs.create_volume_request(DataVolume(size_gib=1), zone="a", owner="acme", workspace_id="ws-1")
    assert kinds_with_owner(request["TagSpecifications"]) == kinds_to_tag("ec2:CreateVolume")


def test_every_placeholder_is_explained() -> None:
    text = (ROOT / "deploy" / "iam-policy.json").read_text()
    page = (ROOT / "docs" / "iam.md").read_text()
    assert set(re.findall(r"\$\{\w+\}", text)) == set(re.findall(r"\$\{\w+\}", page))


def kinds_to_tag(action: str) -> set[str]:
    """The resource types that may be created only with our tag."""
    return {
        resource.rpartition(":")[2].removesuffix("/*")
        for statement in statements()
        if action in words(statement["Action"]) and "aws:RequestTag" in str(statement.get("Condition"))
        for resource in words(statement["Resource"])
    }


def kinds_with_owner(tagged: object) -> set[str]:
    assert isinstance(tagged, list)
    return {
        str(one["ResourceType"]) for one in tagged if {"Key": "onebox:owner", "Value": "acme"} in one["Tags"]
    }
