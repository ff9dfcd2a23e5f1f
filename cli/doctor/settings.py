"""Reads the settings of all processes and reports invalid ones.

An invalid variable gets a placeholder, so that the checks of the other variables can run.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from pydantic import AliasChoices, ValidationError
from pydantic_settings import BaseSettings

from cli.codec.settings import CodecSettings
from cli.doctor.model import Finding, Process, failed, ok, warning
from workers.settings.api import ApiSettings
from workers.settings.common import StoreSettings
from workers.settings.worker import WorkerSettings

SETTINGS_CLASSES: Mapping[Process, type[BaseSettings]] = {
    Process.WORKER: WorkerSettings,
    Process.API: ApiSettings,
    Process.MIGRATE: StoreSettings,
    Process.CODEC: CodecSettings,
}

REQUIRED_PROCESSES = (Process.WORKER, Process.API, Process.MIGRATE)
"""The codec server is optional: it is for encrypted payloads."""

PLACEHOLDERS: Mapping[str, object] = {
    "database_url": "postgresql://unusable.invalid/",
    "server_keys": f"unusable:{'00' * 32}",
    "register_api_url": "http://unusable.invalid",
    "dns_zone_id": "unusable",
    "dns_zone_name": "unusable.invalid",
    "box_image_id": "unusable",
    "box_runtime_command": "unusable",
    "codec_token_hashes": ("0" * 64,),
}
"""Placeholders for settings without a default."""

MIN_SIMILARITY = 0.9
"""`BOX_SUBNET_ID` is a typo of `BOX_SUBNET_IDS`; `HEARTBEAT_SECONDS` is a variable of boxes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """The settings by process; None if a process is not checked, or its settings contradict each other."""

    worker: WorkerSettings | None
    api: ApiSettings | None
    store: StoreSettings | None
    invalid: frozenset[str] = frozenset()
    """The variables with a placeholder instead of their value."""
    findings: tuple[Finding, ...] = field(default=())

    def usable(self, *variables: str) -> bool:
        """Whether all these variables are valid."""
        return self.invalid.isdisjoint(variables)


@dataclass(frozen=True, slots=True)
class _Fault:
    variable: str
    message: str


def read(processes: Collection[Process]) -> LoadedSettings:
    """Read the settings of these processes from the environment."""
    faults: dict[_Fault, list[Process]] = defaultdict(list)
    values: dict[Process, BaseSettings | None] = {}
    for process in Process:
        if process in processes:
            values[process], found = _read(SETTINGS_CLASSES[process])
            for fault in found:
                faults[fault].append(process)
    worker, api = values.get(Process.WORKER), values.get(Process.API)
    store = next((each for each in values.values() if isinstance(each, StoreSettings)), None)
    return LoadedSettings(
        worker=worker if isinstance(worker, WorkerSettings) else None,
        api=api if isinstance(api, ApiSettings) else None,
        store=store,
        invalid=frozenset(fault.variable for fault in faults),
        findings=(
            *_fault_findings(faults),
            *_valid(processes, faults),
            *misspelled_variables(os.environ, known_variables()),
        ),
    )


def default_processes(environment: Mapping[str, str]) -> tuple[Process, ...]:
    """The processes to check by default; the codec server only if its settings are there."""
    codec = environment.get("CODEC_TOKEN_HASHES") and environment.get("PAYLOAD_KEYS")
    return (*REQUIRED_PROCESSES, Process.CODEC) if codec else REQUIRED_PROCESSES


def known_variables() -> frozenset[str]:
    """The variables of all settings classes."""
    return frozenset(name for kind in SETTINGS_CLASSES.values() for name in variables_of(kind))


def variables_of(kind: type[BaseSettings]) -> dict[str, str]:
    """The variables of a settings class with their descriptions."""
    meanings: dict[str, str] = {}
    for name, info in kind.model_fields.items():
        alias = info.validation_alias
        names = [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else [name.upper()]
        meanings |= dict.fromkeys(names, " ".join((info.description or "").split()))
    return meanings


def misspelled_variables(environment: Iterable[str], known: Collection[str]) -> Iterator[Finding]:
    """Warnings for unknown variables that look like a known one."""
    for name in sorted(set(environment) - set(known)):
        likely = get_close_matches(name.upper(), known, n=1, cutoff=MIN_SIMILARITY)
        if likely and likely[0] != name.upper():
            yield warning(
                f"settings.{name}",
                "no process reads this variable",
                f"Did you mean {likely[0]}?",
                name,
            )


def _read(kind: type[BaseSettings]) -> tuple[BaseSettings | None, list[_Fault]]:
    try:
        return kind(), []
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    invalid = [(name, each["msg"]) for each in errors for name in _names(kind, each["loc"], each["msg"])]
    faults = [_Fault(name.upper(), _message(message)) for name, message in invalid]
    instead = {name: _placeholder(kind, name) for name, _ in invalid}
    try:
        return kind(**instead), faults  # type: ignore[arg-type]  # pydantic validates them
    except ValidationError:
        return None, faults  # the valid values contradict each other


def _names(kind: type[BaseSettings], place: tuple[int | str, ...], message: str) -> tuple[str, ...]:
    """The settings of a fault: by its location, or for a fault of several settings by its message."""
    if place:
        return (str(place[0]),)
    return tuple(name for name in kind.model_fields if name.upper() in message)


def _placeholder(kind: type[BaseSettings], name: str) -> object:
    info = kind.model_fields.get(name)
    if info is None or info.is_required():
        return PLACEHOLDERS.get(name)
    return info.default


def _message(message: str) -> str:
    """Pydantic's message, to be read after the variable's name."""
    return "not set" if message == "Field required" else message.removeprefix("Value error, ")


def _fault_findings(faults: Mapping[_Fault, list[Process]]) -> Iterator[Finding]:
    meanings = {name: text for kind in SETTINGS_CLASSES.values() for name, text in variables_of(kind).items()}
    for fault, processes in faults.items():
        yield failed(
            f"settings.{fault.variable}",
            f"{fault.message} ({', '.join(processes)})",
            f"Set {fault.variable}: {meanings.get(fault.variable, 'see docs/settings.md')}",
            fault.variable,
        )


def _valid(processes: Collection[Process], faults: Mapping[_Fault, list[Process]]) -> Iterator[Finding]:
    broken = {process for read_by in faults.values() for process in read_by}
    for process in Process:
        if process in processes and process not in broken:
            yield ok(
                f"settings.{process}", f"{len(variables_of(SETTINGS_CLASSES[process]))} variables are valid"
            )
