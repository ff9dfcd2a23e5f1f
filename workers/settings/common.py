"""What several processes are told, read from the environment and nowhere else.

Says what is wrong by the variable's name; it opens no connection and holds no default secret.
"""

from datetime import timedelta
from typing import Annotated, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from store.registration.credentials import InvalidServerKeys, ServerKeys
from workflows.fleet.rules import FleetPolicy
from workflows.shared.encryption import InvalidPayloadKeys, PayloadKeys

CommaSeparated = Annotated[tuple[str, ...], NoDecode]
"""Given as a comma-separated list."""

S = TypeVar("S", bound=BaseSettings)


class InvalidSettings(ValueError):
    """The environment is not usable; the text names each variable and its fault."""


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, env_ignore_empty=True, use_attribute_docstrings=True
    )


class LogSettings(_Settings):
    """What every process needs."""

    log_format: Annotated[str, Field(pattern="^(auto|json|console)$")] = "auto"
    """`json` for machines, `console` for people; `auto`: `console` on a terminal, else `json`."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """The least severity that is logged."""


class StoreSettings(LogSettings):
    """What every process with a database needs."""

    database_url: SecretStr
    """PostgreSQL, as `postgresql://user:password@host:port/database`."""


class PayloadSettings(_Settings):
    """What everyone needs who reads or writes payloads: all clients of Temporal, and the codec server."""

    payload_keys: SecretStr = SecretStr("")
    """`id:hex[,id:hex …]`, 32 bytes each: payloads in Temporal are encrypted with the first, and all decrypt.
    Empty: payloads are in clear text. `off` in the place of the first key: not encrypted, but decrypted."""

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
    """What deriving and verifying credentials needs."""

    server_keys: SecretStr
    """`id:hex[,id:hex …]`, at least 32 bytes each: the first derives, all verify."""
    allow_loopback_targets: bool = False
    """Call boxes at loopback addresses, and tell of them: for boxes that are processes of this machine."""

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
    """What judging boxes needs, one or all of them."""

    heartbeat_stale_seconds: Annotated[float, Field(gt=0)] = 90
    """A box that is silent for longer is shown as degraded."""
    fleet_freeze_percent: Annotated[float, Field(ge=0, le=100)] = 20
    """More of the workspaces stale at once than this, and nothing automatic is recreated."""
    fleet_freeze_min_workspaces: Annotated[int, Field(ge=1)] = 5
    """A fleet of fewer workspaces is not frozen for its share of stale ones."""
    fleet_max_concurrent_percent: Annotated[float, Field(gt=0, le=100)] = 10
    """So many of the workspaces may be recreated automatically at once; at least one may."""
    fleet_max_concurrent_recreates: Annotated[int, Field(ge=1)] = 20
    """And no more than so many, however large the fleet is."""

    @property
    def heartbeat_stale(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.heartbeat_stale_seconds)

    @property
    def fleet_policy(self) -> FleetPolicy:
        """How much at once is too much."""
        return FleetPolicy(
            freeze_share=self.fleet_freeze_percent / 100,
            freeze_min_workspaces=self.fleet_freeze_min_workspaces,
            max_concurrent_share=self.fleet_max_concurrent_percent / 100,
            max_concurrent_recreates=self.fleet_max_concurrent_recreates,
            stale=self.heartbeat_stale,
        )


def load(kind: type[S]) -> S:
    """Read the settings from the environment; raise `InvalidSettings` naming what is wrong."""
    try:
        return kind()
    except ValidationError as error:
        raise InvalidSettings(
            "\n".join(
                f"{'_'.join(map(str, fault['loc'])).upper() or 'together'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            )
        ) from None


def split_commas(value: object) -> object:
    """A comma-separated list as a tuple; what is no text stays what it is."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value
