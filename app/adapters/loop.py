"""The event loop: uvloop, with name lookups in threads that hold up nothing else.

libuv aborts the process when it cannot start a thread; its pool and asyncio's are shared, and the end of the
process waits for them. Here a lookup without a thread is an error, and one that hangs is left behind.
"""

import asyncio
import socket
from collections import defaultdict
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import uvloop

from .worker import Worker

_T = TypeVar("_T")
# glibc asks three name servers twice, for 5 s each.
LIMIT = timedelta(seconds=30)
_AT_ONCE = 4  # of one name, so that a name whose lookup hangs does not use up the threads of the process
_KEPT = 2


class Loop(uvloop.Loop):
    """httpx looks names up with `getaddrinfo`; `create_connection` does it in libuv, so give it addresses."""

    def __init__(self) -> None:
        super().__init__()
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, _AT_ONCE))
        self._idle = [Worker("lookup", limit=LIMIT) for _ in range(_KEPT)]
        for worker in self._idle:
            with suppress(RuntimeError):  # made when it is needed
                worker.start()

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> list[Any]:
        """Raises socket.gaierror, also if there is no thread or no answer in time."""
        turn = self._turns[str(host)]
        try:
            async with asyncio.timeout(LIMIT.total_seconds()):
                await turn.acquire()
                return await asyncio.wrap_future(self._look_up(turn, host, port, **options))
        except TimeoutError as error:
            seconds = LIMIT.total_seconds()
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {seconds:g} s") from error

    def _look_up(self, turn: asyncio.Semaphore, *target: Any, **options: Any) -> "Future[list[Any]]":
        worker = self._idle.pop() if self._idle else Worker("lookup", limit=LIMIT)
        try:
            future = worker.submit(partial(socket.getaddrinfo, *target, **options))
        except RuntimeError as error:
            self._end(turn, worker)
            raise socket.gaierror(socket.EAI_MEMORY, "there is no thread for the lookup") from error
        future.add_done_callback(partial(self._ended, turn, worker))
        return future

    def _ended(self, turn: asyncio.Semaphore, worker: Worker, _future: "Future[list[Any]]") -> None:
        with suppress(RuntimeError):  # the loop is closed
            self.call_soon_threadsafe(self._end, turn, worker)

    def _end(self, turn: asyncio.Semaphore, worker: Worker) -> None:
        turn.release()
        self._idle.append(worker)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """`asyncio.run` on this loop."""
    return uvloop.run(main, loop_factory=Loop)
