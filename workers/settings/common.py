"""Settings that several processes share, read from environment variables only.

Errors name the variable. No secret has a default.
"""

from datetime import timedelta
from typing import Annotated, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from store.registration.credentials import InvalidServerKeys, ServerKeys
from workflows.fleet.rules import FleetPolicy
from workflows.shared.encryption import InvalidPayloadKeys, PayloadKeys

CommaSeparated = Annotated[tuple[str, ...], NoDecode]
"""A comma-separated list."""

S = TypeVar("S", bound=BaseSettings)


class InvalidSettings(ValueError):
    """Settings are missing or invalid; the message names each variable and its fault."""


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, env_ignore_empty=True, use_attribute_docstrings=True
    )


class LogSettings(_Settings):
    """Settings of every process."""

    log_format: Annotated[str, Field(pattern="^(auto|json|console)$")] = "auto"
    """`json` for machines, `console` for people; `auto`: `console` on a terminal, else `json`."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """The lowest severity that is logged."""


class StoreSettings(LogSettings):
    """Settings of every process with a database."""

    database_url: SecretStr
    """URL of the PostgreSQL database: `postgresql://user:password@host:port/database`."""


class PayloadSettings(_Settings):
    """Settings of all Temporal clients and of the codec server."""

    payload_keys: SecretStr = SecretStr("")
    """Keys for payloads in Temporal: `id:hex[,id:hex …]`, 32 bytes each. The first key encrypts; all keys
    decrypt. Empty: payloads are in clear text. `off` instead of the first key: new payloads are in clear
    text, and the other keys still decrypt."""

    @field_validator("payload_keys")
    @classmethod
    def _valid_payload_keys(cls, value: SecretStr) -> SecretStr:
        try:
            PayloadKeys.parse(value.get_secret_value())
        except InvalidPayloadKeys as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def payload_key_ring(self) -> PayloadKeys:
        """The parsed keys."""
        return PayloadKeys.parse(self.payload_keys.get_secret_value())


class KeySettings(StoreSettings):
    """Settings for deriving and verifying the credentials of boxes."""

    server_keys: SecretStr
    """Keys for bootstrap secrets and tokens: `id:hex[,id:hex …]`, at least 32 bytes each. The first key signs
    new credentials; all keys verify."""
    allow_loopback_targets: bool = False
    """Allow boxes at loopback addresses. For development, where boxes are processes on the same machine."""

    @field_validator("server_keys")
    @classmethod
    def _valid_server_keys(cls, value: SecretStr) -> SecretStr:
        try:
            ServerKeys.parse(value.get_secret_value())
        except InvalidServerKeys as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def keys(self) -> ServerKeys:
        """The parsed key ring."""
        return ServerKeys.parse(self.server_keys.get_secret_value())


class FleetSettings(KeySettings):
    """Settings for the health of boxes and of the fleet."""

    heartbeat_stale_seconds: Annotated[float, Field(gt=0)] = 90
    """A workspace becomes degraded when its box sends no heartbeat for this long."""
    fleet_freeze_percent: Annotated[float, Field(ge=0, le=100)] = 20
    """Automatic recreates stop (the fleet is frozen) while more than this share of the workspaces is
    stale."""
    fleet_freeze_min_workspaces: Annotated[int, Field(ge=1)] = 5
    """The share of stale workspaces freezes only a fleet of at least this many workspaces."""
    fleet_max_concurrent_percent: Annotated[float, Field(gt=0, le=100)] = 10
    """Maximum share of the workspaces that are recreated automatically at the same time; at least one
    workspace."""
    fleet_max_concurrent_recreates: Annotated[int, Field(ge=1)] = 20
    """Maximum number of automatic recreates at the same time."""

    @property
    def heartbeat_stale(self) -> timedelta:
        """`heartbeat_stale_seconds` as a duration."""
        return timedelta(seconds=self.heartbeat_stale_seconds)

    @property
    def fleet_policy(self) -> FleetPolicy:
        """The limits for automatic recreates."""
        return FleetPolicy(
            freeze_share=self.fleet_freeze_percent / 100,
            freeze_min_workspaces=self.fleet_freeze_min_workspaces,
            max_concurrent_share=self.fleet_max_concurrent_percent / 100,
            max_concurrent_recreates=self.fleet_max_concurrent_recreates,
            stale=self.heartbeat_stale,
        )


def load(kind: type[S]) -> S:
    """Read settings from the environment. Raises `InvalidSettings` with all faults."""
    try:
        return kind()
    except ValidationError as error:
        raise InvalidSettings(
            "\n".join(
                f"{'_'.join(map(str, fault['loc'])).upper() or 'settings'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            )
        ) from None


def split_commas(value: object) -> object:
    """Split a comma-separated string into a tuple; return other values unchanged."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value
