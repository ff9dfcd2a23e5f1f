"""Traces are on only if the environment configures them."""

import pytest

from workers.telemetry.tracing import is_enabled

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environment",
    [
        ENDPOINT,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "console, otlp"},
        ENDPOINT | {"OTEL_SDK_DISABLED": "false"},
    ],
)
def test_an_endpoint_turns_traces_on(environment: dict[str, str]) -> None:
    assert is_enabled(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
        ENDPOINT | {"OTEL_SDK_DISABLED": "True"},
    ],
)
def test_traces_are_off_without_an_endpoint_or_if_disabled(environment: dict[str, str]) -> None:
    assert not is_enabled(environment)
