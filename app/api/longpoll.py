"""Waiting for the sidecar on behalf of a client: for another certificate, or for an attempt to end."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from starlette.types import Receive

from ..core.text import parse_duration
from ..engine.ports import Sidecar
from ..errors import TooManyWaiters
from .problems import Refusal

LONGEST = timedelta(minutes=5)
WAIT_PATTERN = r"([0-9]+(\.[0-9]+)?|\.[0-9]+)(d|h|m|s|ms)?"
_PLACES = 1000
# An attempt that runs when the process is told to end gets this long to be answered in full.
_LAST_CALL = timedelta(seconds=2)


def parse_wait(text: str) -> timedelta:
    """As in the settings; what is longer than LONGEST is LONGEST."""
    if re.fullmatch(WAIT_PATTERN, text) is None:
        raise Refusal("bad-request", "The query parameter `wait` is not a duration such as 30s or 500ms.")
    with suppress(ValueError):
        return min(parse_duration(text), LONGEST)
    return LONGEST


class LongPoll:
    """Holds clients until something is so; a bounded number of them."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._taken = 0

    async def wait(self, reached: Callable[[], bool], patience: timedelta, receive: Receive) -> None:
        """Return when `reached()`, the time is over, the process ends, or the client has left.

        Raises TooManyWaiters instead of waiting.
        """
        if reached() or not patience or self._sidecar.stopping():
            return
        with self._place():
            await self._until(reached, patience, receive)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._taken >= _PLACES:
            raise TooManyWaiters(f"{_PLACES} clients are waiting already; ask again without `wait`.")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def ended(self, task: "asyncio.Task[Any]", patience: timedelta, receive: Receive) -> bool:
        """Whether the task has a result, or a failure, in time. It goes on in any case."""
        await self._until(task.done, patience, receive, task)
        if self._sidecar.stopping() and not task.done():
            await asyncio.wait({task}, timeout=_LAST_CALL.total_seconds())
        return task.done() and not task.cancelled()

    async def _until(
        self, reached: Callable[[], bool], patience: timedelta, receive: Receive, *tasks: "asyncio.Task[Any]"
    ) -> None:
        """What ends a wait is looked at after each change, and when one of `tasks` has ended."""
        gone = asyncio.create_task(_disconnected(receive))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience.total_seconds()):
                    while not (reached() or self._sidecar.stopping() or gone.done()):
                        await _first(self._sidecar.changed(), gone, *tasks)
        finally:
            gone.cancel()


async def _first(event: asyncio.Event, *tasks: "asyncio.Task[Any]") -> None:
    """Return when the event is set or a task has ended; none of them is disturbed."""
    changed = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({changed, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        changed.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
