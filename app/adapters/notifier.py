"""Notifying consumers: which notice each channel delivers next, and what the store records of it.

Each channel has a queue and a task of its own, so that a consumer that fails, hangs or floods never fails
or delays a renewal. `core/notice.py` says what is recorded, and why.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from ..core.catalogue import Event
from ..core.generation import Generation
from ..core.notice import AT_LEAST_ONCE, TRIES, Notice, from_record, newest_change, notice_of, to_record
from ..errors import NotificationError
from . import files
from .worker import Worker

# Events are rare: a receiver that has missed this many has no use for all of them.
_LONGEST_QUEUE = 100
Task = Callable[[], Coroutine[Any, Any, None]]
_log = logging.getLogger("compass_sidecar.notifier")


class Channel(Protocol):
    """One way to a consumer. With `latest_only` a new notice replaces those that still wait."""

    latest_only: bool

    def wants(self, event: str) -> bool: ...

    async def deliver(self, notice: Notice) -> None:
        """Raises NotificationError if the consumer failed, and OSError if this machine lacks something.

        Every exception but the first cuts the try off, so that it is made again.
        """


class Store(Protocol):
    """Blocking; each raises StoreError."""

    def notifications(self) -> dict[str, Any] | None: ...
    def save_notifications(self, record: Mapping[str, Any]) -> None: ...


class Clock(Protocol):
    def now(self) -> datetime: ...
    async def wait(self, event: asyncio.Event, timeout: timedelta) -> None: ...


class _Queue:
    """What one channel has to deliver, the oldest first, and the newest change that it knows of."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.waiting: list[Notice] = []
        self.newest: Notice | None = None
        self.changed = asyncio.Event()

    def restore(self, record: list[Mapping[str, Any]]) -> None:
        """KeyError, TypeError or ValueError if this is no record."""
        notices = [from_record(each) for each in record]
        self.waiting = [each for each in notices if not each.told]
        self.newest = notices[-1] if notices else None
        self.changed.set()

    def record(self) -> list[dict[str, Any]]:
        notices = [each for each in self.waiting if each.event in AT_LEAST_ONCE]
        if self.newest is not None and self.newest.told:
            notices.append(self.newest)
        return [to_record(each) for each in notices]

    def put(self, notice: Notice) -> None:
        if self.channel.latest_only:
            self.waiting.clear()
        self.waiting = [*self.waiting, notice][-_LONGEST_QUEUE:]
        if notice.event in AT_LEAST_ONCE:
            self.newest = notice
        self.changed.set()

    def update(self, old: Notice, **changes: Any) -> Notice:
        """The changed notice. What a newer notice has replaced stays replaced."""
        new = replace(old, **changes)
        remaining = [] if new.told else [new]
        self.waiting = [each for other in self.waiting for each in (remaining if other is old else [other])]
        self.newest = new if self.newest is old else self.newest
        return new


class Notifier:
    """What `tasks` has must run; `report(kind, error)` hears how each delivery ended."""

    def __init__(
        self,
        channels: Mapping[str, Channel | None],
        *,
        store: Store,
        disk: Worker,
        clock: Clock,
        new_id: Callable[[], str],
        report: Callable[[str, NotificationError | None], None],
    ) -> None:
        self._queues = {kind: _Queue(channel) for kind, channel in channels.items() if channel}
        self._store = store
        self._disk = disk
        self._clock = clock
        self._new_id = new_id
        self._report = report
        self._record: dict[str, Any] = {}
        self._saving = asyncio.Lock()
        self._changed = asyncio.Event()

    async def restore(self, generation: Generation | None) -> None:
        """Read the record. For a channel that is not in it, what is current counts as delivered."""
        record = await self._disk.run(self._store.notifications)
        self._record = record or {}
        for kind, queue in self._queues.items():
            try:
                queue.restore(self._record[kind])
            except (KeyError, TypeError, ValueError):
                known = newest_change(generation, new_id=self._new_id()) if generation is not None else None
                queue.newest = replace(known, told=True) if known is not None else None
        await self._save()

    def announce(self, generation: Generation) -> None:
        """Deliver how this credential came into use, or that it was revoked, unless that is done."""
        notice = newest_change(generation, new_id=self._new_id())
        for queue in self._queues.values():
            if queue.newest is None or queue.newest.change != notice.change:
                self._put(queue, notice)

    def notify(self, event: str, generation: Generation | None, *, detail: str | None = None) -> None:
        """Deliver any other event."""
        notice = notice_of(event, generation, new_id=self._new_id(), at=self._clock.now(), detail=detail)
        for queue in self._queues.values():
            self._put(queue, notice)

    def _put(self, queue: _Queue, notice: Notice) -> None:
        if queue.channel.wants(notice.event):
            queue.put(notice)
            self._changed.set()

    # --- tasks ---------------------------------------------------------------------------------

    def tasks(self) -> dict[str, Task]:
        """What has to run, by name: each returns only when it is cancelled."""
        deliveries: dict[str, Task] = {kind: partial(self._deliver_all, kind) for kind in self._queues}
        return {**deliveries, "notifications": self._keep_record} if deliveries else {}

    async def _keep_record(self) -> None:
        """Save what was put into a queue while its channel is busy with another notice."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._save()

    async def _deliver_all(self, kind: str) -> None:
        queue = self._queues[kind]
        while True:
            queue.changed.clear()
            await self._go_on(kind, queue)

    async def _go_on(self, kind: str, queue: _Queue) -> None:
        notice = queue.waiting[0] if queue.waiting else None
        if notice is None:
            await queue.changed.wait()
        elif notice.tries >= TRIES:
            await self._end(kind, notice, NotificationError(f"the {kind} was cut off {TRIES} times"))
        elif wait := notice.wait(self._clock.now()):
            await self._clock.wait(queue.changed, wait)
        else:
            await self._deliver(
                kind, queue.update(notice, tries=notice.tries + 1, tried_at=self._clock.now())
            )

    async def _deliver(self, kind: str, notice: Notice) -> None:
        await self._save()
        try:
            await self._queues[kind].channel.deliver(notice)
        except NotificationError as error:
            await self._end(kind, notice, error)
        except OSError as error:
            _log.warning(Event.NOTIFICATION_RETRIED, extra={"kind": kind, "detail": files.reason(error)})
        except Exception:  # noqa: BLE001 - whatever it is, later notices are delivered
            _log.exception(Event.INTERNAL_ERROR, extra={"detail": f"the {kind} was cut off"})
        else:
            await self._end(kind, notice, None)

    async def _end(self, kind: str, notice: Notice, error: NotificationError | None) -> None:
        self._queues[kind].update(notice, told=True)
        await self._save()
        self._report(kind, error)

    async def _save(self) -> None:
        """A record that cannot be written stops no delivery."""
        async with self._saving:
            record = {**self._record, **{kind: queue.record() for kind, queue in self._queues.items()}}
            if record == self._record:
                return
            try:
                await self._disk.run(self._store.save_notifications, record)
            except Exception as error:  # noqa: BLE001 - nor does a thread that hangs
                _log.warning(Event.NOTIFICATION_NOT_RECORDED, extra={"detail": str(error)})
            else:
                self._record = record
