"""The loop: look, decide, act. Owns the status, and is what the local API talks to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from ..core.catalogue import EVENTS, Event, Reason
from ..core.credential import Credential
from ..core.policy import (
    ATTEMPT_LIMIT,
    LOOK,
    Connect,
    Decision,
    Policy,
    Renew,
    Situation,
    Wait,
    decide,
    last_success,
    nearly_over,
    renewal_at,
    unproven,
)
from ..core.status import State, Status, state_of
from ..core.text import rfc3339
from ..core.token import OneTimeToken, parse_token
from ..errors import (
    RenewedRecently,
    SettingsError,
    SidecarError,
)
from .attempts import Attempts
from .connector_clock import ConnectorClock
from .ports import Clock, Journal, Notifier
from .renewal import Renewal, Renewed
from .supervision import Liveness, Supervisor

# Codes of a proof that failed although the Connector answered.
_REFUSED = frozenset(
    {"connector-unauthenticated", "connector-rejected", "connector-protocol", "internal-error"}
)
# How long the loop waits for what it does besides, and for a token file: with the longest wait between two
# turns that stays below TURN_LIMIT. The work itself goes on, up to a limit of its own.
_CHORES_LIMIT = timedelta(seconds=15)
_END_LIMIT = timedelta(seconds=1)
# How often what is not urgent is tried again: a late proof, the revocation of what was superseded.
_TRY_AGAIN = timedelta(minutes=5)
_log = logging.getLogger("compass_sidecar.engine.sidecar")

Chore = Callable[[], Awaitable[object]]


class Inputs(Protocol):
    """What an operator may change under us; each answers None while there is nothing new."""

    async def check_anchors(self) -> None:
        """Raises ConnectorUntrusted if the trust anchors for the Connector cannot be read now."""

    async def credential(self) -> Credential | None:
        """The imported pair, when its files have changed. Raises CredentialError."""

    async def token(self) -> OneTimeToken | None:
        """The token from the settings or its file, unless it is spent. Raises RequestRefused."""

    @property
    def awaited(self) -> str | None:
        """What the last `token` missed, for people; None if it missed nothing."""

    def spend(self, token: OneTimeToken) -> None:
        """Never offer this token again."""


class Scheduler:
    """Everything here runs on one event loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        renewal: Renewal,
        journal: Journal,
        notifier: Notifier,
        inputs: Inputs,
        connector_clock: ConnectorClock,
        policy: Policy,
        instance_id: str,
        new_id: Callable[[], str],
        draw: Callable[[], float],
        events: Callable[[], tuple[Mapping[str, object], ...]],
        supervisor: Supervisor,
        version: str,
        warnings: Iterable[Reason] = (),
    ) -> None:
        """`warnings` are reasons that last as long as the process."""
        self._clock = clock
        self._renewal = renewal
        self._journal = journal
        self._inputs = inputs
        self._policy = policy
        self._instance_id = instance_id
        self._new_id = new_id
        self._draw = draw
        self._events = events
        self._supervisor = supervisor
        self._liveness = Liveness(clock.monotonic)
        self._attempts = Attempts(
            clock=clock,
            renewal=renewal,
            journal=journal,
            notifier=notifier,
            policy=policy,
            new_id=new_id,
            draw=draw,
            on_change=self._after_change,
            liveness=self._liveness,
        )
        self.status = Status(version=version, started_at=clock.now())
        self._connector_clock = connector_clock
        self._offered: Credential | None = None
        self._warnings: dict[Reason, str] = dict.fromkeys(warnings, "")
        self._again: dict[str, timedelta] = {}
        self._chores: dict[str, asyncio.Task[None]] = {}
        self._revoking: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._served: object = None
        self._told: object = None
        self._stopping = False

    # --- the loop ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what the store holds, import and publish: before anybody is served.

        Raises SettingsError when the operator's files cannot be used and nothing else can.
        """
        await self._renewal.restore()
        generation = self._renewal.generation
        if generation is not None:
            progress = replace(self._attempts.progress, last_success_at=last_success(generation))
            self._attempts.progress = progress
        untrusted = await self._check_anchors()
        if untrusted is not None and not self._attempts.usable():
            raise SettingsError([untrusted.detail])
        problem = await self._import()
        if problem is not None and not self._attempts.usable():
            raise SettingsError([problem.detail])
        self._refresh()
        self._tell_state()

    async def run(self) -> None:
        """Look at the world until `stop`."""
        while not self._stopping:
            self._wake.clear()
            await self._clock.wait(self._wake, await self._look())

    def look_now(self) -> None:
        """Look at the inputs without waiting for the next turn."""
        _log.info(Event.LOOK_REQUESTED)
        self._wake.set()

    def begin_stop(self) -> None:
        """Answer whoever waits; no attempt begins any more."""
        self._stopping = True
        self._wake.set()
        self._announce_change()

    async def stop(self, grace: timedelta) -> None:
        """Let what runs go on this long; the next start resumes what is cut off."""
        self.begin_stop()
        running = self._attempts.running()
        if running:
            await asyncio.wait(running, timeout=grace.total_seconds())
        running |= {*self._attempts.tasks(), *self._chores.values(), *self._revoking}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_END_LIMIT.total_seconds())

    async def _look(self) -> timedelta:
        """One turn; how long to wait until the next."""
        if not self._attempts.running():
            await self._do_besides()
        try:
            wait = min(await self._act(), self._until_revocation())
            self._liveness.turned()
        except Exception:  # noqa: BLE001 - a bug must not end the only thing that renews
            _log.exception(Event.INTERNAL_ERROR, extra={"detail": "the loop goes on"})
            wait = LOOK
        if self._show() and not self._attempts.running():  # what passes within an attempt is no state to tell
            self._tell_state()
        return wait

    async def _do_besides(self) -> None:
        """What is due besides the credential itself. None of it may keep the loop from deciding."""
        try:
            self._begin_revocations()
            await self._do_chores()
            self._watch_expiry()
        except Exception:  # noqa: BLE001 - see above
            _log.exception("internal-error", extra={"detail": "the loop goes on"})

    async def _do_chores(self) -> None:
        for name, chore in self._due_chores().items():
            if name not in self._chores:
                self._chores[name] = task = asyncio.create_task(_limited(chore))
                task.add_done_callback(partial(self._chore_ended, name))
        if self._chores:
            await asyncio.wait(self._chores.values(), timeout=_CHORES_LIMIT.total_seconds())

    def _begin_revocations(self) -> None:
        """Nothing waits for them, and each is on its own: a call may hang."""
        superseded = self._renewal.superseded
        for each in superseded.due():
            revoking = partial(superseded.revoke, each, self._new_id(), draw=self._draw())
            task = asyncio.create_task(revoking())
            self._revoking.add(task)
            task.add_done_callback(self._revoked)

    def _revoked(self, task: "asyncio.Task[None]") -> None:
        self._revoking.discard(task)
        self._wake.set()

    def _until_revocation(self) -> timedelta:
        if self._attempts.running():  # its end wakes the loop
            return LOOK
        current = None if self._attempts.busy() else self._renewal.revocation.wait()
        waits = (self._renewal.superseded.wait(), current)
        return min((wait for wait in waits if wait is not None), default=LOOK)

    def _due_chores(self) -> dict[str, Chore]:
        chores: dict[str, Chore] = {"import": self._import, "anchors": self._check_anchors}
        if not self._renewal.published:
            chores["publish"] = self._renewal.publish
        generation = self._renewal.generation
        if generation is not None and unproven(generation) and self._attempts.usable():
            chores["prove"] = lambda: self._try(Reason.PROOF_FAILED, self._renewal.prove_current)
        return chores

    def _chore_ended(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._chores[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error(Event.INTERNAL_ERROR, exc_info=error, extra={"detail": f"{name}: it is tried again"})

    async def _act(self) -> timedelta:
        if self._attempts.running() or self._stopping:
            return LOOK
        generation, wait = self._renewal.generation, self._renewal.revocation.wait()
        if generation is not None and wait == timedelta(0) and not self._attempts.busy():
            self._attempts.revoke(generation.chain.fingerprint)
            return LOOK
        now = self._decision_time()
        decision = self._decide(now)
        token = await self._token_if_needed(decision)
        if self._attempts.running():  # a caller was quicker
            return LOOK
        if token is not None:
            self._liveness.decided()
            self._attempts.connect(token).add_done_callback(lambda task: self._spend(token, task))
            return LOOK
        if isinstance(decision, Renew):
            self._liveness.decided()
            self._attempts.renew_unless(self._check_due)
            return LOOK
        self._liveness.undecided()
        self._renewal.prepare()
        return min(LOOK, max(decision.until - now, timedelta(0))) if isinstance(decision, Wait) else LOOK

    def _check_due(self) -> None:
        if not isinstance(self._decide(self._decision_time()), Renew):
            raise RenewedRecently("it is not due any more", retry_after=self._policy.min_interval)

    def _situation(self) -> Situation:
        return Situation(
            generation=self._renewal.generation,
            pending=self._renewal.pending,
            failed=self._attempts.failed(),
            policy=self._policy,
            instance_id=self._instance_id,
            pace=self._renewal.pace(),
        )

    def _decide(self, now: datetime) -> Decision:
        return decide(self._situation(), now)

    # --- time ----------------------------------------------------------------------------------

    def _decision_time(self) -> datetime:
        """Our clock, or the Connector's if ours is behind: the Connector is the one that refuses."""
        now = self._clock.now()
        return max(now, self._connector_clock.now() or now)

    def _watch_expiry(self) -> None:
        generation, now = self._renewal.generation, self._clock.now()
        if generation is not None and self._attempts.usable() and nearly_over(generation.chain, now):
            end = generation.chain.effective_not_after
            self._attempts.tell(Event.EXPIRING, f"the credential ends at {rfc3339(end)}")

    # --- inputs --------------------------------------------------------------------------------

    async def _import(self) -> SidecarError | None:
        """Take over the operator's pair if it is newer; why that was not possible, if it was not."""
        try:
            offered, self._offered = self._offered, None
            credential = await self._inputs.credential() or offered
            if credential is None:
                return None
            # It stays on offer while it cannot be taken over: it may begin later, or the disk may be full.
            self._offered = credential
            async with self._renewal.lock:
                adopted = await self._renewal.adopt(credential)
            self._offered = None
        except SidecarError as error:
            self._warn(Reason.IMPORT_REJECTED, error)
            return error
        self._warnings.pop(Reason.IMPORT_REJECTED, None)
        if adopted:
            self._attempts.succeed(Event.IMPORTED)
        return None

    async def _check_anchors(self) -> SidecarError | None:
        """Why the trust anchors cannot be read; those that were read last stay in use."""
        try:
            await self._inputs.check_anchors()
        except SidecarError as error:
            self._warn(Reason.CONNECTOR_CA_UNUSABLE, error)
            return error
        self._warnings.pop(Reason.CONNECTOR_CA_UNUSABLE, None)
        return None

    async def _token_if_needed(self, decision: Decision) -> OneTimeToken | None:
        """The operator's token, once nothing else leads to a credential that can be used."""
        if self._is_hopeful() or self._attempts.usable() or self._attempts.busy():
            return None
        # Its own attempts are a quarter of an hour apart; a token does not wait so long.
        ended = self._renewal.generation is not None or self._renewal.pending is not None
        wait = self._clock.elapsed() < self._again.get("token", timedelta(0))
        if wait if ended else not isinstance(decision, Connect):
            return None
        token = await self._read_token()
        if token is None:
            detail = self._inputs.awaited or "only a new one-time token, or a newer import, helps"
            self._attempts.tell(Event.CONNECT_NEEDED, detail)
        return token

    def _is_hopeful(self) -> bool:
        """Whether what is pending may lead to a credential: a signed answer that was refused is no hope."""
        pending, error = self._renewal.pending, self._attempts.progress.last_error
        if pending is None:
            return False
        return pending.signed is None or error is None or error.code not in _REFUSED

    async def _read_token(self) -> OneTimeToken | None:
        try:
            async with asyncio.timeout(_CHORES_LIMIT.total_seconds()):
                return await self._inputs.token()
        except SidecarError as error:
            self._warn(Reason.TOKEN_UNUSABLE, error)
        except Exception:  # noqa: BLE001 - what else there is to do must not wait for a token
            _log.exception(Event.INTERNAL_ERROR, extra={"detail": "the token cannot be read"})
        return None

    def _spend(self, token: OneTimeToken, task: "asyncio.Task[Renewed]") -> None:
        """Present a token again only while it may be of use."""
        if not task.cancelled() and self._attempts.gave_up(token, task.exception()):
            self._inputs.spend(token)
        else:
            self._again["token"] = self._clock.elapsed() + LOOK

    async def _try(self, reason: Reason, work: Callable[[str], Awaitable[None]]) -> None:
        now, correlation_id = self._clock.elapsed(), self._new_id()
        if now < self._again.get(reason, now):
            return
        with self._journal.about(correlation_id):
            try:
                async with self._renewal.lock:
                    await work(correlation_id)
                self._warnings.pop(reason, None)
            except SidecarError as error:
                self._again[reason] = now + _TRY_AGAIN
                self._warn(reason, error)

    def _warn(self, reason: Reason, error: SidecarError) -> None:
        """Say it once in log and journal, and in the status for as long as it lasts."""
        if self._warnings.get(reason) != error.detail:
            self._warnings[reason] = error.detail
            self._journal.record(EVENTS[reason], code=error.code, detail=error.detail)

    # --- status --------------------------------------------------------------------------------

    def _after_change(self) -> None:
        self._wake.set()
        self._show()

    def _show(self) -> bool:
        """Bring the status up to date. An attempt must not fail because that cannot be done."""
        try:
            self._refresh()
        except Exception:  # noqa: BLE001 - see above
            _log.exception(Event.INTERNAL_ERROR, extra={"detail": "the status is out of date"})
            return False
        return True

    def _refresh(self) -> None:
        now, generation, pending = self._decision_time(), self._renewal.generation, self._renewal.pending
        signed = pending.signed if pending is not None else None
        theirs = self._connector_clock.now()
        self.status = replace(
            self.status,
            generation=generation,
            pending=signed.chain.fingerprint if signed is not None else None,
            due_at=self._policy.due_at(generation.chain, self._instance_id) if generation else None,
            next_attempt_at=self._next_attempt_at(now),
            progress=self._attempts.progress,
            connector_url=self._renewal.connector_url(),
            director_url=generation.facts.director_url if generation else None,
            announced_url=self._renewal.announced_url,
            clock_skew=theirs - self._clock.now() if theirs is not None else None,
            warnings=self._reasons(),
            events=self._events(),
        )
        served = generation and (generation.chain.pem, generation.facts.revoked_at)
        if served != self._served:
            self._served = served
            self._announce_change()

    def _tell_state(self) -> None:
        """What comes of the clock alone, such as `renewal-overdue`, has no event of its own."""
        state, reasons = told = state_of(self.status, self._clock.now())
        if told != self._told:
            self._told = told
            level = logging.INFO if state is State.CONNECTED else logging.WARNING
            fields = {"state": state.value, "reasons": [each.value for each in reasons]}
            _log.log(level, Event.STATE_CHANGED, extra=fields)

    def _next_attempt_at(self, now: datetime) -> datetime | None:
        decision, generation = self._decide(now), self._renewal.generation
        match decision:
            case Connect():
                return None
            case Wait(until) if generation is not None and self._attempts.usable():
                return max(until, renewal_at(self._situation(), generation, now))
            case Wait(until):
                return until
            case _:
                return now

    def _reasons(self) -> tuple[Reason, ...]:
        generation = self._renewal.generation
        own = {
            Reason.PUBLISH_FAILED: not self._renewal.published,
            Reason.TRUST_ANCHOR_CHANGED: self._renewal.anchor_changed(),
            Reason.CONNECTOR_URL_DIFFERS: self._renewal.announced_url is not None,
            Reason.REVOCATION_FAILED: self._renewal.revoking_fails(),
            Reason.UNPROVEN: generation is not None and unproven(generation),
        }
        return (*(reason for reason, fits in own.items() if fits), *sorted(self._warnings))

    # --- what the API asks for ----------------------------------------------------------------

    def now(self) -> datetime:
        return self._clock.now()

    def stalled(self) -> str | None:
        return self._liveness.stalled() or self._supervisor.stalled()

    def stopping(self) -> bool:
        return self._stopping

    def changed(self) -> asyncio.Event:
        return self._changed

    def renew(self) -> "asyncio.Task[Renewed]":
        return self._attempts.renew()

    def connect(self, token: str, connector_url: str | None) -> "asyncio.Task[Renewed]":
        return self._attempts.connect(parse_token(token, connector_url))

    def revoke(self, fingerprint: str) -> "asyncio.Task[None]":
        return self._attempts.revoke(fingerprint)

    def _announce_change(self) -> None:
        """After the status was replaced, so that whoever is woken finds the new one."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()


async def _limited(chore: Chore) -> None:
    async with asyncio.timeout(ATTEMPT_LIMIT.total_seconds()):
        await chore()
