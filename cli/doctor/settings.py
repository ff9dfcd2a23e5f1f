"""Reading the settings of all processes, also where some cannot be used: the others are still of use.

A variable that is missing or wrong is named, and gets a stand-in that no check looks at.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from pydantic import AliasChoices, ValidationError
from pydantic_core import PydanticUndefined
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
"""Without these there is no Onebox; a codec server is for those who encrypt, and want to see."""

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
"""For settings that have no default."""

MIN_SIMILARITY = 0.9
"""`BOX_SUBNET_ID` is meant to be `BOX_SUBNET_IDS`; `HEARTBEAT_SECONDS` is a variable of the boxes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """What the environment says; None for a process that wasn't asked about, or can't be read at all."""

    worker: WorkerSettings | None
    api: ApiSettings | None
    store: StoreSettings | None
    invalid: frozenset[str] = frozenset()
    """The variables that have a stand-in instead of a value."""
    findings: tuple[Finding, ...] = field(default=())

    def usable(self, *variables: str) -> bool:
        """Whether all of these have values of their own."""
        return self.invalid.isdisjoint(variables)


@dataclass(frozen=True, slots=True)
class _Fault:
    variable: str
    message: str


def read(processes: Collection[Process]) -> LoadedSettings:
    """Read the environment for these processes."""
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
            *_usable(processes, faults),
            *misspelled_variables(os.environ, known_variables()),
        ),
    )


def default_processes(environment: Mapping[str, str]) -> tuple[Process, ...]:
    """Whom the environment is for, if nobody says so: a codec server only if it has something to show."""
    shown = environment.get("CODEC_TOKEN_HASHES") and environment.get("PAYLOAD_KEYS")
    return (*REQUIRED_PROCESSES, Process.CODEC) if shown else REQUIRED_PROCESSES


def known_variables() -> frozenset[str]:
    """The variables of all settings classes."""
    return frozenset(name for kind in SETTINGS_CLASSES.values() for name in variables_of(kind))


def variables_of(kind: type[BaseSettings]) -> dict[str, str]:
    """The variables that a class reads, each with its meaning."""
    meanings: dict[str, str] = {}
    for name, info in kind.model_fields.items():
        alias = info.validation_alias
        names = [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else [name.upper()]
        meanings |= dict.fromkeys(names, " ".join((info.description or "").split()))
    return meanings


def misspelled_variables(environment: Iterable[str], known: Collection[str]) -> Iterator[Finding]:
    """Variables that nobody reads, and that look like one that somebody does."""
    for name in sorted(set(environment) - set(known)):
        likely = get_close_matches(name.upper(), known, n=1, cutoff=MIN_SIMILARITY)
        if likely and likely[0] != name.upper():
            yield warning(
                f"settings.{name}",
                "no process reads this variable",
                f"Is {likely[0]} meant?",
                name,
            )


def _read(kind: type[BaseSettings]) -> tuple[BaseSettings | None, list[_Fault]]:
    try:
        return kind(), []
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
    meant = [(name, each["msg"]) for each in wrong for name in _names(kind, each["loc"], each["msg"])]
    faults = [_Fault(name.upper(), _message(message)) for name, message in meant]
    instead = {name: _placeholder(kind, name) for name, _ in meant}
    try:
        return kind(**instead), faults  # type: ignore[arg-type]  # pydantic reads them, as the environment's
    except ValidationError:
        return None, faults  # the values contradict each other: none of them can be relied on


def _names(kind: type[BaseSettings], place: tuple[int | str, ...], message: str) -> tuple[str, ...]:
    """The settings that a fault is about: where it is, or, if it is of several, whom its words name."""
    if place:
        return (str(place[0]),)
    return tuple(name for name in kind.model_fields if name.upper() in message)


def _placeholder(kind: type[BaseSettings], name: str) -> object:
    info = kind.model_fields.get(name)
    if info is None or info.default is PydanticUndefined:
        return PLACEHOLDERS.get(name)
    return info.default


def _message(message: str) -> str:
    """Pydantic's words, as they read beside a variable's name."""
    return "it is not set" if message == "Field required" else message.removeprefix("Value error, ")


def _fault_findings(faults: Mapping[_Fault, list[Process]]) -> Iterator[Finding]:
    meanings = {name: text for kind in SETTINGS_CLASSES.values() for name, text in variables_of(kind).items()}
    for fault, processes in faults.items():
        yield failed(
            f"settings.{fault.variable}",
            f"{fault.message} ({', '.join(processes)})",
            f"Set {fault.variable}: {meanings.get(fault.variable, 'see docs/settings.md')}",
            fault.variable,
        )


def _usable(processes: Collection[Process], faults: Mapping[_Fault, list[Process]]) -> Iterator[Finding]:
    broken = {process for read_by in faults.values() for process in read_by}
    for process in Process:
        if process in processes and process not in broken:
            yield ok(
                f"settings.{process}", f"{len(variables_of(SETTINGS_CLASSES[process]))} variables can be used"
            )
