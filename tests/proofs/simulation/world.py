"""What is outside the engine: time, chance, and what survives a crash."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from compass_sidecar.errors import (
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    StoreWriteFailed,
)

T = TypeVar("T")
EPOCH = datetime(2026, 3, 1, tzinfo=UTC)
CALL_LIMIT = timedelta(seconds=40)  # what the Connector's adapter gives one call
DISK_LIMIT = timedelta(minutes=1)
_TRACE = 400

CONNECTOR_ERRORS: tuple[Callable[[random.Random], Exception], ...] = (
    lambda _: ConnectorUnavailable("no answer"),
    lambda chance: ConnectorUnavailable(
        "overloaded", retry_after=timedelta(seconds=chance.choice((0, 1, 30, 600, 10**6)))
    ),
    lambda _: ConnectorUnauthenticated("HTTP 400 with an empty body"),
    lambda _: ConnectorUntrusted("the server certificate does not verify"),
    lambda _: ConnectorRejected("it understood and refused"),
    lambda _: ConnectorProtocol("an answer that breaks the contract"),
    # Outside the error tree: a bug of ours, or of a library.
    lambda _: ValueError("a bug"),
    lambda _: UnicodeError("label empty or too long"),
    lambda _: RuntimeError("can't start new thread"),
    lambda _: MemoryError(),
    lambda _: OSError(24, "Too many open files"),
)
STORE_ERRORS: tuple[Callable[[random.Random], Exception], ...] = (
    lambda _: StoreWriteFailed("no space left on device"),
    lambda _: RuntimeError("can't start new thread"),
    lambda _: MemoryError(),
    lambda _: OSError(5, "Input/output error"),
)


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class World:
    """One story. `elapsed` is true time; the wall clocks of both sides may differ from it and jump."""

    seed: int
    lifetime: timedelta
    loop: asyncio.AbstractEventLoop
    chance: random.Random = field(init=False)
    our_error: timedelta = timedelta(0)  # our wall clock minus true time
    their_error: timedelta = timedelta(0)  # the Connector's clock minus true time
    date_error: timedelta | None = timedelta(0)  # its `Date` minus its clock; None: no `Date` at all
    storm: float = 0.0  # the probability that a call goes wrong
    calm_since: timedelta = timedelta(0)
    broken: Broken | None = None
    trace: deque[str] = field(default_factory=lambda: deque(maxlen=_TRACE))

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def elapsed(self) -> timedelta:
        return timedelta(seconds=self.loop.time())

    def true_time(self) -> datetime:
        return EPOCH + self.elapsed()

    def our_time(self) -> datetime:
        return self.true_time() + self.our_error

    def their_time(self) -> datetime:
        return self.true_time() + self.their_error

    def say(self, what: str) -> None:
        self.trace.append(f"{self.elapsed().total_seconds():16.3f} {what}")

    def check(self, holds: object, rule: str) -> None:
        """Raises Broken; the engine, which takes every exception for a failed attempt, cannot hide it."""
        if not holds:
            self.broken = self.broken or Broken(f"seed {self.seed}: {rule}")
            self.say(f"BROKEN {rule}")
            raise self.broken

    def calm(self) -> bool:
        return self.storm == 0.0

    def set_storm(self, probability: float) -> None:
        if probability == 0.0 and self.storm != 0.0:
            self.calm_since = self.elapsed()
        self.storm = probability
        self.say(f"weather: a call fails with probability {probability:.2f}")

    def happens(self, probability: float) -> bool:
        return self.chance.random() < probability

    def between(self, least: timedelta, most: timedelta) -> timedelta:
        return least + (most - least) * self.chance.random()
