"""Generates the settings reference from the settings classes.

`python -m cli.settings_reference > docs/settings.md` writes it; a test compares the result.
"""

import sys
from collections.abc import Iterator

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from cli.codec.settings import CodecSettings
from workers.settings.api import ApiSettings
from workers.settings.common import PayloadSettings, StoreSettings
from workers.settings.worker import WorkerSettings

INTRODUCTION = """# Settings

All settings are environment variables. With a missing or invalid setting, a process exits at its start with
code 2 and an error that names the variable. The worker also reads Temporal's standard `TEMPORAL_*`
variables and profiles (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`, `TEMPORAL_TLS*` …)
and AWS's (credentials, `AWS_ENDPOINT_URL` …). Worker and register API read OpenTelemetry's `OTEL_…`
variables ([traces](telemetry.md#traces)).

`onebox doctor` checks the settings of all processes, or with `--for` those of one.

| variable | read by | default | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The whole page as Markdown."""
    return INTRODUCTION + "".join(f"{row}\n" for row in _rows())


def _rows() -> Iterator[str]:
    fields: dict[str, FieldInfo] = {}
    for settings in (StoreSettings, PayloadSettings, WorkerSettings, ApiSettings, CodecSettings):
        for name, field in settings.model_fields.items():
            fields.setdefault(name, field)
    for name, field in fields.items():
        readers = [
            process
            for process, settings in (
                ("worker", WorkerSettings),
                ("api", ApiSettings),
                ("migrate", StoreSettings),
                ("codec", CodecSettings),
                ("replay", PayloadSettings),
            )
            if name in settings.model_fields
        ]
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| {_variable(name, field)} | {', '.join(readers)} | {_default(field)} | {meaning} |"


def _variable(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [name.upper()]
    return " or ".join(f"`{each}`" for each in names)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default is None:
        return "unset"
    if field.default == SecretStr(""):
        return "empty"
    if isinstance(field.default, tuple):
        return f"`{','.join(field.default)}`" if field.default else "empty"
    return f"`{field.default}`"


if __name__ == "__main__":
    sys.stdout.write(page())
