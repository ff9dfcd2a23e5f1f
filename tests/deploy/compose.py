"""The compose file as values: services, their order, and their environment with an .env file."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.temporal.yml"

Service = Mapping[str, Any]

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


class Missing(Exception):
    """A variable that the compose file requires is not set."""


def services(environment: Mapping[str, str]) -> dict[str, Service]:
    """All services, with variables substituted as by `docker compose`."""
    loaded = yaml.safe_load(FILE.read_text())["services"]
    return {name: _filled(service, environment) for name, service in loaded.items()}


def in_order(all_services: Mapping[str, Service]) -> Iterator[str]:
    """The services in start order: each after its dependencies."""
    done: set[str] = set()
    while len(done) < len(all_services):
        ready = [
            name
            for name, service in all_services.items()
            if name not in done and done.issuperset(service.get("depends_on", {}))
        ]
        assert ready, "services that depend on each other"
        yield from ready
        done.update(ready)


def required() -> set[str]:
    """The required variables."""
    return {name for name, kind, _ in _VARIABLE.findall(FILE.read_text()) if kind == ":?"}


def defaults() -> dict[str, str]:
    """The defaults of the other variables."""
    return {name: text for name, kind, text in _VARIABLE.findall(FILE.read_text()) if kind == ":-"}


def variables(file: Path) -> dict[str, str]:
    """The variables of an .env file."""
    lines = file.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _value(found, environment), value)
        case list():
            return [_filled(each, environment) for each in value]
        case dict():
            return {name: _filled(each, environment) for name, each in value.items()}
        case _:
            return value


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    name, kind, text = found.groups()
    value = environment.get(name, "")
    if not value and kind == ":?":
        raise Missing(name)
    return value or (text if kind == ":-" else "")
