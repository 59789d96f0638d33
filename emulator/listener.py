"""A listening port: it accepts, hands each connection to a handler, and can go away and come back.

While suspended the port stays bound without listening, so that clients are refused by the kernel, and nobody
else is given the port in the meantime.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from .line import Line

_BACKLOG = 512
_CONNECTIONS = 512  # at once; more are closed at once, rather than starving the process of descriptors
_PAUSE_SECONDS = 0.05  # after a failed accept (no descriptors left): others need a chance to close theirs

Handler = Callable[[Line], Awaitable[None]]


class Listener:
    """Opened once; `suspend` and `resume` may follow; closed at the end."""

    def __init__(self, host: str, port: int, handler: Handler) -> None:
        self.host = host
        self._handler = handler
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = port

    def open(self) -> None:
        """Binds and accepts; raises OSError. Port 0 becomes the one that was given."""
        self._socket = self._bind()
        self.port = self._socket.getsockname()[1]
        self._listen()

    async def close(self) -> None:
        """Refuses from now on, and ends every connection."""
        await self._stop()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def suspend(self) -> None:
        """Like `close`, keeping the port."""
        await self._stop()
        if self._socket is not None:
            self._socket.close()
            self._socket = self._bind()

    def resume(self) -> None:
        """Accepts again on the same port."""
        if self._accepting is None:
            self._listen()

    async def drop(self) -> None:
        """Ends every connection; new ones are welcome."""
        await _cancel(self._connections)

    def _bind(self) -> socket.socket:
        family, kind, protocol, _, address = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
        return bound

    def _listen(self) -> None:
        if self._socket is None:
            return
        self._socket.listen(_BACKLOG)
        self._accepting = asyncio.create_task(self._accept(self._socket))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if len(self._connections) >= _CONNECTIONS:
                connection.close()
                continue
            task = asyncio.create_task(self._serve(connection))
            self._connections.add(task)
            task.add_done_callback(self._finished)

    async def _serve(self, connection: socket.socket) -> None:
        line = Line(connection)
        try:
            await self._handler(line)
        except (OSError, TimeoutError):
            pass  # the peer left, or was kept for long enough
        finally:
            line.close()

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Anything but a lost peer is a bug of the emulator, and is logged with its traceback."""
        self._connections.discard(task)
        if not task.cancelled() and (error := task.exception()):
            context = {"message": "a connection failed", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _stop(self) -> None:
        if self._accepting is not None:
            await _cancel({self._accepting})
            self._accepting = None
        await _cancel(self._connections)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in (pending := list(tasks)):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*pending, return_exceptions=True)
