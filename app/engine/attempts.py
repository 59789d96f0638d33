"""Attempts: a renewal, a connection or a revocation in a task of its own, and how they ended.

A caller who leaves cancels nothing. Renewals are single-flight: who comes while one runs joins it.
Connections and revocations wait for the same lock and are never joined.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from ..core.catalogue import Event
from ..core.credential import Chain
from ..core.generation import Generation, Origin
from ..core.policy import (
    ATTEMPT_LIMIT,
    FAILURES_BEFORE_DEGRADED,
    Failed,
    Policy,
    backoff,
    last_success,
    lives,
)
from ..core.status import LastError, Progress
from ..core.token import Fate, OneTimeToken
from ..errors import (
    Busy,
    ConnectorError,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    CredentialExpired,
    CredentialRevoked,
    NoCredential,
    NotCurrent,
    RenewedRecently,
    SidecarError,
)
from .ports import Clock, Journal, Notifier
from .renewal import Renewal, Renewed
from .supervision import Liveness

# When a token whose fate is unknown is presented again, counted from its first failure: the Director has had
# time to recover by then, and the caller of `/connect` still waits.
_MORE_TRIES = (timedelta(seconds=5), timedelta(seconds=20), timedelta(seconds=45))
# An operator who has not reacted to the first notice gets another a day later.
_REMIND = timedelta(days=1)
_log = logging.getLogger("compass_sidecar.engine.attempts")
T = TypeVar("T")
Work = Callable[[str], Awaitable[Generation]]


def _no_check() -> None:
    """For an attempt that nothing makes superfluous."""


class Attempts:
    """What runs now, and what came of the last."""

    def __init__(
        self,
        *,
        clock: Clock,
        renewal: Renewal,
        journal: Journal,
        notifier: Notifier,
        policy: Policy,
        new_id: Callable[[], str],
        draw: Callable[[], float],
        on_change: Callable[[], None],
        liveness: Liveness,
        limit: timedelta = ATTEMPT_LIMIT,
    ) -> None:
        self._clock = clock
        self._renewal = renewal
        self._journal = journal
        self._notifier = notifier
        self._policy = policy
        self._new_id = new_id
        self._draw = draw
        self._on_change = on_change
        self._liveness = liveness
        self._limit = limit
        self._renewing: asyncio.Task[Renewed] | None = None
        self._exclusive: asyncio.Task[Any] | None = None
        self._connecting: str | None = None  # the digest of the token that the exclusive task has used
        self._resting = False
        self._failed: tuple[timedelta, Failed] | None = None
        self._told: dict[str, timedelta] = {}
        self.progress = Progress()

    def running(self) -> set["asyncio.Task[Any]"]:
        """What is under way, but for a connection that waits until it tries its token again."""
        return self.tasks() - ({self._exclusive} if self._resting else set())

    def tasks(self) -> set["asyncio.Task[Any]"]:
        return {task for task in (self._renewing, self._exclusive) if task is not None and not task.done()}

    def busy(self) -> bool:
        """Whether a connection or a revocation is under way, or waits for its turn."""
        return self._exclusive is not None and not self._exclusive.done()

    def failed(self) -> Failed | None:
        """The last failure, if no success came after it."""
        if self._failed is None:
            return None
        at, failed = self._failed
        return replace(failed, ago=self._clock.elapsed() - at)

    def usable(self) -> bool:
        """Whether the credential in use is neither expired nor revoked by us."""
        generation = self._renewal.generation
        return (
            generation is not None
            and generation.facts.revoked_at is None
            and lives(generation.chain, self._clock.now())
        )

    # --- beginning -----------------------------------------------------------------------------

    def renew(self) -> asyncio.Task[Renewed]:
        """The renewal that runs, or a new one, whatever the backoff says."""
        if self._renewing is not None and not self._renewing.done():
            return self._renewing
        self._check_renewable()
        return self._renew_with(self._check_renewable, pause=timedelta(0))

    def renew_unless(self, check: Callable[[], None]) -> asyncio.Task[Renewed]:
        """The loop's renewal: `check` is asked again under the lock, and raises if it is not due any more."""
        return self._renew_with(check, pause=self._pause())

    def connect(self, token: OneTimeToken) -> asyncio.Task[Renewed]:
        """A new connection, or the one that this token has begun. Raises Busy or ConnectorError at once."""
        if self._connecting == token.digest and self.busy():
            return self._exclusive  # type: ignore[return-value]
        if self._renewal.is_pending(token):
            return self._resume()
        if self._renewal.is_spent(token):
            raise _refused("this one-time token was used before: request a new one")
        task = self._begin_exclusive(self._connect(token))
        self._connecting = token.digest
        return task

    def _resume(self) -> asyncio.Task[Renewed]:
        """What is pending is resumed by whichever attempt comes next."""
        if self._renewing is not None and not self._renewing.done():
            return self._renewing
        return self._renew_with(_no_check, pause=timedelta(0))

    def revoke(self, fingerprint: str) -> asyncio.Task[None]:
        """Raises Busy, NotCurrent, CredentialRevoked or NoCredential at once."""
        generation = self._renewal.generation
        if generation is None:
            raise NoCredential("there is no credential to revoke")
        if generation.chain.fingerprint != fingerprint:
            raise NotCurrent("the fingerprint to confirm is not the current certificate's")
        if generation.facts.revoked_at is not None:
            raise CredentialRevoked("the credential is revoked already")
        return self._begin_exclusive(self._revoke(fingerprint))

    def _check_renewable(self) -> None:
        generation = self._renewal.generation
        if generation is None:
            raise NoCredential("there is no credential yet; connect with a one-time token")
        if generation.facts.revoked_at is not None:
            raise CredentialRevoked("the credential was revoked; connect with a one-time token")
        if not self.usable():
            raise CredentialExpired("the credential has expired; connect with a one-time token")
        since = last_success(generation)
        passed = self._clock.now() - since if since is not None else self._policy.min_interval
        if timedelta(0) <= passed < self._policy.min_interval:
            raise RenewedRecently(
                "the last renewal was a moment ago", retry_after=self._policy.min_interval - passed
            )

    def _renew_with(self, check: Callable[[], None], *, pause: timedelta) -> asyncio.Task[Renewed]:
        work = partial(self._renewal.attempt, pause=pause)
        self._renewing = asyncio.create_task(self._make(Event.RENEWED, work, check=check))
        self._renewing.add_done_callback(self._ended)
        return self._renewing

    def _pause(self) -> timedelta:
        """The least time between two sign requests within an attempt of the loop."""
        generation = self._renewal.generation
        return self._policy.interval(generation.chain) if generation is not None else timedelta(0)

    def _begin_exclusive(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        if self.busy():
            work.close()
            raise Busy("a connection or a revocation is under way")
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._exclusive = task
        return task

    def _ended(self, task: "asyncio.Task[T]") -> None:
        if not task.cancelled():
            task.exception()  # looked at here, since perhaps nobody waits for it any more
        self._on_change()

    # --- running -------------------------------------------------------------------------------

    async def _make(self, event: Event, work: Work, *, check: Callable[[], None] = _no_check) -> Renewed:
        """One attempt, under an id that the Connector hears too.

        `check` is asked under the lock, since another attempt may have come first.
        """
        correlation_id = self._new_id()
        with self._journal.about(correlation_id):
            async with self._turn():
                check()
                return await self._attempt(event, work(correlation_id))

    async def _connect(self, token: OneTimeToken) -> Renewed:
        correlation_id = self._new_id()
        with self._journal.about(correlation_id):
            try:
                return await self._attempt(Event.CONNECTED, self._present(token, correlation_id))
            except SidecarError as error:
                if self.gave_up(token, error):
                    self._ask_for_token(error.detail)
                raise

    def gave_up(self, token: OneTimeToken, error: BaseException | None) -> bool:
        """Whether the token counts as spent after this failure."""
        refused = isinstance(error, ConnectorError) and not error.retryable
        return refused or (self._renewal.is_spent(token) and not self._renewal.is_pending(token))

    def _ask_for_token(self, detail: str) -> None:
        """At once, and not only when the last notice is a day old: this one was used up since then."""
        if not self.usable():
            self._told.pop("connect-needed", None)
            self.tell(Event.CONNECT_NEEDED, detail)

    async def _present(self, token: OneTimeToken, correlation_id: str) -> Generation:
        """Present the token, and again a few times while it is unknown whether it is spent.

        In between the lock is free: a renewal that is due does not wait.
        """
        first: timedelta | None = None
        for offset in (*_MORE_TRIES, None):
            try:
                async with self._turn():
                    return await self._renewal.connect(token, correlation_id)
            except SidecarError as error:
                fate = self._renewal.fate_of(token, error)
                if fate is not Fate.UNKNOWN or offset is None:
                    raise _judged(error, fate) from error
                self._journal.record(Event.TOKEN_RETRIED, code=error.code, detail=error.detail)
            now = self._clock.elapsed()
            first = first or now
            await self._rest(first + offset - now)
        raise AssertionError("the last try raises")

    async def _rest(self, pause: timedelta) -> None:
        self._resting = True
        self._on_change()
        try:
            await self._clock.sleep(max(pause, timedelta(0)))
        finally:
            self._resting = False

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The lock. The one who has it gives it back before the limit of an attempt, and a little more."""
        async with asyncio.timeout(2 * self._limit.total_seconds()):
            await self._renewal.lock.acquire()
        try:
            yield
        finally:
            self._renewal.lock.release()

    async def _attempt(self, event: Event, work: Awaitable[Generation]) -> Renewed:
        """Its outcome is in status and journal before anybody hears of it."""
        began, previous = self._clock.elapsed(), self._renewal.generation
        self._note(in_progress=True, last_attempt_at=self._clock.now())
        try:
            generation = await self._limited(work)
        except SidecarError as error:
            self._fail(error, event, began)
            raise
        except BaseException as error:
            if not _is_unexpected(error):
                raise
            _log.exception(Event.INTERNAL_ERROR, extra={"detail": "the credential in use is untouched"})
            failure = SidecarError(f"the attempt ended with an unexpected {type(error).__name__}")
            self._fail(failure, event, began)
            raise failure from error
        finally:
            self._note(in_progress=False)
        # What was resumed may have begun as a first connection.
        event = Event.CONNECTED if generation.facts.origin is Origin.CONNECT else event
        self.succeed(event, duration_seconds=self._seconds_since(began))
        replaced = previous.chain.fingerprint if previous is not None else None
        return Renewed(generation, replaced, self._clock.elapsed() - began)

    async def _limited(self, work: Awaitable[T]) -> T:
        with self._liveness.attempt():
            async with asyncio.timeout(self._limit.total_seconds()):
                return await work

    def _seconds_since(self, began: timedelta) -> float:
        return round((self._clock.elapsed() - began).total_seconds(), 3)

    async def _revoke(self, fingerprint: str) -> None:
        correlation_id = self._new_id()
        with self._journal.about(correlation_id):
            async with self._turn():
                revoking = self._renewal.revocation.revoke(fingerprint, correlation_id, draw=self._draw())
                detail = await self._limited(revoking)
            self._journal.record(Event.REVOKED, fingerprint=fingerprint, detail=detail)
        if self._renewal.generation is not None:
            self._notifier.announce(self._renewal.generation)
        self._on_change()

    def succeed(self, event: Event, **details: object) -> None:
        """Note that there is a new credential: everything starts anew."""
        generation = self._renewal.generation
        assert generation is not None  # noqa: S101 - what succeeds leaves one
        chain, failures = generation.chain, self.progress.consecutive_failures
        self._failed = None
        self._told.clear()
        self._journal.record(
            event, fingerprint=chain.fingerprint, not_after=chain.effective_not_after, **details
        )
        if recovered := failures >= FAILURES_BEFORE_DEGRADED:
            self._journal.record(Event.RECOVERED, fingerprint=chain.fingerprint, failures=failures)
        self._note(consecutive_failures=0, last_error=None, last_success_at=last_success(generation))
        if recovered:
            self._notifier.notify(Event.RECOVERED, generation)

    def _fail(self, error: SidecarError, event: Event, began: timedelta) -> None:
        # A refused token says nothing of the credential that we hold.
        counts = event is not Event.CONNECTED or not self.usable()
        if counts:  # before anything else: the backoff must not depend on what is told of the failure
            self._count(error)
        else:
            self._note(last_error=LastError(error.code, error.detail, error.retryable, self._clock.now()))
        self._journal.record(
            Event.ATTEMPT_FAILED,
            code=error.code,
            detail=error.detail,
            wanted=event.value,
            duration_seconds=self._seconds_since(began),
        )
        if counts and self.progress.consecutive_failures >= FAILURES_BEFORE_DEGRADED:
            self.tell(Event.RENEWAL_FAILED, error.detail)
        if isinstance(error, NoCredential):
            self._ask_for_token(error.detail)

    def _count(self, error: SidecarError) -> None:
        now, failures = self._clock.now(), self.progress.consecutive_failures + 1
        wait = backoff(error, failures, chain=self._chain_that_counts(), now=now, draw=self._draw())
        asked = isinstance(error, ConnectorUnavailable) and error.retry_after is not None
        self._failed = (self._clock.elapsed(), Failed(timedelta(0), wait, asked_to_wait=asked))
        self._note(
            consecutive_failures=failures,
            last_error=LastError(error.code, error.detail, error.retryable, now),
        )

    def _chain_that_counts(self) -> Chain | None:
        """Whose end the next attempt must come before; None when only what is pending counts."""
        generation = self._renewal.generation
        if generation is None or (self._renewal.pending is not None and not self.usable()):
            return None
        return generation.chain

    def tell(self, event: Event, detail: str) -> None:
        """A notice to people: once for each credential, and again every day."""
        now, last = self._clock.elapsed(), self._told.get(event)
        if last is not None and now - last < _REMIND:
            return
        self._told[event] = now
        self._journal.record(event, detail=detail)
        self._notifier.notify(event, self._renewal.generation, detail=detail)

    def _note(self, **changes: object) -> None:
        self.progress = replace(self.progress, **changes)  # type: ignore[arg-type]
        self._on_change()


def _judged(error: SidecarError, fate: Fate) -> SidecarError:
    """The error for the caller: `retryable` says whether the same token may be presented again."""
    if fate is Fate.UNKNOWN:
        return _refused(f"the one-time token counts as spent, request a new one: {error.detail}")
    error.retryable = fate is Fate.LEFT
    if fate is Fate.SPENT and not isinstance(error, NoCredential):  # which says so itself
        error.detail += "; the one-time token is spent: request a new one"
    return error


def _refused(detail: str) -> SidecarError:
    error = ConnectorUnauthenticated(detail)
    error.retryable = False
    return error


def _is_unexpected(error: BaseException) -> bool:
    """Whether this is a failure. A cancellation is one, unless it is ours at the end of the process."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)
