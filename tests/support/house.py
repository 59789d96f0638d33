"""A renewal and a scheduler with a real store on disk, a scripted Connector and a clock that jumps."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from compass_sidecar.adapters.filestore import Store
from compass_sidecar.adapters.tls import fit_for_tls
from compass_sidecar.adapters.worker import Worker
from compass_sidecar.core.credential import Credential
from compass_sidecar.core.door import Door
from compass_sidecar.core.generation import Facts, Generation, Origin
from compass_sidecar.core.notice import Notice, newest_change
from compass_sidecar.core.policy import Policy
from compass_sidecar.core.token import OneTimeToken
from compass_sidecar.engine.attempts import Attempts
from compass_sidecar.engine.connector_clock import ConnectorClock
from compass_sidecar.engine.ports import Publisher
from compass_sidecar.engine.renewal import Plan, Renewal
from compass_sidecar.engine.sidecar import Scheduler
from compass_sidecar.engine.supervision import Supervisor
from compass_sidecar.errors import SidecarError
from tests.support.authority import LIFETIME, Authority, rsa_key
from tests.support.clock import FakeClock
from tests.support.connector import TOKEN_URL, URL, ScriptedConnector


class Keys:
    """The session's keys, one after the other."""

    def __init__(self) -> None:
        self.number = 100
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1

    async def ready(self) -> None:
        """They are all there."""

    async def take(self) -> rsa.RSAPrivateKey:
        self.number += 1
        return rsa_key(100 + self.number % 5)


class Recorder:
    """Journal and notifier: what was said, in order."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.notices: list[str] = []
        self._newest: Notice | None = None

    def record(self, event: str, **details: object) -> None:
        self.events.append({"event": event, **details})

    def about(self, correlation_id: str) -> AbstractContextManager[None]:
        return nullcontext()

    async def restore(self, generation: Generation | None) -> None:
        self._newest = newest_change(generation, new_id="") if generation is not None else None

    def announce(self, generation: Generation) -> None:
        known, self._newest = self._newest, newest_change(generation, new_id="")
        if known != self._newest:
            self.notices.append(self._newest.event)

    def notify(self, event: str, generation: Generation | None, *, detail: str | None = None) -> None:
        self.notices.append(event)

    def names(self) -> list[str]:
        return [str(event["event"]) for event in self.events]


class Inputs:
    """What an operator puts there."""

    def __init__(self) -> None:
        self.pair: Credential | None = None
        self.one_time: OneTimeToken | None = None
        self.error: SidecarError | None = None
        self.anchors_error: SidecarError | None = None
        self.spent: list[OneTimeToken] = []
        self.awaited: str | None = None

    async def check_anchors(self) -> None:
        if self.anchors_error is not None:
            raise self.anchors_error

    async def credential(self) -> Credential | None:
        if self.error is not None:
            raise self.error
        pair, self.pair = self.pair, None
        return pair

    async def token(self) -> OneTimeToken | None:
        return None if self.one_time in self.spent else self.one_time

    def spend(self, token: OneTimeToken) -> None:
        self.spent.append(token)


@dataclass
class House:
    """Everything that a test of the inside wants to touch. `restart` is what a new process would be."""

    directory: Path
    lifetime: timedelta = LIFETIME
    plan: Plan = field(default_factory=Plan)
    policy: Policy = field(default_factory=Policy)
    draw: Callable[[], float] = lambda: 0.5
    publisher: Publisher | None = None

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.authority = Authority.create()
        self.connector = ScriptedConnector(self.authority, self.clock.now)
        self.connector.lifetime = self.lifetime
        self.said = Recorder()
        self.inputs = Inputs()
        self.keys = Keys()
        self.worker = Worker("disk", limit=timedelta(minutes=1))
        self.connector_clock = ConnectorClock(self.clock.elapsed)
        self.open()

    def open(self) -> None:
        self.store = Store.open(
            self.directory,
            now=self.clock.now,
            warn=lambda code, detail: self.said.record(code, detail=detail),
            lock_timeout=timedelta(seconds=1),
        )
        self.renewal = Renewal(
            clock=self.clock,
            store=self.store,
            connector=self.connector,
            keys=self.keys,
            publisher=self.publisher,
            disk=self.worker,
            publishing=self.worker,
            notifier=self.said,
            journal=self.said,
            connector_time=self.connector_clock.now,
            plan=self.plan,
            fit_for_tls=fit_for_tls,
        )
        self.scheduler = Scheduler(
            clock=self.clock,
            renewal=self.renewal,
            journal=self.said,
            notifier=self.said,
            inputs=self.inputs,
            connector_clock=self.connector_clock,
            policy=self.policy,
            instance_id="test",
            new_id=lambda: "id",
            draw=lambda: self.draw(),  # noqa: PLW0108 - a test may set another one later
            events=lambda: (),
            supervisor=Supervisor(self.clock.monotonic),
            version="0",
        )
        self.clock.busy = lambda: bool(self.attempts.running() or self.scheduler._revoking)

    @property
    def attempts(self) -> Attempts:
        return self.scheduler._attempts

    async def restart(self) -> None:
        """A new process over the same store, which finds what the old one left."""
        self.close()
        self.open()
        await self.scheduler.start()

    def close(self) -> None:
        self.store.close()

    def hold(self, *, number: int = 0, age: timedelta = timedelta(0)) -> Generation:
        """Put a credential into the store, as an earlier run would have."""
        credential = self.authority.credential(
            number=number, not_before=self.clock.now() - age, lifetime=self.lifetime
        )
        facts = Facts(Origin.IMPORT, URL, self.clock.now() - age)
        return self.store.activate(credential, facts)

    async def holding(self, **options: timedelta) -> "House":
        """With a credential in use."""
        self.hold(**options)
        await self.scheduler.start()
        return self

    @property
    def current(self) -> Generation:
        generation = self.renewal.generation
        assert generation is not None
        return generation

    @property
    def fingerprint(self) -> str:
        return self.current.chain.fingerprint

    def token(self, value: str = "token-a") -> OneTimeToken:
        return OneTimeToken(value, TOKEN_URL)

    def refuse_new_pairs(self, error: Exception, *, url: str | None = None) -> None:
        """The pair in use is accepted, and no other one: at any URL, or at this one only."""
        accepted = self.fingerprint

        def refuse(door: Door) -> Exception | None:
            ours = door.pair is not None and door.pair.fingerprint == accepted
            return None if ours or url not in {None, door.url} else error

        self.connector.refuse = refuse

    def accept_new_pairs(self) -> None:
        self.connector.refuse = lambda door: None

    async def attempt(self) -> Generation:
        async with self.renewal.lock:
            return await self.renewal.attempt("id")

    async def connect(self, token: OneTimeToken | None = None) -> Generation:
        async with self.renewal.lock:
            return await self.renewal.connect(token or self.token(), "id")

    async def run_for(self, duration: timedelta) -> None:
        """Let the loop turn until the clock has moved on so far."""
        end = self.clock.elapsed() + duration
        self.clock.stride = timedelta(hours=1) if duration > timedelta(days=7) else timedelta(0)
        loop = asyncio.create_task(self.scheduler.run())
        while self.clock.elapsed() < end and not loop.done():
            await asyncio.sleep(0)
        await self.scheduler.stop(timedelta(seconds=5))
        await loop
        self.scheduler._stopping = False
