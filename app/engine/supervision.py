"""Tasks that live as long as the process, and whether the sidecar makes progress.

    supervisor = Supervisor(clock.monotonic)
    supervisor.start("engine", sidecar.run)
    supervisor.stalled()            # why `/livez` answers 503, or None
    await supervisor.aclose()

A supervised task that ends with an exception is started again. A task that returns is done.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from ..core.catalogue import Event
from ..core.policy import ATTEMPT_LIMIT

# Three looks of the loop, which takes one every 30 s.
TURN_LIMIT = timedelta(seconds=90)
DECISION_LIMIT = timedelta(minutes=5)
# For what an attempt cleans up after its limit has ended it.
_MARGIN = timedelta(seconds=30)
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=30)
# A task that has run for this long works: its next failure is the first one again.
_SETTLED = timedelta(minutes=1)
# After half a minute of pauses.
_HOPELESS = 5
_END_LIMIT = timedelta(seconds=1)
_log = logging.getLogger("compass_sidecar.supervision")

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True, eq=False)
class _Supervised:
    name: str
    work: Work
    since: timedelta
    task: asyncio.Task[None] | None = None
    failures: int = 0


class Supervisor:
    """Starts long-lived tasks, and starts those again that fail. `monotonic` leaves suspends out."""

    def __init__(self, monotonic: Callable[[], timedelta], *, first_pause: timedelta = _FIRST_PAUSE) -> None:
        self._monotonic = monotonic
        self._first_pause = first_pause
        self._all: list[_Supervised] = []
        self._closing = False

    def start(self, name: str, work: Work) -> None:
        """Run `work()` until it returns. `name` is shown in the log and by `/livez`."""
        supervised = _Supervised(name, work, self._monotonic())
        self._all.append(supervised)
        self._begin(supervised)

    def stalled(self) -> str | None:
        """Which task cannot be started again, in a sentence; None if all run."""
        for each in self._all:
            settled = self._monotonic() - each.since >= _SETTLED
            # Without a task after that long, not even the restart could be arranged.
            if settled if each.task is None else each.failures >= _HOPELESS and not settled:
                return f"The task `{each.name}` cannot be kept running ({each.failures} failures in a row)."
        return None

    async def aclose(self) -> None:
        """Cancel all tasks. One that does not end soon is left behind."""
        self._closing = True
        running = [each.task for each in self._all if each.task is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_END_LIMIT.total_seconds())

    def _begin(self, supervised: _Supervised) -> None:
        if self._closing:
            return
        supervised.since = self._monotonic()
        try:
            supervised.task = asyncio.create_task(supervised.work(), name=supervised.name)
            supervised.task.add_done_callback(partial(self._ended, supervised))
        except Exception as error:  # noqa: BLE001 - such as MemoryError
            self._failed(supervised, error)

    def _ended(self, supervised: _Supervised, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._all.remove(supervised)
        elif not self._closing:
            self._failed(supervised, error)

    def _failed(self, supervised: _Supervised, error: BaseException) -> None:
        now = self._monotonic()
        supervised.failures = 1 if now - supervised.since >= _SETTLED else supervised.failures + 1
        supervised.task, supervised.since = None, now
        pause = min(self._first_pause * (1 << min(supervised.failures - 1, 10)), _LONGEST_PAUSE)
        asyncio.get_running_loop().call_later(pause.total_seconds(), self._begin, supervised)
        _log.error(
            Event.TASK_FAILED,
            exc_info=error,
            extra={"task": supervised.name, "failures": supervised.failures},
        )


class Liveness:
    """What the engine tells of its progress. Waiting for a time, a token or the Connector is progress."""

    def __init__(self, monotonic: Callable[[], timedelta]) -> None:
        self._monotonic = monotonic
        self._turned = monotonic()
        self._decided: timedelta | None = None
        self._attempts: list[timedelta] = []

    def turned(self) -> None:
        """The loop has looked and decided."""
        self._turned = self._monotonic()

    def decided(self) -> None:
        """The loop wants an attempt; the first such decision counts, until an attempt begins."""
        self._decided = self._decided if self._decided is not None else self._monotonic()

    def undecided(self) -> None:
        """There is nothing to do now."""
        self._decided = None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """An attempt is being made."""
        began, self._decided = self._monotonic(), None
        self._attempts.append(began)
        try:
            yield
        finally:
            self._attempts.remove(began)

    def stalled(self) -> str | None:
        """Why there is no progress, in a sentence; None while there is."""
        now = self._monotonic()
        if now - self._turned >= TURN_LIMIT:
            return "The renewal loop has not turned for 90 seconds."
        if self._decided is not None and now - self._decided >= DECISION_LIMIT:
            return "A renewal was decided 5 minutes ago, and no attempt has begun."
        if any(now - began >= ATTEMPT_LIMIT + _MARGIN for began in self._attempts):
            return "An attempt has lasted longer than its limit of 15 minutes."
        return None
