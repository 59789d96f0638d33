"""What the API asks of the rest of the house; `compass_sidecar.engine.sidecar.Scheduler` provides it."""

import asyncio
from datetime import datetime
from typing import Protocol

from ..core.status import Status
from ..engine.renewal import Renewed

__all__ = ["Renewed", "Sidecar"]


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
