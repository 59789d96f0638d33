"""One seed: a sidecar's life through several lifetimes of its certificate, with everything that can happen.

After every step the invariants of `invariants.py` hold.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from compass_sidecar.adapters.notifier import Notifier
from compass_sidecar.core.credential import Credential, render_private_key
from compass_sidecar.core.notice import Notice
from compass_sidecar.core.policy import LOOK, Policy
from compass_sidecar.core.token import OneTimeToken
from compass_sidecar.engine.connector_clock import ConnectorClock
from compass_sidecar.engine.renewal import Plan, Renewal
from compass_sidecar.engine.sidecar import Scheduler
from compass_sidecar.engine.supervision import Supervisor
from compass_sidecar.errors import MalformedCredential, NotificationError, SettingsError, SidecarError
from tests.support.connector import TOKEN_URL, URL

from .connector import UNUSABLE_URL, SimulatedConnector
from .invariants import DELIVERED, Watch
from .keys import KEYS, rsa_key
from .loop import VirtualLoop
from .process import Life, SimulatedClock
from .store import Disk, SimulatedStore
from .world import DISK_LIMIT, STORE_ERRORS, Broken, World

T = TypeVar("T")
LIFETIMES = 8
STARTUP = timedelta(seconds=30)
_KEY_LIMIT = timedelta(minutes=10)


class SimulatedWorker:
    """A thread for blocking calls that may hang, fail to start, or be cut off with its process."""

    def __init__(self, life: Life, name: str) -> None:
        self._life = life
        self._name = name

    async def run(self, call: Callable[..., T], *args: object) -> T:
        return await self._life.call(
            f"{self._name} {getattr(call, '__name__', 'call')}",
            lambda: call(*args),
            errors=STORE_ERRORS,
            limit=DISK_LIMIT,
            late=TimeoutError,
        )


class SimulatedKeys:
    """Keys of a small stock: making them is not what is simulated, but that may fail, too."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def begin(self) -> None:
        """Nothing is made ahead of time."""

    async def ready(self) -> None:
        await self._life.call(
            "key", lambda: None, errors=STORE_ERRORS[1:], limit=_KEY_LIMIT, late=TimeoutError
        )

    async def take(self) -> rsa.RSAPrivateKey:
        await self.ready()
        return rsa_key(self._life.world.chance.randrange(KEYS))


class SimulatedPublisher:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.published: Credential | None = None

    def publish(self, credential: Credential) -> bool:
        changed, self.published = credential != self.published, credential
        return changed


class SimulatedChannel:
    """A consumer's command: it may fail, and be cut off with its process."""

    latest_only = True

    def __init__(self, life: Life, watch: Watch) -> None:
        self._life = life
        self._watch = watch

    def wants(self, event: str) -> bool:
        return event in DELIVERED

    async def deliver(self, notice: Notice) -> None:
        try:
            await self._try(notice)
        except NotificationError:
            self._watch.delivered(notice.event, notice.fingerprint)  # failed, which counts as told
            raise

    async def _try(self, notice: Notice) -> None:
        await self._life.call(
            f"deliver {notice.event}",
            lambda: self._watch.delivered(notice.event, notice.fingerprint),
            errors=(*STORE_ERRORS[1:], lambda _: NotificationError("the command ended with status 1")),
            limit=timedelta(seconds=30),
            late=lambda: NotificationError("the command was killed after 30 s"),
        )


class Recorder:
    """The journal of one process; what was said goes to the watch."""

    def __init__(self, world: World, watch: Watch) -> None:
        self._world = world
        self._watch = watch

    def record(self, event: str, **details: object) -> None:
        shown = {name: str(value)[:120] for name, value in details.items() if value is not None}
        self._world.say(f"    event {event} {shown}")
        self._watch.event(event, details)

    def about(self, correlation_id: str) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass
class Mounts:
    """What operators put there: it survives the process, which has its own memory of what it saw."""

    pair: Credential | None = None
    broken: bool = False
    version: int = 0
    token: OneTimeToken | None = None


class SimulatedInputs:
    def __init__(self, mounts: Mounts, disk: Disk) -> None:
        self._mounts = mounts
        self._disk = disk
        self._seen = -1
        self._spent: set[str] = set()
        self.awaited: str | None = None

    async def check_anchors(self) -> None:
        """They can always be read."""

    async def credential(self) -> Credential | None:
        mounts = self._mounts
        if mounts.pair is None or mounts.version == self._seen:
            return None
        self._seen = mounts.version
        if mounts.broken:
            raise MalformedCredential("the mounted certificate is not PEM")
        return mounts.pair

    async def token(self) -> OneTimeToken | None:
        token = self._mounts.token
        if token is None or token.digest in self._spent or token.digest in self._disk.used_tokens:
            return None
        return token

    def spend(self, token: OneTimeToken) -> None:
        self._spent.add(token.digest)


@dataclass
class Process:
    """One process of the sidecar, from its start to its death or end."""

    life: Life
    scheduler: Scheduler
    renewal: Renewal
    notifier: Notifier
    supervisor: Supervisor


class Story:
    def __init__(self, world: World, *, look: timedelta, lifetimes: float) -> None:
        self.world = world
        self.look = look
        self.end = world.lifetime * lifetimes
        self.disk = Disk()
        self.mounts = Mounts()
        self.connector_clock = ConnectorClock(world.elapsed)
        self.connector = SimulatedConnector(world, self._note)
        self.watch = Watch(world, self.disk, self.connector, look=look)
        self.connector.automatic = self.watch.automatic
        self.connector.on_sign = self.watch.signature
        self.policy = Policy()
        self.plan = Plan(URL if world.happens(0.5) else None)
        self.process: Process | None = None

    def _note(self, date: datetime) -> None:
        self.connector_clock.note(date)  # that of the process which runs now

    # --- processes -----------------------------------------------------------------------------

    def build(self) -> Process:
        world, life = self.world, Life(self.world)
        life.after = self.watch.step
        self.connector.life = life
        self.connector_clock = ConnectorClock(world.elapsed)
        clock = SimulatedClock(world, self.look)
        store = SimulatedStore(self.disk, on_activate=self.watch.activated)
        recorder = Recorder(world, self.watch)
        worker = SimulatedWorker(life, "disk")
        notifier = Notifier(
            {"command": SimulatedChannel(life, self.watch)},  # type: ignore[dict-item]
            store=store,
            disk=worker,  # type: ignore[arg-type]
            clock=clock,
            new_id=lambda: "id",
            report=lambda _kind, _error: None,
        )
        renewal = Renewal(
            clock=clock,
            store=store,
            connector=self.connector,
            keys=SimulatedKeys(life),
            publisher=SimulatedPublisher(),
            disk=worker,
            publishing=SimulatedWorker(life, "publish"),
            notifier=notifier,
            journal=recorder,
            plan=self.plan,
            connector_time=self.connector_clock.now,
            fit_for_tls=lambda credential: credential,  # a real CA makes what OpenSSL loads
        )
        supervisor = Supervisor(clock.monotonic)
        scheduler = Scheduler(
            clock=clock,
            renewal=renewal,
            journal=recorder,
            notifier=notifier,
            inputs=SimulatedInputs(self.mounts, self.disk),
            connector_clock=self.connector_clock,
            policy=self.policy,
            instance_id=store.instance_id,
            new_id=lambda: "id",
            draw=world.chance.random,
            events=lambda: (),
            version="0",
            supervisor=supervisor,
        )
        return Process(life, scheduler, renewal, notifier, supervisor)

    async def live(self) -> None:
        """Processes, one after the other, until the end."""
        while self.world.elapsed() < self.end:
            process = self.build()
            self.world.say("a process starts")
            self.watch.started()
            died = asyncio.create_task(process.life.dead.wait())
            run = asyncio.create_task(self._run(process))
            await asyncio.wait({died, run}, return_when=asyncio.FIRST_COMPLETED)
            self.process = None
            self.watch.process = None
            await self._bury(process, {died, run})
            for task in (run, died):
                if not task.cancelled() and task.done() and (error := task.exception()) is not None:
                    raise error
            await asyncio.sleep(self.world.between(timedelta(seconds=1), STARTUP).total_seconds())

    async def _run(self, process: Process) -> None:
        try:
            await process.scheduler.start()
        except (SettingsError, SidecarError, OSError, RuntimeError, MemoryError, TimeoutError) as error:
            # What a supervisor of containers does: it starts the process again in a while.
            self.world.say(f"the start ends with {error!r}")
            return
        self.process, self.watch.process = process, process
        for name, task in {**process.notifier.tasks(), "engine": process.scheduler.run}.items():
            process.supervisor.start(name, task)
        await asyncio.sleep((self.end - self.world.elapsed()).total_seconds() + 1)

    async def _bury(self, process: Process, others: set["asyncio.Task[Any]"]) -> None:
        process.life.dead.set()
        await process.supervisor.aclose()
        keep = {asyncio.current_task(), *self.cast}
        leftover = [task for task in asyncio.all_tasks() if task not in keep]
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)

    # --- weather and operators -----------------------------------------------------------------

    async def weather(self) -> None:
        """Calm and storms in turn; clocks jump now and then."""
        world, lifetime = self.world, self.world.lifetime
        while True:
            await asyncio.sleep(world.between(lifetime / 50, lifetime / 2).total_seconds())
            world.set_storm(world.chance.choice((0.0, 0.0, 0.0, 0.05, 0.3, 0.7)))
            if world.happens(0.25):
                self._change_clocks()
            self.connector.announced = world.chance.choice((URL, URL, URL, None, UNUSABLE_URL))
            self.watch.disturbed()

    def _change_clocks(self) -> None:
        world, chance = self.world, self.world.chance
        jumps = (timedelta(0), timedelta(0), timedelta(seconds=90), world.lifetime / 3, timedelta(days=400))
        sign = chance.choice((1, -1))
        match chance.choice(("ours", "theirs", "date")):
            case "ours":
                world.our_error = chance.choice(jumps) * sign
            case "theirs":
                # The Connector's clock is corrected by small steps only: it is what all certificates go by.
                world.their_error = chance.choice(jumps[:3]) * sign
            case _:
                world.date_error = chance.choice((*jumps, timedelta(days=730_000), None))
                if world.date_error is not None and world.date_error < timedelta(days=700_000):
                    world.date_error *= sign
        world.say(f"clocks: ours {world.our_error}, theirs {world.their_error}, Date {world.date_error}")

    async def operators(self) -> None:
        world = self.world
        while True:
            await asyncio.sleep(world.between(world.lifetime / 40, world.lifetime / 2).total_seconds())
            action = world.chance.choice((self._renew, self._renew, self._mount, self._connect, self._revoke))
            self.start(action())

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.visits.append(task)

    visits: list["asyncio.Task[None]"]
    cast: set["asyncio.Task[Any]"]

    async def _renew(self) -> None:
        await self._ask("renew", lambda process: process.scheduler.renew())

    async def _connect(self) -> None:
        token = self.connector.new_token() if self.world.happens(0.8) else "never-issued"
        await self._ask("connect", lambda process: process.scheduler.connect(token, TOKEN_URL))

    async def _revoke(self) -> None:
        if not self.world.happens(0.2):
            return
        held = self.disk.generations.get(self.disk.current or "")
        if held is not None:
            fingerprint = held.chain.fingerprint
            await self._ask("revoke", lambda process: process.scheduler.revoke(fingerprint))

    async def _ask(self, what: str, ask: Callable[[Process], "asyncio.Task[Any]"]) -> None:
        """One request to the local API; whatever it answers, it answers in time."""
        process = self.process
        if process is None:
            return
        self.world.say(f"operator: {what}")
        with self.watch.visit(what), suppress(SidecarError):
            await asyncio.shield(ask(process))

    async def _mount(self) -> None:
        """A pair that was issued elsewhere, sometimes rubbish."""
        number = self.world.chance.randrange(KEYS)
        chain = self.connector.issue_by_hand(number)
        self.mounts.pair = Credential(chain, render_private_key(rsa_key(number)))
        self.mounts.broken = self.world.happens(0.2)
        self.mounts.version += 1
        self.world.say(f"operator: mounts {chain.fingerprint[:8]}{' (broken)' if self.mounts.broken else ''}")

    async def rescue(self) -> None:
        """Somebody looks now and then, and gives a token to a sidecar that cannot help itself."""
        while True:
            await asyncio.sleep((self.world.lifetime / 10).total_seconds())
            process = self.process
            if process is not None and self.watch.helpless(process):
                self.mounts.token = OneTimeToken(self.connector.new_token(), TOKEN_URL)
                self.world.say("operator: puts a token there")

    # --- all of it -----------------------------------------------------------------------------

    async def tell(self) -> None:
        self.visits = []
        self.mounts.token = OneTimeToken(self.connector.new_token(), TOKEN_URL)
        parts = (self.live, self.weather, self.operators, self.rescue, self.watch.patrol)
        self.cast = set()
        tasks = [asyncio.create_task(part()) for part in parts]
        self.cast = {*tasks, asyncio.current_task()}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self.visits, return_exceptions=True)
        for task in done:
            if not task.cancelled():
                task.result()
        self.watch.finish()


def look_for(lifetime: timedelta) -> timedelta:
    """A look every 30 s makes 260,000 of 90 days: then 500 in a lifetime."""
    return max(LOOK, lifetime / 500)


def run(
    seed: int, *, lifetime: timedelta, look: timedelta | None = None, lifetimes: float = LIFETIMES
) -> Mapping[str, int]:
    """The counts of one story. Raises Broken, with the end of the trace."""
    log = logging.getLogger("compass_sidecar")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    loop = VirtualLoop()
    try:
        world = World(seed, lifetime, loop)
        story = Story(world, look=look or look_for(lifetime), lifetimes=lifetimes)
        try:
            loop.run_until_complete(story.tell())
        except Exception as error:
            trace = "\n".join(world.trace)
            command = (
                f"python -m tests.proofs.simulation --seed {seed} --lifetime {lifetime.total_seconds():g}s"
            )
            raise Broken(f"{error}\n{trace}\nreplay: {command}") from error
        return story.watch.counts
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with suppress(Exception):  # how they end was judged before
            loop.run_until_complete(asyncio.sleep(1))
        loop.close()
        log.setLevel(level)
