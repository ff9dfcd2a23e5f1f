"""Settings of the register API."""

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from register_api.http.client_address import Network
from register_api.http.config import BootstrapPolicy
from workers.settings.common import CommaSeparated, FleetSettings, split_commas
from workers.settings.listen_address import ListenAddress, require_distinct


class ApiSettings(FleetSettings):
    """Settings of the register API."""

    register_api_bind: ListenAddress = "127.0.0.1:8080"
    """Host and port that the register API listens on."""
    operator_token_hashes: CommaSeparated = ()
    """SHA-256 (hexadecimal) of the operator tokens that may read every workspace record."""
    bootstrap_policy: BootstrapPolicy = BootstrapPolicy.SECRET
    """Required proof of a box without a token. `secret`: the bootstrap secret from its user data. `address`:
    that secret, or a call from the box's recorded IP address. `both`: the secret, sent from that address."""
    trusted_proxies: CommaSeparated = ()
    """IP addresses or networks (CIDR) of proxies in front of the API. The caller's address is read from
    `X-Forwarded-For` only if one of these sent it. Empty: the TCP peer is the caller."""
    api_metrics_bind: ListenAddress | None = None
    """Host and port of the register API's metrics (`/metrics`). Do not expose them publicly. Unset: no
    metrics endpoint."""
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = 16
    """Maximum database connections of one process."""
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=300)] = 0
    """How long the API keeps serving after SIGTERM while `/readyz` fails. Set it longer than the load
    balancer takes to notice. This delay plus 10 s for running requests must be below the orchestrator's
    limit."""
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """How long an idle connection stays open. Set it longer than the load balancer's idle timeout (65 for an
    ALB with 60). Otherwise the balancer may use a connection that is just closing, and the box gets a 502."""

    @field_validator("operator_token_hashes", "trusted_proxies", mode="before")
    @classmethod
    def _split_lists(cls, value: object) -> object:
        return split_commas(value)

    @field_validator("operator_token_hashes")
    @classmethod
    def _are_hashes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch("[0-9a-f]{64}", each) for each in value):
            raise ValueError("each entry must be 64 hexadecimal digits: the SHA-256 of a token")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                ip_network(each)
            except ValueError as error:
                raise ValueError(f"each entry must be an address or a network: {error}") from None
        return value

    @model_validator(mode="after")
    def _distinct_listen_addresses(self) -> Self:
        require_distinct(
            {"REGISTER_API_BIND": self.register_api_bind, "API_METRICS_BIND": self.api_metrics_bind}
        )
        return self

    @property
    def proxies(self) -> tuple[Network, ...]:
        """The trusted proxies as networks."""
        return tuple(map(ip_network, self.trusted_proxies))

    @property
    def shutdown_delay(self) -> timedelta:
        """`shutdown_delay_seconds` as a duration."""
        return timedelta(seconds=self.shutdown_delay_seconds)
