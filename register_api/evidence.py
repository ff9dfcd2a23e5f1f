"""From the headers of a request to what they prove.

Verifies, and decides nothing: an invalid bearer is a fact among others here, neither a grant nor a refusal.
"""

import re
from dataclasses import dataclass, field

from starlette.requests import Request

from register_api.decision import Bearer, Proof, ProofKind, Standing, Verdict, judge
from store.credentials import ServerKeys, token_hash
from store.standing import Found

BOOTSTRAP_HEADER = "x-bootstrap-token"

_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/=-]{1,512})")
"""RFC 6750, section 2.1; ours have 43 characters, or fewer than 80."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What came with a request, as far as it can be read without the database."""

    came: bool
    """Whether a credential came at all, good or bad."""
    bearer: str | None = field(default=None, repr=False)
    secrets: tuple[int, ...] = ()
    """The generations that verified bootstrap secrets name."""

    @property
    def sha256(self) -> bytes | None:
        """What the database may know the bearer by."""
        return None if self.bearer is None else token_hash(self.bearer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, as far as evidence and record tell."""

    standing: Standing | None
    """None: the workspace is unknown."""
    verdict: Verdict
    bearer: Bearer


def read_credentials(request: Request, keys: ServerKeys, *, workspace_id: str) -> Credentials:
    """The bearer, and the generations whose bootstrap secret came as bearer or in the header of its own."""
    headers = request.headers
    authorization = headers.getlist("authorization")
    bootstrap = headers.getlist(BOOTSTRAP_HEADER)
    # Two bearers are none: which of them a proxy looked at, nobody knows.
    match = _BEARER.fullmatch(authorization[0].strip()) if len(authorization) == 1 else None
    bearer = None if match is None else match[1]
    presented = [*bootstrap[:2], *([] if bearer is None else [bearer])]
    verified = [keys.verify_bootstrap(workspace_id, text) for text in presented]
    return Credentials(
        came=bool(authorization or bootstrap),
        bearer=bearer,
        secrets=tuple(secret.generation for secret in verified if secret is not None),
    )


def identify(credentials: Credentials, found: Found | None) -> Caller:
    """Put the credentials beside the record."""
    bearer = Bearer.NOT_VALID if credentials.came else Bearer.ABSENT
    if found is None:
        return Caller(standing=None, verdict=Verdict.UNPROVEN, bearer=bearer)
    standing = Standing(
        intent=found.meant_to, deleted=found.deleted, newest=found.newest, current=found.current
    )
    proofs = [Proof(ProofKind.SECRET, generation) for generation in credentials.secrets]
    if found.token_state is not None and found.token_generation is not None:
        live = found.token_state in (Bearer.PENDING, Bearer.ACTIVE, Bearer.RETIRING)
        current = found.token_generation == found.current
        if live and current:
            bearer = Bearer(found.token_state)
        if live or not current:
            # A revoked token of the current generation proves nothing: somebody revoked it for a reason.
            proofs.append(Proof(ProofKind.TOKEN, found.token_generation))
    return Caller(standing=standing, verdict=judge(proofs, standing), bearer=bearer)
