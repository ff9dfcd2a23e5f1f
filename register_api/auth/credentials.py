"""From a request to what it proves: its credentials, its address, and what the record says of both.

Verifies, and decides nothing: an invalid bearer is a fact among others here, neither a grant nor a refusal.
"""

import re
from dataclasses import dataclass, field

from starlette.requests import Request

from register_api.auth.identity import (
    BootstrapPolicy,
    CallerIdentity,
    Evidence,
    Peer,
    RecordedWorkspace,
    decide_identity,
)
from register_api.auth.rules import Bearer
from register_api.http.client_address import FORWARDED_FOR, Address, client_address
from register_api.http.config import ApiConfig
from store.registration.caller_lookup import CallerRecord
from store.registration.credentials import token_hash

BOOTSTRAP_HEADER = "x-bootstrap-token"

_READ_HEADERS = (b"authorization", BOOTSTRAP_HEADER.encode(), FORWARDED_FOR.encode())

_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/=-]{1,512})")
"""RFC 6750, section 2.1; ours have 43 characters, or fewer than 80."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What came with a request, as far as it can be read without the database."""

    present: bool
    """Whether a credential came at all, good or bad."""
    bearer: str | None = field(default=None, repr=False)
    sha256: bytes | None = None
    """What the database may know the bearer by."""
    secrets: tuple[int, ...] = ()
    """The generations that verified bootstrap secrets name."""
    source: Address | None = None
    """Where the call comes from."""

    @property
    def secret_generation(self) -> int | None:
        """The oldest generation that a bootstrap secret names: that is whose box it is."""
        return min(self.secrets, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, as far as evidence and record tell."""

    workspace: RecordedWorkspace | None
    """None: the workspace is unknown."""
    identity: CallerIdentity
    bearer: Bearer
    peer: Peer = Peer.DIFFERS
    superseded_generation: int | None = None
    """The generation that a superseded caller is of."""

    @property
    def generation(self) -> int:
        """The current generation, or the newest one where none is; 0 if there is no such workspace."""
        if self.workspace is None:
            return 0
        return self.workspace.newest if self.workspace.current is None else self.workspace.current


def read_credentials(request: Request, config: ApiConfig, *, workspace_id: str) -> Credentials:
    """The bearer, the generations whose bootstrap secret came as bearer or in its own header, the address."""
    # One look at all headers: Starlette's takes one for each name.
    sent: dict[bytes, list[str]] = {name: [] for name in _READ_HEADERS}
    for name, value in request.scope["headers"]:
        if name in sent:
            sent[name].append(value.decode("latin-1"))
    authorization, bootstrap, forwarded = sent.values()
    # Two bearers are none: which of them a proxy looked at, nobody knows.
    match = _BEARER.fullmatch(authorization[0].strip()) if len(authorization) == 1 else None
    bearer = None if match is None else match[1]
    presented = [*bootstrap[:2], *([] if bearer is None else [bearer])]
    verified = [config.keys.verify_bootstrap(workspace_id, text) for text in presented]
    client = request.scope.get("client")
    return Credentials(
        present=bool(authorization or bootstrap),
        bearer=bearer,
        sha256=None if bearer is None else token_hash(bearer),
        secrets=tuple(secret.generation for secret in verified if secret is not None),
        source=client_address(None if client is None else client[0], forwarded, config.trusted_proxies),
    )


def identify(credentials: Credentials, found: CallerRecord | None, policy: BootstrapPolicy) -> Caller:
    """Put the credentials beside the record."""
    bearer = Bearer.NOT_VALID if credentials.present else Bearer.ABSENT
    if found is None:
        return Caller(workspace=None, identity=CallerIdentity.UNPROVEN, bearer=bearer)
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
            # A revoked token of the current generation proves nothing: somebody revoked it for a reason.
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
