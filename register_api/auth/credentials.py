"""Reads and verifies the credentials of a request, and identifies the caller.

An invalid bearer is one piece of information among others here: it neither grants nor refuses anything.
"""

import re
from dataclasses import dataclass, field

from starlette.requests import Request

from register_api.auth.identity import (
    CallerIdentity,
    Evidence,
    Peer,
    RecordedWorkspace,
    decide_identity,
)
from register_api.auth.rules import Bearer
from register_api.http.client_address import FORWARDED_FOR, Address, client_address
from register_api.http.config import ApiConfig, BootstrapPolicy
from store.registration.caller_lookup import CallerRecord
from store.registration.credentials import token_hash

BOOTSTRAP_HEADER = "x-bootstrap-token"

_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/=-]{1,512})")
"""RFC 6750, section 2.1. Tokens have 43 characters, bootstrap secrets fewer than 80."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a request carries, as far as it can be read without the database."""

    present: bool
    """Whether the request carries any credential, valid or not."""
    bearer: str | None = field(default=None, repr=False)
    sha256: bytes | None = None
    """The bearer's hash, under which the database may know it."""
    secrets: tuple[int, ...] = ()
    """Generations of the verified bootstrap secrets."""
    source: Address | None = None
    """The address that the call comes from."""

    @property
    def secret_generation(self) -> int | None:
        """The oldest generation of the bootstrap secrets: the generation of the calling box."""
        return min(self.secrets, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller, as far as evidence and record show."""

    workspace: RecordedWorkspace | None
    """None if the workspace is unknown."""
    identity: CallerIdentity
    bearer: Bearer
    peer: Peer = Peer.DIFFERS
    superseded_generation: int | None = None
    """The generation of a superseded caller."""

    @property
    def generation(self) -> int:
        """The current generation, or the newest if none is current; 0 if the workspace is unknown."""
        if self.workspace is None:
            return 0
        return self.workspace.newest if self.workspace.current is None else self.workspace.current


def read_credentials(request: Request, config: ApiConfig, *, workspace_id: str) -> Credentials:
    """The request's bearer, its verified bootstrap secrets (as bearer or own header), and its address."""
    authorization = request.headers.getlist("authorization")
    bootstrap = request.headers.getlist(BOOTSTRAP_HEADER)
    # With two Authorization headers it is unclear which one a proxy checked, so neither counts.
    match = _BEARER.fullmatch(authorization[0].strip()) if len(authorization) == 1 else None
    bearer = None if match is None else match[1]
    presented = [*bootstrap[:2], *([] if bearer is None else [bearer])]
    verified = [config.keys.verify_bootstrap(workspace_id, text) for text in presented]
    peer = None if request.client is None else request.client.host
    return Credentials(
        present=bool(authorization or bootstrap),
        bearer=bearer,
        sha256=None if bearer is None else token_hash(bearer),
        secrets=tuple(secret.generation for secret in verified if secret is not None),
        source=client_address(peer, request.headers.getlist(FORWARDED_FOR), config.trusted_proxies),
    )


def identify(credentials: Credentials, found: CallerRecord | None, policy: BootstrapPolicy) -> Caller:
    """The caller, decided from its credentials and the record."""
    bearer = Bearer.NOT_VALID if credentials.present else Bearer.ABSENT
    if found is None:
        # A genuine secret proves that the workspace existed, or that its record is still to come.
        identity = CallerIdentity.UNDETERMINED if credentials.secrets else CallerIdentity.UNPROVEN
        return Caller(workspace=None, identity=identity, bearer=bearer)
    workspace = RecordedWorkspace(
        intent=found.parsed_intent, deleted=found.deleted, newest=found.newest, current=found.current
    )
    token = None
    if found.token_state is not None and found.token_generation is not None:
        live = found.token_state in (Bearer.PENDING, Bearer.ACTIVE, Bearer.RETIRING)
        current = found.token_generation == found.current
        if live and current:
            bearer = Bearer(found.token_state)
        if live or not current:
            # A revoked token of the current generation proves nothing: it was revoked for a reason.
            token = found.token_generation
    evidence = Evidence(secrets=credentials.secrets, token=token, peer=_peer(credentials, found))
    identity = decide_identity(evidence, workspace, policy)
    superseded_generation = (
        min(evidence.secrets, default=token) if identity is CallerIdentity.SUPERSEDED else None
    )
    return Caller(
        workspace=workspace,
        identity=identity,
        bearer=bearer,
        peer=evidence.peer,
        superseded_generation=superseded_generation,
    )


def _peer(credentials: Credentials, found: CallerRecord) -> Peer:
    if found.current is None:
        return Peer.DIFFERS
    if found.private_ip is None:
        return Peer.UNRECORDED
    return Peer.MATCHES if credentials.source == found.private_ip else Peer.DIFFERS
