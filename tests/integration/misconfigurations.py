"""Misconfigurations, and what `onebox doctor` reports for each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.integration.watchdog import CANARY_SECRET_KEY

NO_KEY = "ab" * 16
"""16 bytes: half of a key."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A misconfiguration and its expected report."""

    change: Mapping[str, str | None]
    """Variables; None unsets one. `{…}` is filled in from the stack."""
    check: str
    remedy: str
    also: frozenset[str] = field(default_factory=frozenset)
    """Checks that fail for the same reason."""
    denied: str = ""
    """An AWS action that is denied meanwhile."""


PLANTED = {
    "a wrong password": Planted(
        change={"DATABASE_URL": "postgresql://onebox:n0t-the-passw0rd@{database}/onebox"},
        check="database.connection",
        remedy="DATABASE_URL",
    ),
    "a database without a schema": Planted(
        change={"DATABASE_URL": "{unmigrated}"}, check="database.schema", remedy="onebox migrate"
    ),
    "another Temporal address": Planted(
        change={"TEMPORAL_ADDRESS": "127.0.0.1:{free}"},
        check="temporal.connection",
        remedy="TEMPORAL_ADDRESS",
    ),
    "a namespace that is missing": Planted(
        change={"TEMPORAL_NAMESPACE": "nobody-made-it"},
        check="temporal.namespace",
        remedy="deploy/temporal-namespace.sh",
    ),
    "a namespace without search attributes": Planted(
        change={"TEMPORAL_NAMESPACE": "{bare}"},
        check="temporal.search_attributes",
        remedy="--name WorkspacePhase --type Keyword",
    ),
    "an image that does not exist": Planted(
        change={"BOX_IMAGE_ID": "ami-00000000"},
        check="ec2.image",
        remedy="BOX_IMAGE_ID",
        also=frozenset({"ec2.RunInstances"}),
    ),
    "an instance type that does not exist": Planted(
        change={"BOX_INSTANCE_TYPES": "t3.smal"}, check="ec2.RunInstances", remedy="settings"
    ),
    "a subnet that does not exist": Planted(
        change={"BOX_SUBNET_IDS": "subnet-00000000"},
        check="ec2.subnets",
        remedy="BOX_SUBNET_IDS",
        also=frozenset({"ec2.RunInstances"}),
    ),
    "a security group that does not exist": Planted(
        change={"BOX_SECURITY_GROUP_IDS": "sg-00000000"},
        check="ec2.security_groups",
        remedy="BOX_SECURITY_GROUP_IDS",
        also=frozenset({"ec2.RunInstances"}),
    ),
    "another zone's name": Planted(
        change={"DNS_ZONE_NAME": "boxes.example"}, check="route53.zone", remedy="boxes.internal"
    ),
    "a zone that does not exist": Planted(
        change={"DNS_ZONE_ID": "ZNOBODYMADEIT"}, check="route53.zone", remedy="DNS_ZONE_ID"
    ),
    "a launch that is denied": Planted(
        change={}, denied="RunInstances", check="ec2.RunInstances", remedy="deploy/iam-policy.json"
    ),
    "DNS changes that are denied": Planted(
        change={},
        denied="ChangeResourceRecordSets",
        check="route53.change",
        remedy="deploy/iam-policy.json",
    ),
    "a register API that is nowhere": Planted(
        change={"REGISTER_API_URL": "http://127.0.0.1:{free}"},
        check="api.connection",
        remedy="REGISTER_API_URL",
    ),
    "something else in the register API's place": Planted(
        change={"REGISTER_API_URL": "{aws}"}, check="api.connection", remedy="REGISTER_API_URL"
    ),
    "a server key that is too short": Planted(
        change={"SERVER_KEYS": f"k1:{NO_KEY}"}, check="settings.SERVER_KEYS", remedy="SERVER_KEYS"
    ),
    "a server key that was taken out too early": Planted(
        change={"SERVER_KEYS": f"k2:{CANARY_SECRET_KEY}"},
        check="database.server_keys",
        remedy="SERVER_KEYS",
    ),
    "a variable that is missing": Planted(
        change={"DNS_ZONE_ID": None}, check="settings.DNS_ZONE_ID", remedy="hosted zone"
    ),
    "a command without its closing quote": Planted(
        change={"BOX_RUNTIME_COMMAND": "run 'me"}, check="box.runtime_command", remedy="quotes"
    ),
    "a deployment without a build": Planted(
        change={"TEMPORAL_DEPLOYMENT_NAME": "onebox"},
        check="settings.TEMPORAL_DEPLOYMENT_NAME",
        remedy="docs/deployment.md",
        also=frozenset({"settings.TEMPORAL_WORKER_BUILD_ID"}),
    ),
    "a build that nobody made current": Planted(
        change={"TEMPORAL_DEPLOYMENT_NAME": "nobodys", "TEMPORAL_WORKER_BUILD_ID": "7"},
        check="temporal.version",
        remedy="set-current-version --deployment-name nobodys --build-id 7",
    ),
    "two kinds of metrics on one port": Planted(
        change={"WORKER_METRICS_BIND": "127.0.0.1:9464", "SDK_METRICS_BIND": "127.0.0.1:9464"},
        check="settings.SDK_METRICS_BIND",
        remedy="SDK_METRICS_BIND",
        also=frozenset({"settings.WORKER_METRICS_BIND"}),
    ),
    "no AWS credentials": Planted(
        change={"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
        check="aws.credentials",
        remedy="AWS_ACCESS_KEY_ID",
    ),
}
