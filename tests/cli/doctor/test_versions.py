"""Findings about worker versions, and about the keys of encrypted payloads."""

from cli.doctor import versions
from cli.doctor.model import Status
from cli.doctor.versions import Version

MINE, NEXT = Version("onebox", "1"), Version("onebox", "2")
REMEDY = "make it current"


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
