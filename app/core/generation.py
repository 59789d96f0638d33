"""What the store keeps: generations, and the renewal that is under way."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from .credential import Chain, Credential
from .text import rfc3339


class Origin(StrEnum):
    """How a credential came to us."""

    IMPORT = "import"
    CONNECT = "connect"
    RENEW = "renew"


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment by a clock that cannot be set: the time since boot, suspends included, and which boot."""

    boot_id: str
    since_boot: timedelta

    def until(self, later: "Mark") -> timedelta | None:
        """How much later that is; None if it was in another boot, or the machine was restored from a copy."""
        passed = later.since_boot - self.since_boot
        return passed if later.boot_id == self.boot_id and passed >= timedelta(0) else None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a credential besides itself: `generation.json`. Times are aware UTC.

    `revoke_at`: when to revoke it, once it is superseded. `revoke_sent_at`: when a revocation was sent whose
    outcome is not known.
    `signature_mark` is when the sign request was sent that it came of, `request_mark` when the last one was
    that came to nothing. `connector_time` is the Connector's clock at the activation. `drops` counts the
    signed answers that were given up since, the last one at `drop_mark`.
    """

    origin: Origin
    connector_url: str
    activated_at: datetime
    director_url: str | None = None
    proven_at: datetime | None = None
    replaced_end: datetime | None = None  # effective end of the credential that this one replaced
    replaced_anchor: str | None = None  # the CA of that one, if it is another
    revoke_at: datetime | None = None
    revoke_sent_at: datetime | None = None
    revoked_at: datetime | None = None
    connector_time: datetime | None = None
    signature_mark: Mark | None = None
    request_mark: Mark | None = None
    drop_mark: Mark | None = None
    drops: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """A credential in the store. `name` is its folder below `generations/`."""

    name: str
    credential: Credential
    facts: Facts

    @property
    def chain(self) -> Chain:
        return self.credential.chain


@dataclass(frozen=True, slots=True)
class Signed:
    """The Connector's verified answer, waiting for its proof.

    `failed_proofs` counts the failures that only the answer itself explains, the first at `failed_since`.
    """

    chain: Chain
    signed_at: datetime
    anchor_changed: bool = False
    failed_since: Mark | None = None
    failed_proofs: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A renewal or first connection under way: enough to go on after a kill.

    `begun_by` is the fingerprint that was current when it began, None without one. `sign_url` is
    where the CSR goes. A first connection has `token` (token B, a secret) and `token_digest` (of token A).
    `request_mark` is when the last sign request was sent.
    """

    origin: Origin
    begun_by: str | None
    begun_at: datetime
    sign_url: str
    connector_url: str
    director_url: str | None
    subject: str
    key_pem: bytes = field(repr=False)
    csr_pem: bytes = field(repr=False)
    token: str | None = field(default=None, repr=False)
    token_digest: str | None = None
    signed: Signed | None = None
    request_mark: Mark | None = None


def why_not_imported(given: Chain, held: Chain) -> str | None:
    """Why an operator's chain does not take the place of the one in use; None if it does."""
    if given.fingerprint == held.fingerprint:
        fuller = len(given.certificates) > len(held.certificates)
        return None if fuller else "the certificate in the files is the one in use"
    if given.not_before > held.not_before:
        return None
    return (
        f"the certificate in the files begins at {rfc3339(given.not_before)}, which is not later than the"
        f" beginning of the one in use, {rfc3339(held.not_before)}"
    )
