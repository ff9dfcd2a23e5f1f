"""Findings about worker versions, and about the keys of encrypted payloads."""

import pytest

from cli.doctor import versions
from cli.doctor.model import Status
from cli.doctor.versions import Version

MINE, NEXT = Version("onebox", "1"), Version("onebox", "2")
REMEDY = "make it current"


def test_a_current_build_is_ok() -> None:
    assert versions.check_version(MINE, MINE, remedy=REMEDY).status is Status.OK


def test_without_a_current_build_the_command_is_named() -> None:
    finding = versions.check_version(MINE, None, remedy=REMEDY)
    assert finding.status is Status.FAILED
    assert REMEDY in finding.remedy


def test_another_current_build_is_a_warning() -> None:
    finding = versions.check_version(MINE, NEXT, remedy=REMEDY)
    assert finding.status is Status.WARNING
    assert "build 2 of onebox is current" in finding.message
    assert REMEDY in finding.remedy


def test_an_unversioned_worker_is_warned_of_a_current_build() -> None:
    assert versions.check_unversioned(None).status is Status.OK
    finding = versions.check_unversioned(NEXT)
    assert finding.status is Status.WARNING
    assert "--deployment-name onebox --unversioned" in finding.remedy


def test_a_server_without_worker_deployments_fails() -> None:
    finding = versions.check_unsupported(MINE, "unknown method")
    assert finding.status is Status.FAILED
    assert "1.28" in finding.remedy
    assert set(finding.variables) == {"TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"}


@pytest.mark.parametrize(
    ("counts", "status"),
    [({}, Status.OK), ({"k1": 7}, Status.OK), ({"k1": 7, "k0": 2}, Status.FAILED)],
)
def test_a_missing_key_of_running_workspaces_fails(counts: dict[str, int], status: Status) -> None:
    finding = versions.check_payload_keys(counts, {"k1", "k2"}, sampled=9)
    assert finding.status is status
    assert ("'k0'" in finding.remedy) is (status is Status.FAILED)
