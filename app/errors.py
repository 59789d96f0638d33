"""Everything that can go wrong and is known to: one tree.

    SidecarError                   code (kebab-case, stable), retryable
    ├─ SettingsError               at start only; carries one problem per line
    ├─ CredentialError
    │  ├─ MalformedCredential      not PEM, not a certificate, not a key we can use
    │  ├─ KeyMismatch              the certificate is for another key
    │  ├─ UntrustedChain           the chain does not hold together
    │  ├─ SubjectMismatch          the subject is not the one asked for, or not to be understood
    │  ├─ CredentialExpired
    │  ├─ CredentialNotYetValid
    │  └─ CredentialRevoked
    ├─ StoreError
    │  ├─ NoCredential             nothing stored yet
    │  ├─ StoreLocked              another sidecar has it
    │  ├─ StoreDamaged             what is stored cannot be used
    │  │  └─ PairRefused           OpenSSL does not load it
    │  └─ StoreWriteFailed         full, read-only, permission lost
    ├─ ConnectorError              the credential we hold is untouched
    │  ├─ ConnectorUnavailable     unreachable or failing for now; retry_after
    │  │  └─ DirectorRefused       the Director behind it refuses or fails
    │  ├─ ConnectorTimeout
    │  ├─ ConnectorUntrusted       its server certificate does not verify
    │  ├─ ConnectorRejected        a GraphQL error: it understood and refused
    │  │  └─ SubjectRefused        `CSR: Invalid ..`: the subject is stale, ask for it once more
    │  ├─ ConnectorUnauthenticated no identity of ours was accepted, as by a TLS alert on our certificate
    │  │  └─ NotRecognised         the ambiguous empty 400
    │  ├─ ConnectorProtocol        an answer that breaks the contract
    │  │  ├─ UnusableURL           a URL that can never be called, however long one waits
    │  │  └─ UnusableAnswer        a signed answer that must not be used
    │  └─ UnexpectedFailure        an exception that no adapter knows: internal-error
    ├─ RequestRefused              the local API cannot do this now or for you
    │  ├─ RenewedRecently          retry_after
    │  ├─ Busy
    │  ├─ NotCurrent
    │  └─ TooManyWaiters
    └─ NotificationError           never fails a renewal

Foreign errors are translated at the adapter's border, `from` their cause. A `detail` never
contains a secret; text from the Connector goes through `core.text.printable` first.
"""

from datetime import timedelta
from typing import ClassVar


class SidecarError(Exception):
    """A known failure. `detail` is one sentence for people, `code` one word for programs."""

    code: ClassVar[str] = "internal-error"
    retryable: bool = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class SettingsError(SidecarError):
    """The configuration cannot be used. `problems` has one line per problem."""

    code = "bad-settings"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CredentialError(SidecarError):
    """A key or a chain that must not be used."""

    code = "bad-credential"


class MalformedCredential(CredentialError):
    code = "malformed-credential"


class KeyMismatch(CredentialError):
    code = "key-mismatch"


class UntrustedChain(CredentialError):
    code = "untrusted-chain"


class SubjectMismatch(CredentialError):
    code = "subject-mismatch"


class CredentialExpired(CredentialError):
    code = "credential-expired"


class CredentialNotYetValid(CredentialError):
    code = "credential-not-yet-valid"


class CredentialRevoked(CredentialError):
    code = "credential-revoked"


class StoreError(SidecarError):
    code = "store-failed"


class NoCredential(StoreError):
    code = "not-connected"


class StoreLocked(StoreError):
    code = "store-locked"
    retryable = True


class StoreDamaged(StoreError):
    code = "store-damaged"


class PairRefused(StoreDamaged):
    """The files can be read, and OpenSSL does not load the pair in them."""


class StoreWriteFailed(StoreError):
    code = "store-write-failed"
    retryable = True


class ConnectorError(SidecarError):
    """A call to the Connector failed; the credential we hold is untouched.

    `arrived` is False if the request certainly did not get past the gateway's look at who calls, and True if
    it may have. `status` is the HTTP status of the answer, None without an answer.
    """

    code = "connector-failed"
    arrived = True
    status: int | None = None


class ConnectorUnavailable(ConnectorError):
    """Unreachable, overloaded or failing inside. `retry_after`: how long it asked us to wait."""

    code = "connector-unavailable"
    retryable = True

    def __init__(self, detail: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class DirectorRefused(ConnectorUnavailable):
    """The Connector could not get what it needs from the Director."""


class ConnectorTimeout(ConnectorError):
    code = "connector-timeout"
    retryable = True


class ConnectorUntrusted(ConnectorError):
    code = "connector-untrusted"
    retryable = True


class ConnectorRejected(ConnectorError):
    code = "connector-rejected"


class SubjectRefused(ConnectorRejected):
    """The CSR's subject is not the one the Connector expects now."""


class ConnectorUnauthenticated(ConnectorError):
    code = "connector-unauthenticated"
    retryable = True


class NotRecognised(ConnectorUnauthenticated):
    """The empty 400, which has many causes: see contract section 2."""


class ConnectorProtocol(ConnectorError):
    code = "connector-protocol"


class UnusableURL(ConnectorProtocol):
    """The URL can never be called; one that cannot be reached now is ConnectorUnavailable."""


class UnusableAnswer(ConnectorProtocol):
    """What the Connector signed does not hold together, or OpenSSL does not load it."""


class UnexpectedFailure(ConnectorError):
    """A call ended with an exception that has no place in this tree, and counts as one from outside it."""

    code = "internal-error"


class RequestRefused(SidecarError):
    """The local API does not do this now, or not for this caller."""

    code = "bad-request"


class RenewedRecently(RequestRefused):
    code = "renewed-recently"
    retryable = True

    def __init__(self, detail: str, *, retry_after: timedelta) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Busy(RequestRefused):
    code = "busy"
    retryable = True


class NotCurrent(RequestRefused):
    code = "not-current"


class TooManyWaiters(RequestRefused):
    code = "too-many-waiters"
    retryable = True


class NotificationError(SidecarError):
    code = "notification-failed"
    retryable = True
