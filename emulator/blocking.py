"""The emulator for tests that have no event loop: it runs in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from .director import TokenForms
from .options import EmulatorOptions, Endpoints
from .service import Emulator

T = TypeVar("T")
_PATIENCE_SECONDS = 60.0  # for a start with new RSA keys, or for one call, on a busy machine


class BlockingEmulator:
    """What `Emulator` offers, from any thread: `with BlockingEmulator.start(options) as emulator:`."""

    def __init__(self, emulator: Emulator, loop: asyncio.AbstractEventLoop) -> None:
        self._emulator = emulator
        self._loop = loop

    @classmethod
    @contextmanager
    def start(cls, options: EmulatorOptions) -> Iterator["BlockingEmulator"]:
        """A running emulator; raises EmulatorError when it cannot start, ValueError for a bad fault."""
        started: Future[BlockingEmulator] = Future()
        stopping: Future[None] = Future()
        thread = threading.Thread(target=lambda: asyncio.run(_serve(options, started, stopping)), daemon=True)
        thread.start()
        try:
            yield started.result(_PATIENCE_SECONDS)
        finally:
            stopping.set_result(None)
            thread.join(_PATIENCE_SECONDS)

    @property
    def endpoints(self) -> Endpoints:
        """URLs, files, and the one-time token of this start."""
        return self._emulator.endpoints

    @property
    def counters(self) -> dict[str, Any]:
        """Calls per operation, signatures, tokens minted, and so on."""
        return self._call(lambda emulator: emulator.counters)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The last 200 requests, oldest first."""
        return self._call(lambda emulator: emulator.requests)

    @property
    def issued(self) -> list[dict[str, Any]]:
        """Issued certificates, oldest first."""
        return self._call(lambda emulator: emulator.issued)

    def state(self) -> dict[str, Any]:
        """What `GET /` of the control endpoint answers."""
        return self._call(lambda emulator: emulator.state())

    def fault(self, spec: str) -> None:
        """Activates `NAME[@operation][*count][:parameter]`; raises ValueError."""
        self._call(lambda emulator: emulator.fault(spec))

    def clear_faults(self) -> None:
        """Deactivates all faults, chaos included."""
        self._call(lambda emulator: emulator.clear_faults())

    def set_chaos(self, rate: float, seed: int | None = None) -> None:
        """Random faults at this rate from 0 to 1; raises ValueError."""
        self._call(lambda emulator: emulator.set_chaos(rate, seed))

    def token(self, *, ttl: timedelta | None = None, consumer_type: str | None = None) -> TokenForms:
        """A new one-time token of a new pairing; raises ValueError."""
        return self._call(lambda emulator: emulator.token(ttl=ttl, consumer_type=consumer_type))

    def revoke(self, fingerprint: str) -> None:
        """Revokes a certificate by its hex SHA-256."""
        self._call(lambda emulator: emulator.revoke(fingerprint))

    def forget(self, client_id: str) -> bool:
        """Deletes a system auth; whether there was one."""
        return self._call(lambda emulator: emulator.forget(client_id))

    def set_clock_offset(self, offset: timedelta) -> None:
        """Moves the Connector's clock; TLS stays on the real one."""
        self._call(lambda emulator: emulator.set_clock_offset(offset))

    def set_lifetime(self, lifetime: timedelta) -> None:
        """Of certificates signed from now on; raises ValueError below a second."""
        self._call(lambda emulator: emulator.set_lifetime(lifetime))

    def set_subject(self, subject: str) -> None:
        """Changes the operator's constants; raises ValueError."""
        self._call(lambda emulator: emulator.set_subject(subject))

    def replace_client_ca(self, *, keep_connections: bool = False) -> None:
        """A new client CA: what the old one signed gets alert 48 in a new handshake."""
        self._run(self._emulator.replace_client_ca(keep_connections=keep_connections))

    def outage(self, seconds: float) -> None:
        """Both listeners refuse connections for so long; 0 ends an outage."""
        self._run(self._emulator.outage(seconds))

    def reset_counters(self) -> None:
        """All counters to zero, the requests forgotten."""
        self._call(lambda emulator: emulator.reset_counters())

    def _call(self, act: Callable[[Emulator], T]) -> T:
        async def acting() -> T:
            return act(self._emulator)

        return self._run(acting())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)


async def _serve(
    options: EmulatorOptions, started: "Future[BlockingEmulator]", stopping: "Future[None]"
) -> None:
    try:
        async with Emulator.start(options) as emulator:
            started.set_result(BlockingEmulator(emulator, asyncio.get_running_loop()))
            await asyncio.wrap_future(stopping)
    except Exception as error:
        if started.done():
            raise
        started.set_exception(error)
