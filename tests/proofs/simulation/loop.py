"""An event loop without a clock: time jumps to the next timer."""

import asyncio
import selectors
from typing import Any

# Turns of the loop in one instant: a renewal takes a few dozen.
_TURNS = 10_000


class Deadlock(RuntimeError):
    """Everything waits and no timer will end it; or something turns and never waits."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual seconds since the start. No file descriptor is ever looked at."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_Jumping(self))
        # After half a year a float of seconds is no finer; timers of that instant would never be run.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._virtual

    def jump(self) -> None:
        """To the next timer, exactly: adding a difference to a large number may not move it at all."""
        if not self._scheduled:  # type: ignore[attr-defined]
            raise Deadlock("everything waits, and there is no timer")
        self._virtual = max(self._virtual, self._scheduled[0].when())  # type: ignore[attr-defined]


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._at, self._turns = 0.0, 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._loop.jump()
        self._turns = self._turns + 1 if self._loop.time() == self._at else 0
        self._at = self._loop.time()
        if self._turns > _TURNS:
            raise Deadlock(f"time stands still at {self._at:.3f}: something never waits")
        return []
