"""What happened, told once: a line in the log, a line in the journal."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import partial

from ..core.catalogue import Event
from ..core.text import printable_fields, rfc3339

_log = logging.getLogger("compass_sidecar.engine.events")
# The newest in the status; the journal on disk has the rest.
SHOWN = 20
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING}


class EventLog:
    """Never raises and never waits: `append(entry)` and `observe(event, details)` have to return at once."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        append: Callable[[Mapping[str, object]], object],
        tail: list[dict[str, object]],
        observe: Callable[[str, Mapping[str, object]], None] = lambda *_: None,
    ) -> None:
        self._now = now
        self._append = append
        self._observe = observe
        self._newest: deque[Mapping[str, object]] = deque(map(printable_fields, tail), maxlen=SHOWN)
        self._correlation_id: ContextVar[str | None] = ContextVar("correlation_id", default=None)

    @contextmanager
    def about(self, correlation_id: str) -> Iterator[None]:
        """What this task records meanwhile has that `correlation_id`."""
        token = self._correlation_id.set(correlation_id)
        try:
            yield
        finally:
            self._correlation_id.reset(token)

    def record(self, event: Event, **details: object) -> None:
        details["correlation_id"] = self._correlation_id.get()
        shown = printable_fields(details)
        _log.log(_LEVELS[event.level], event, extra=shown)
        entry = {"at": rfc3339(self._now()), "event": event.value, **shown}
        self._newest.append(entry)
        for tell in (partial(self._observe, event, shown), partial(self._append, entry)):
            try:
                tell()
            except Exception:  # noqa: BLE001 - such as no thread for the journal: no reason to fail a renewal
                _log.exception(Event.INTERNAL_ERROR, extra={"detail": "metrics or journal miss an event"})

    def newest(self) -> tuple[Mapping[str, object], ...]:
        """The newest entries, newest last."""
        return tuple(self._newest)
