"""What the doctor makes of worker versions, and of the keys of what Temporal holds."""

import pytest

from cli.doctor.checks import version
from cli.doctor.checks.version import Version
from cli.doctor.model import Status

MINE, NEXT = Version("onebox", "1"), Version("onebox", "2")
REMEDY = "make it current"


def test_a_build_that_is_current_is_well() -> None:
    assert version.versioned(MINE, MINE, remedy=REMEDY).status is Status.OK


def test_without_a_current_build_all_waits_and_the_command_is_named() -> None:
    finding = version.versioned(MINE, None, remedy=REMEDY)
    assert finding.status is Status.FAILED
    assert REMEDY in finding.remedy


def test_a_build_beside_the_current_one_is_an_upgrade_and_no_failure() -> None:
    finding = version.versioned(MINE, NEXT, remedy=REMEDY)
    assert finding.status is Status.WARNING
    assert "build 2 of onebox is current" in finding.message
    assert REMEDY in finding.remedy


def test_a_worker_without_a_version_is_warned_of_a_current_one() -> None:
    assert version.unversioned(None).status is Status.OK
    finding = version.unversioned(NEXT)
    assert finding.status is Status.WARNING
    assert "--deployment-name onebox --unversioned" in finding.remedy


def test_a_server_that_knows_no_deployments_is_said() -> None:
    finding = version.no_versions(MINE, "unknown method")
    assert finding.status is Status.FAILED
    assert "1.28" in finding.remedy
    assert set(finding.variables) == {"TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"}


@pytest.mark.parametrize(
    ("seen", "status"),
    [({}, Status.OK), ({"k1": 7}, Status.OK), ({"k1": 7, "k0": 2}, Status.FAILED)],
)
def test_a_key_that_running_workspaces_need_is_missed(seen: dict[str, int], status: Status) -> None:
    finding = version.payload_keys(seen, {"k1", "k2"}, sampled=9)
    assert finding.status is status
    assert ("'k0'" in finding.remedy) is (status is Status.FAILED)
