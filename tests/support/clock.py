"""A clock that only moves when somebody waits for it."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from compass_sidecar.core.generation import Mark
from tests.support.authority import NOW


class FakeClock:
    """`step` sets the wall clock alone, as an operator or NTP does; `suspend` lets all but monotonic run."""

    def __init__(self, now: datetime = NOW) -> None:
        self._now = now
        self._elapsed = timedelta(0)
        self._monotonic = timedelta(0)
        # A day has 2,880 looks: to get through months, each wait takes at least this long.
        self.stride = timedelta(0)
        self.boot_id = "this boot"
        self.busy: Callable[[], bool] = lambda: False

    def now(self) -> datetime:
        return self._now

    def elapsed(self) -> timedelta:
        return self._elapsed

    def monotonic(self) -> timedelta:
        return self._monotonic

    def mark(self) -> Mark:
        return Mark(self.boot_id, self._elapsed)

    def advance(self, duration: timedelta) -> None:
        self._now += duration
        self._elapsed += duration
        self._monotonic += duration

    def suspend(self, duration: timedelta) -> None:
        self._now += duration
        self._elapsed += duration

    def step(self, duration: timedelta) -> None:
        self._now += duration

    async def sleep(self, duration: timedelta) -> None:
        self.advance(duration)
        await asyncio.sleep(0)

    async def wait(self, event: asyncio.Event, timeout: timedelta) -> None:
        """While something runs, time stands still until it ends; else the time is over at once."""
        while self.busy() and not event.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        if not event.is_set():
            self.advance(max(timeout, self.stride))
