"""One process of the sidecar in the simulation, and how its calls go wrong."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from compass_sidecar.core.generation import Mark

from .world import World

T = TypeVar("T")


class Life:
    """From start to kill. After its death no call of it does anything, nor ever ends."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = asyncio.Event()
        self.after: Callable[[], None] = lambda: None

    async def call(
        self,
        name: str,
        act: Callable[[], T],
        *,
        errors: tuple[Callable[[Any], Exception], ...],
        limit: timedelta,
        late: Callable[[], Exception],
        slow: timedelta = timedelta(milliseconds=20),
    ) -> T:
        """One call of a port: it may be slow, hang, fail, lose its answer after it acted, or be the last."""
        world = self.world
        await self._alive()
        fate = self._fate()
        world.say(f"{name}: {fate}")
        await self._pause(world.between(timedelta(0), slow))
        match fate:
            case "fails":
                raise world.chance.choice(errors)(world.chance)
            case "hangs":
                await self._pause(limit)
                raise late()
            case "is slow":
                await self._pause(world.between(slow, limit))
            case "is cut before":
                await self.die()
        result = act()
        self.after()
        match fate:
            case "loses its answer":
                raise world.chance.choice(errors)(world.chance)
            case "is cut after":
                await self.die()
        return result

    def _fate(self) -> str:
        world = self.world
        if not world.happens(world.storm):
            return "succeeds"
        fates = ("fails", "hangs", "is slow", "loses its answer", "is cut before", "is cut after")
        return world.chance.choices(fates, weights=(6, 1, 2, 3, 0.5, 0.5))[0]

    async def die(self) -> None:
        self.world.say("the process is killed")
        self.dead.set()
        await asyncio.get_running_loop().create_future()

    async def _pause(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())
        await self._alive()

    async def _alive(self) -> None:
        if self.dead.is_set():
            await asyncio.get_running_loop().create_future()


class SimulatedClock:
    """The engine's clock. A look of the loop takes `look` at least, so that 90 days need no 260,000."""

    def __init__(self, world: World, look: timedelta) -> None:
        self._world = world
        self._look = look

    def now(self) -> datetime:
        return self._world.our_time()

    def elapsed(self) -> timedelta:
        return self._world.elapsed()

    def monotonic(self) -> timedelta:
        return self._world.elapsed()

    def mark(self) -> Mark:
        return Mark("one boot", self._world.elapsed())

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())

    async def wait(self, event: asyncio.Event, timeout: timedelta) -> None:
        timeout = max(timeout, self._look) if timeout >= timedelta(seconds=30) else timeout
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await event.wait()
        except TimeoutError:
            return
