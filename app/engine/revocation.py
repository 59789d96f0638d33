"""Revocation at the Connector: of the certificate in use, and of superseded ones when their time comes.

The Connector may act although its answer is lost. From then on it refuses the certificate with the empty 400,
which has other causes too: see `_Evidence`.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from ..core.catalogue import Event
from ..core.door import Door
from ..core.generation import Facts, Generation
from ..core.policy import backoff, lives
from ..errors import ConnectorError, NotCurrent, NotRecognised, SidecarError, StoreError
from .ports import Clock, Connector, Journal, Store

# Two refusals this far apart are more than one hiccup of the Director behind the Connector.
_APART = timedelta(minutes=1)
# Revocations under way at the same time: one that hangs delays no other, and an outage's end is no herd.
_AT_ONCE = 8
_LOST = "the answer was lost; the Connector refuses this certificate now"
_REFUSED = "the Connector refuses this certificate, and accepts the one in use"
_log = logging.getLogger("compass_sidecar.engine.revocation")
T = TypeVar("T")


class Disk(Protocol):
    """Runs a blocking call of the store in a thread. Raises what it raises, and StoreError."""

    def __call__(self, call: Callable[..., T], *args: object) -> Awaitable[T]: ...


class Holder(Protocol):
    """Who holds the credential in use."""

    generation: Generation | None

    def door(self, generation: Generation, correlation_id: str) -> Door: ...

    async def amend(self, **changes: Any) -> None:
        """Change what is known of the generation in use. A StoreError leaves the change in memory."""

    async def drop_pending(self, why: str) -> None: ...


@dataclass(slots=True)
class _Evidence:
    """What failed calls say about whether a certificate is revoked."""

    lost: bool = False
    refused_at: timedelta | None = None

    def is_proof(self, error: SidecarError, elapsed: timedelta) -> bool:
        """Whether it is revoked: after a lost answer, two empty 400s at least a minute apart."""
        if not isinstance(error, NotRecognised):
            self.lost = self.lost or _lost(error)
            return False
        if self.refused_at is None:
            self.refused_at = elapsed
        return self.lost and elapsed - self.refused_at >= _APART


def _lost(error: SidecarError) -> bool:
    """Whether the Connector may have acted all the same."""
    if not isinstance(error, ConnectorError) or not error.arrived:
        return False
    return error.status is None or error.status >= 500


@dataclass(slots=True)
class _Retry:
    """When the next try is due, by a clock that cannot be set."""

    failures: int = 0
    due_at: timedelta = timedelta(0)

    def wait(self, elapsed: timedelta) -> timedelta:
        return max(self.due_at - elapsed, timedelta(0))

    def failed(
        self, error: SidecarError, generation: Generation, *, now: datetime, elapsed: timedelta, draw: float
    ) -> None:
        self.failures += 1
        wait = backoff(error, self.failures, chain=generation.chain, now=now, draw=draw)
        # A second empty 400 counts a minute after the first, and not before.
        self.due_at = elapsed + (max(wait, _APART) if isinstance(error, NotRecognised) else wait)


class Revocation:
    """Of the certificate in use. After a lost answer it is repeated until the outcome is known."""

    def __init__(self, holder: Holder, *, clock: Clock, connector: Connector, journal: Journal) -> None:
        self._holder = holder
        self._clock = clock
        self._connector = connector
        self._journal = journal
        self._evidence = _Evidence()
        self._retry = _Retry()

    def wait(self) -> timedelta | None:
        """How long until the next try after a lost answer; None without one."""
        generation = self._holder.generation
        if (
            generation is None
            or not _is_open(generation.facts)
            or not lives(generation.chain, self._clock.now())
        ):
            return None
        return self._retry.wait(self._clock.elapsed())

    async def revoke(self, fingerprint: str, correlation_id: str, *, draw: float) -> str | None:
        """Revoke; how that is known if the Connector did not say so. The caller holds the lock.

        Raises NotCurrent, ConnectorError or StoreError.
        """
        generation = self._holder.generation
        if generation is None or generation.chain.fingerprint != fingerprint:
            raise NotCurrent("the fingerprint to confirm is not the current certificate's")
        if _is_open(generation.facts):
            self._evidence.lost = True
        else:
            self._evidence, self._retry = _Evidence(), _Retry()
            # Before the call, since a kill during it loses the answer too.
            await self._note(revoke_sent_at=self._clock.now())
        self._retry.due_at = self._clock.elapsed() + _APART
        try:
            await self._connector.revoke(self._holder.door(generation, correlation_id))
            detail = None
        except SidecarError as error:
            if not self._evidence.is_proof(error, self._clock.elapsed()):
                await self._fail(generation, error, draw)
                raise
            detail = _LOST
        await self._holder.drop_pending("the credential was revoked")
        await self._note(revoke_sent_at=None, revoked_at=self._clock.now())
        return detail

    async def _fail(self, generation: Generation, error: SidecarError, draw: float) -> None:
        if self._evidence.lost:
            error.detail += "; the certificate may be revoked already, and the sidecar tries again"
        else:
            await self._note(revoke_sent_at=None)
        _record_failure(self._journal, error, generation)
        self._retry.failed(error, generation, now=self._clock.now(), elapsed=self._clock.elapsed(), draw=draw)

    async def _note(self, **changes: datetime | None) -> None:
        try:
            await self._holder.amend(**changes)
        except StoreError as error:
            self._journal.record(Event.REVOCATION_NOT_SCHEDULED, code=error.code, detail=error.detail)


def _is_open(facts: Facts) -> bool:
    """Whether a revocation was sent, and its outcome is not known."""
    return facts.revoke_sent_at is not None and facts.revoked_at is None


@dataclass(slots=True, eq=False)
class Waiting:
    """A superseded certificate that is to be revoked."""

    generation: Generation
    retry: _Retry = field(default_factory=_Retry)
    evidence: _Evidence = field(default_factory=_Evidence)
    problem: str | None = None
    under_way: bool = False


class Superseded:
    """Certificates that wait to be revoked with their own keys. Each is looked at when its time comes, and
    has its own backoff; one that expires has left."""

    def __init__(
        self,
        holder: Holder,
        *,
        clock: Clock,
        store: Store,
        connector: Connector,
        disk: Disk,
        journal: Journal,
        after: timedelta | None,
    ) -> None:
        self._holder = holder
        self._clock = clock
        self._store = store
        self._connector = connector
        self._disk = disk
        self._journal = journal
        self._after = after
        self._waiting: list[Waiting] = []

    async def restore(self) -> None:
        """Take up those that an earlier process left. Raises StoreError."""
        for each in await self._disk(self._store.generations):
            self.add(each)

    async def schedule(self, previous: Generation, successor: str) -> Generation:
        """Note on disk when `previous` is to be revoked; `add` it once its successor is in use.

        Noted before the switch, so that a kill at the switch forgets nothing.
        """
        facts, now = previous.facts, self._clock.now()
        if facts.revoked_at is not None or previous.chain.fingerprint == successor:
            return previous
        revoke_at = now + self._after if self._after is not None else None
        if facts.revoke_sent_at is not None:
            revoke_at = now  # an operator wanted that, and the answer was lost
        if revoke_at == facts.revoke_at:
            return previous
        facts = replace(facts, revoke_at=revoke_at)
        try:
            return await self._disk(self._store.amend, previous, facts)
        except StoreError as error:
            self._journal.record(Event.REVOCATION_NOT_SCHEDULED, code=error.code, detail=error.detail)
            return replace(previous, facts=facts)

    def add(self, superseded: Generation) -> None:
        """From now on it is revoked when its time comes, if it has one."""
        if superseded.facts.revoke_at is not None and superseded.facts.revoked_at is None:
            self._waiting.append(Waiting(superseded))

    def wait(self) -> timedelta | None:
        """How long until the next one is due; None if none is, or if enough are under way."""
        return min((self._wait(each) for each in self._startable()), default=None)

    def due(self) -> list[Waiting]:
        """Those whose time has come. `revoke` each of them."""
        return [each for each in self._startable() if not self._wait(each)]

    def failing(self) -> bool:
        return any(each.problem for each in self._remaining())

    def _remaining(self) -> list[Waiting]:
        now, current = self._clock.now(), self._holder.generation
        fingerprint = current.chain.fingerprint if current is not None else None
        self._waiting = [
            each
            for each in self._waiting
            if lives(each.generation.chain, now) and each.generation.chain.fingerprint != fingerprint
        ]
        return self._waiting

    def _startable(self) -> list[Waiting]:
        """As many as may begin now, those first that are due first."""
        room = _AT_ONCE - sum(each.under_way for each in self._remaining())
        return sorted((each for each in self._waiting if not each.under_way), key=self._wait)[:room]

    def _wait(self, waiting: Waiting) -> timedelta:
        now = self._clock.now()
        by_wall_clock = (waiting.generation.facts.revoke_at or now) - now
        return max(by_wall_clock, waiting.retry.wait(self._clock.elapsed()))

    async def revoke(self, waiting: Waiting, correlation_id: str, *, draw: float) -> None:
        """Revoke it; a failure is recorded, and tried again. Needs no lock: it is not the one in use."""
        waiting.under_way, waiting.retry.due_at = True, self._clock.elapsed() + _APART
        with self._journal.about(correlation_id):
            try:
                detail = await self._revoke(waiting, correlation_id)
            except SidecarError as error:
                self._fail(waiting, error, draw)
            except Exception as error:  # noqa: BLE001 - a bug must not stop later tries
                _log.exception(
                    Event.INTERNAL_ERROR, extra={"detail": "a superseded certificate is not revoked"}
                )
                self._fail(waiting, SidecarError(f"an unexpected {type(error).__name__}"), draw)
            else:
                await self._done(waiting, detail)
            finally:
                waiting.under_way = False

    async def _revoke(self, waiting: Waiting, correlation_id: str) -> str | None:
        """How it is known to be revoked, if the Connector did not say so."""
        try:
            await self._connector.revoke(self._holder.door(waiting.generation, correlation_id))
        except SidecarError as error:
            if waiting.evidence.is_proof(error, self._clock.elapsed()):
                return _LOST
            if isinstance(error, NotRecognised) and await self._accepts_ours(correlation_id):
                return _REFUSED
            raise
        return None

    async def _accepts_ours(self, correlation_id: str) -> bool:
        current = self._holder.generation
        if current is None:
            return False
        try:
            await self._connector.probe(self._holder.door(current, correlation_id))
        except SidecarError:
            return False
        return True

    def _fail(self, waiting: Waiting, error: SidecarError, draw: float) -> None:
        generation, now, elapsed = waiting.generation, self._clock.now(), self._clock.elapsed()
        waiting.retry.failed(error, generation, now=now, elapsed=elapsed, draw=draw)
        if waiting.problem != error.detail:  # not at every try
            waiting.problem = error.detail
            _record_failure(self._journal, error, generation)

    async def _done(self, waiting: Waiting, detail: str | None) -> None:
        self._waiting = [each for each in self._waiting if each is not waiting]
        generation = waiting.generation
        self._journal.record(
            Event.SUPERSEDED_REVOKED, fingerprint=generation.chain.fingerprint, detail=detail
        )
        facts = replace(generation.facts, revoke_sent_at=None, revoked_at=self._clock.now())
        with suppress(StoreError):  # the next start asks the Connector once more
            await self._disk(self._store.amend, generation, facts)


def _record_failure(journal: Journal, error: SidecarError, generation: Generation) -> None:
    journal.record(
        Event.REVOCATION_FAILED,
        code=error.code,
        detail=error.detail,
        fingerprint=generation.chain.fingerprint,
    )
