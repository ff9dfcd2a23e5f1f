"""Clock skew, and the masking of secrets in findings."""

from datetime import UTC, datetime, timedelta

import pytest

from cli.doctor.model import clock_skew_seconds, failed, ok, without_secrets

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "ahead"), [(-3, -3.0), (0, 0.0), (2, 0.0), (4, 0.0), (9, 5.0)])
def test_latency_is_not_clock_skew(seconds: int, ahead: float) -> None:
    remote = NOON + timedelta(seconds=seconds)
    assert clock_skew_seconds(remote, NOON, NOON + timedelta(seconds=4)) == ahead


def test_secrets_are_masked_longest_first() -> None:
    quoted = failed("x", "postgresql://u:hunter2@host and hunter2", "see hunter2.md")
    [shown] = without_secrets([quoted], ["hunter2", "postgresql://u:hunter2@host", ""])
    assert shown.message == "*** and ***"
    assert without_secrets([ok("y", "nothing")], ["hunter2"]) == [ok("y", "nothing")]
