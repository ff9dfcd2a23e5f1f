"""Findings about a Temporal server, derived from its responses."""

from datetime import timedelta

import pytest

from cli.doctor import temporal
from cli.doctor.model import Status


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("Unauthenticated: Request unauthorized", "TEMPORAL_API_KEY"),
        ("transport error: received corrupt message of type InvalidContentType", "TEMPORAL_TLS"),
        ("tcp connect error: Connection refused", "TEMPORAL_ADDRESS"),
    ],
)
def test_a_connection_error_names_its_variable(text: str, variable: str) -> None:
    assert temporal.connection_error(text, "cloud.example:7233").variables == (variable,)


def test_a_short_retention_is_a_warning_outside_development() -> None:
    day = timedelta(days=1)
    assert temporal.check_retention("default", day, development=True).status is Status.OK
    assert temporal.check_retention("default", day, development=False).status is Status.WARNING


def test_a_search_attribute_of_the_wrong_type_fails() -> None:
    wanted = {"WorkspaceGeneration": "Int"}
    finding = temporal.check_search_attributes(wanted, {"WorkspaceGeneration": "Keyword"})
    assert finding.status is Status.FAILED
