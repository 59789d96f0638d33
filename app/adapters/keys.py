"""The next private key, made ahead of time in a thread of its own."""

import asyncio
import os
import threading
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric import rsa

from ..core.csr import make_key


class KeyMaker:
    """Keeps at most one key, in memory only; each is handed out once."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._next: asyncio.Future[rsa.RSAPrivateKey] | None = None

    def begin(self) -> None:
        """Start making the next key, unless there is one or one is being made."""
        if self._next is not None:
            return
        loop = asyncio.get_running_loop()
        self._next = loop.create_future()
        # A thread of its own: the pool's would be waited for when the process ends.
        threading.Thread(target=self._make, args=(loop, self._next), name="key", daemon=True).start()

    async def ready(self) -> None:
        """Return once a key can be taken without waiting."""
        self.begin()
        assert self._next is not None  # noqa: S101 - begin() has set it
        await asyncio.shield(self._next)

    async def take(self) -> rsa.RSAPrivateKey:
        """The key, which is forgotten here; a caller who leaves while waiting loses none."""
        await self.ready()
        assert self._next is not None  # noqa: S101 - only one attempt at a time takes keys
        key, self._next = self._next.result(), None
        return key

    def _make(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[rsa.RSAPrivateKey]) -> None:
        # Whoever is served meanwhile goes first; on Linux a nice value is the thread's own.
        with suppress(OSError):  # a strict system call filter refuses even this
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        key = make_key(self._bits)
        try:
            loop.call_soon_threadsafe(_hand_over, future, key)
        except RuntimeError:
            return  # the loop was closed meanwhile: the process ends, and nobody wants the key


def _hand_over(future: asyncio.Future[rsa.RSAPrivateKey], key: rsa.RSAPrivateKey) -> None:
    if not future.done():
        future.set_result(key)
