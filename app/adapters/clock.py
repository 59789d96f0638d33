"""Time: the only place that asks the system for it, or waits for it to pass."""

import asyncio
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """The system's clocks. Tests bring their own."""

    def now(self) -> datetime:
        """The wall clock, aware UTC; it can be set, and then jumps."""
        return datetime.now(UTC)

    def elapsed(self) -> timedelta:
        """Time since boot, suspends included; nobody can set it."""
        return timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))

    def monotonic(self) -> timedelta:
        """Time since boot without suspends: what says whether a loop still turns."""
        return timedelta(seconds=time.monotonic())

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())

    async def wait(self, event: asyncio.Event, timeout: timedelta) -> None:
        """Return when the event is set, or when the time is over."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await event.wait()
        except TimeoutError:
            return
