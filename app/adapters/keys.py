"""The next private key, made ahead of time in a thread of its own."""

import asyncio
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric import rsa

from ..core.csr import make_key
from .worker import Worker

# RSA-4096 takes up to 3 s of CPU time, and a container may have a hundredth of a CPU.
_LIMIT = timedelta(minutes=10)


class KeyMaker:
    """Keeps at most one key, in memory only; each is handed out once."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._worker = Worker("key", limit=_LIMIT)
        self._next: Future[rsa.RSAPrivateKey] | None = None

    def start(self) -> None:
        """Make the thread. Raises RuntimeError if there is none to be had."""
        self._worker.start()

    def begin(self) -> None:
        """Start making the next key, unless there is one or one is being made."""
        if self._next is None or _failed(self._next):
            self._next = self._worker.submit(self._make)

    async def ready(self) -> None:
        """Return once a key can be taken without waiting. Raises what kept it from being made.

        A caller who leaves while waiting loses no key.
        """
        self.begin()
        assert self._next is not None  # noqa: S101 - begin() has set it
        if not self._next.done():
            async with asyncio.timeout(_LIMIT.total_seconds()):
                await asyncio.shield(asyncio.wrap_future(self._next))

    async def take(self) -> rsa.RSAPrivateKey:
        """The key, which is forgotten here."""
        await self.ready()
        assert self._next is not None  # noqa: S101 - only one attempt at a time takes keys
        key, self._next = self._next.result(), None
        return key

    def _make(self) -> rsa.RSAPrivateKey:
        # Requests that are served meanwhile go first; on Linux a nice value is the thread's own.
        with suppress(OSError):  # a strict system call filter refuses even this
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        return make_key(self._bits)


def _failed(future: "Future[rsa.RSAPrivateKey]") -> bool:
    return future.cancelled() or (future.done() and future.exception() is not None)
