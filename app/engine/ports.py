"""What the engine needs of the adapters, and what the API needs of the engine."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from ..core.answer import Configuration, SignedAnswer
from ..core.catalogue import Event
from ..core.credential import Credential
from ..core.door import ClientPair, Door
from ..core.generation import Facts, Generation, Mark, Pending
from ..core.status import Status

if TYPE_CHECKING:
    from .renewal import Renewed

T = TypeVar("T")


class Clock(Protocol):
    def now(self) -> datetime: ...
    def elapsed(self) -> timedelta: ...
    def mark(self) -> Mark: ...
    def monotonic(self) -> timedelta: ...
    async def sleep(self, duration: timedelta) -> None: ...
    async def wait(self, event: asyncio.Event, timeout: timedelta) -> None: ...


class Keys(Protocol):
    def begin(self) -> None: ...
    async def ready(self) -> None: ...
    async def take(self) -> rsa.RSAPrivateKey: ...


class Store(Protocol):
    """Blocking, but for `pair`: every other call goes to a thread. Each raises StoreError."""

    def load(self) -> Generation | None: ...
    def generations(self) -> tuple[Generation, ...]: ...
    def activate(self, credential: Credential, facts: Facts) -> Generation: ...
    def amend(self, generation: Generation, facts: Facts) -> Generation: ...
    def pair(self, generation: Generation) -> ClientPair: ...
    def pending(self) -> Pending | None: ...
    def pending_pair(self, pending: Pending) -> ClientPair: ...
    def save_pending(self, pending: Pending) -> None: ...
    def drop_pending(self) -> None: ...
    def token_used(self, digest: str) -> bool: ...
    def remember_token(self, digest: str) -> None: ...


class Connector(Protocol):
    """Each call raises ConnectorError."""

    async def configuration(self, door: Door) -> Configuration: ...
    async def sign(self, door: Door, csr_pem: bytes) -> SignedAnswer: ...
    async def probe(self, door: Door) -> datetime | None: ...
    async def revoke(self, door: Door) -> None: ...
    async def retire(self, keep: frozenset[str]) -> None: ...


class Worker(Protocol):
    """A thread for blocking calls."""

    async def run(self, call: Callable[..., T], *args: object) -> T:
        """The call's result, or what it raises. Raises TimeoutError if it takes too long."""


class Publisher(Protocol):
    """Blocking; raises StoreError."""

    def publish(self, credential: Credential) -> bool: ...


class Notifier(Protocol):
    """Notifies consumers. None of its work delays a renewal."""

    async def restore(self, generation: Generation | None) -> None:
        """Read what they were sent before this process began. Raises StoreError."""

    def announce(self, generation: Generation) -> None:
        """Notify them of the credential in use, unless they were: called once they can read its files."""

    def notify(self, event: Event, generation: Generation | None, *, detail: str | None = None) -> None:
        """Notify consumers of an event that changes no credential; never raises and never waits."""


class Journal(Protocol):
    def record(self, event: Event, **details: object) -> None:
        """Log the event and keep it in the journal; never raises, never waits for a disk."""

    def about(self, correlation_id: str) -> AbstractContextManager[None]:
        """What is recorded inside belongs to the attempt with this id."""


class Sidecar(Protocol):
    """The running sidecar, on its event loop."""

    @property
    def status(self) -> Status: ...

    def now(self) -> datetime:
        """The wall clock, aware UTC."""

    def stalled(self) -> str | None:
        """Why the sidecar makes no progress, in a sentence; None while it does."""

    def changed(self) -> asyncio.Event:
        """Set when the generation in use is another one than now, or revoked, and on shutdown."""

    def stopping(self) -> bool:
        """Whether the process is about to end: who waits must be answered."""

    def renew(self) -> "asyncio.Task[Renewed]":
        """The attempt that runs, or a new one. The caller must not cancel it.

        Raises NoCredential, CredentialExpired, CredentialRevoked or RenewedRecently at once; the
        task raises what a renewal raises.
        """

    def connect(self, token: str, connector_url: str | None) -> "asyncio.Task[Renewed]":
        """A connection with a token in any of its forms. Raises Busy or RequestRefused at once."""

    def revoke(self, fingerprint: str) -> "asyncio.Task[None]":
        """Revocation of the current certificate. Raises Busy, NotCurrent or NoCredential at once."""
