"""Time: the only place that asks the system for it, or waits for it to pass."""

import asyncio
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..core.generation import Mark

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """The system's clocks. Tests bring their own."""

    def __init__(self) -> None:
        try:
            self._boot_id = _BOOT_ID.read_bytes().decode().strip()
        except OSError:  # as in some sandboxes: then no mark survives a restart
            self._boot_id = str(uuid.uuid4())

    def now(self) -> datetime:
        """The wall clock, aware UTC; it can be set, and then jumps."""
        return datetime.now(UTC)

    def elapsed(self) -> timedelta:
        """Time since boot, suspends included; nobody can set it."""
        return timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))

    def mark(self) -> Mark:
        """This moment, for a process that may start later."""
        return Mark(self._boot_id, self.elapsed())

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
