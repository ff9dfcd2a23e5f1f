"""What the register API is told; a fault is said by the variable's name, before anything listens."""

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from register_api.auth.identity import BootstrapPolicy
from register_api.http.client_address import Network
from workers.settings.common import CommaSeparated, FleetSettings, split_commas
from workers.settings.listen_address import ListenAddress, require_distinct, split_host_port


class ApiSettings(FleetSettings):
    """The register API."""

    register_api_bind: ListenAddress = "127.0.0.1:8080"
    """Host and port to listen on."""
    operator_token_hashes: CommaSeparated = ()
    """SHA-256 (hexadecimal) of the tokens that may read every record."""
    bootstrap_policy: BootstrapPolicy = BootstrapPolicy.SECRET
    """How a box without a token proves itself: `secret`, by the bootstrap secret of its user data; `address`,
    by that or by calling from its recorded address; `both`, by the secret from that address."""
    trusted_proxies: CommaSeparated = ()
    """Addresses or networks (CIDR) of proxies before the API: only their `X-Forwarded-For` says where a call
    comes from. Empty: the TCP peer is the caller."""
    api_metrics_bind: ListenAddress | None = None
    """Host and port of the register API's metrics (`/metrics`), never public; unset: nothing listens."""
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = 16
    """Connections of one process; beats are served by few of them."""
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=300)] = 0
    """Behind a load balancer: after SIGTERM the API is not ready, and serves on for so long. More than the
    balancer takes to notice; with the 10 s that running requests get, less than the orchestrator's limit."""
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """How long an idle connection is kept. Behind a load balancer: longer than the balancer keeps it (an ALB:
    60, so 65 here), or it sends a call just as the connection is closed, and the box gets a 502."""

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
    def bind(self) -> tuple[str, int]:
        """Host and port."""
        return split_host_port(self.register_api_bind)

    @property
    def shutdown_delay(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.shutdown_delay_seconds)
