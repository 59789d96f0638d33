"""Waiting for the sidecar on behalf of a client: for another certificate, or for an attempt to end."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from starlette.types import Receive

from ..core.text import parse_duration
from ..errors import TooManyWaiters
from .ports import Sidecar
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


class WaitingRoom:
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
            gone = asyncio.create_task(_disconnected(receive))
            try:
                async with asyncio.timeout(patience.total_seconds()):
                    while not (reached() or self._sidecar.stopping() or gone.done()):
                        await _first(gone, self._sidecar.changed())
            except TimeoutError:
                return
            finally:
                gone.cancel()

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._taken >= _PLACES:
            raise TooManyWaiters(f"{_PLACES} clients are waiting already; ask again without `wait`.")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def ended(self, task: "asyncio.Task[Any]", patience: timedelta) -> bool:
        """Whether the task has a result, or a failure, in time. It goes on in any case."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                while not (task.done() or self._sidecar.stopping()):
                    await _first(task, self._sidecar.changed())
                if not task.done():
                    await asyncio.wait({task}, timeout=_LAST_CALL.total_seconds())
        return task.done() and not task.cancelled()


async def _first(task: "asyncio.Task[Any]", event: asyncio.Event) -> None:
    """Return when the task has ended or the event is set; neither is disturbed."""
    changed = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        changed.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
