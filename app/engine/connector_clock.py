"""The Connector's clock, as its `Date` headers tell it."""

from collections.abc import Callable
from datetime import datetime, timedelta


class ConnectorClock:
    """Goes on by itself between answers, by a clock of ours that nobody can set."""

    def __init__(self, elapsed: Callable[[], timedelta]) -> None:
        self._elapsed = elapsed
        self._last: tuple[datetime, timedelta] | None = None

    def note(self, date: datetime) -> None:
        """The `Date` of an answer that has just arrived; whole seconds, so up to one late."""
        self._last = (date, self._elapsed())

    def now(self) -> datetime | None:
        """None before the first answer."""
        if self._last is None:
            return None
        date, at = self._last
        return date + (self._elapsed() - at)
