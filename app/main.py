"""The composition root: builds the parts, connects them, runs them, takes them down again."""

import asyncio
import gc
import logging
import os
import random
import signal
import socket
import sys
import traceback
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import NoReturn

from . import __version__
from .adapters import loop
from .adapters.anchors import Anchors
from .adapters.clock import Clock
from .adapters.command import Command, reap_orphans
from .adapters.connector import OPERATIONS, Connector, Observation
from .adapters.credential_files import CredentialFiles
from .adapters.filestore import Store
from .adapters.inputs import OperatorInputs
from .adapters.journal import Journal
from .adapters.keys import KeyMaker
from .adapters.logs import ForPeople, JSONLines, StderrHandler, configure_logging
from .adapters.metrics import Metrics
from .adapters.notifier import Channel, Notifier, Task
from .adapters.publisher import Publisher
from .adapters.reader import Reader
from .adapters.stderr import say
from .adapters.tls import fit_for_tls
from .adapters.transport import Transport
from .adapters.webhook import Webhook
from .adapters.worker import Worker
from .api.application import Health, create_api
from .api.guard import Access
from .api.limits import API_SHARE, HEALTH_SHARE, Listener
from .api.paths import PATHS
from .api.server import listen_tcp, listen_unix, serve
from .core.catalogue import Event
from .core.policy import Policy
from .engine.connector_clock import ConnectorClock
from .engine.events import EventLog
from .engine.renewal import Plan, Renewal
from .engine.sidecar import Scheduler
from .engine.supervision import Supervisor
from .errors import NotificationError, SettingsError, SidecarError
from .settings import Settings, find_store_dir

_log = logging.getLogger("compass_sidecar.main")
# SIGTERM ends the process within five seconds, and the server needs some of them.
STOP_GRACE = timedelta(seconds=3)
_LAST_LIMIT = timedelta(seconds=4.5)
# What does not end by itself by then is left behind.
_END_LIMIT = timedelta(seconds=1)
# An fsync on a busy disk takes seconds; one that takes this long is stuck.
_DISK_LIMIT = timedelta(minutes=2)
_WEBHOOK_LIMIT = timedelta(seconds=10)
_COMMAND_VARIABLES = ("PATH", "HOME", "LANG")


@dataclass(frozen=True, slots=True)
class House:
    """What runs."""

    scheduler: Scheduler
    connector: Connector
    webhook: Webhook | None
    tasks: Mapping[str, Task]
    journal: Worker
    store: Store
    metrics: Metrics
    supervisor: Supervisor


def build(settings: Settings, environment: Mapping[str, str]) -> House:
    """All the parts, connected; the store is open and locked.

    Raises SettingsError or StoreLocked. `environment` is what the command may see of ours.
    """
    clock = Clock()
    store = Store.open(settings.store_dir, now=clock.now, warn=_warn)
    try:
        return _furnish(settings, environment, clock, store)
    except BaseException:
        store.close()
        raise


def _furnish(settings: Settings, environment: Mapping[str, str], clock: Clock, store: Store) -> House:
    journal = Journal(settings.store_dir, warn=_warn)
    metrics = Metrics(version=__version__, python=sys.version.split()[0], operations=OPERATIONS)
    metrics.expect((path, each.method, 200) for path, each in sorted(PATHS.items()))
    writer = _worker("journal")
    events = EventLog(
        now=clock.now,
        append=partial(writer.submit, journal.append),
        tail=journal.tail(20),
        observe=metrics.event,
    )

    def report(kind: str, error: NotificationError | None) -> None:
        metrics.notification(kind, "success" if error is None else "failure")
        if error is not None:
            events.record(Event.NOTIFICATION_FAILED, kind=kind, detail=error.detail)

    command, webhook = _command(settings, environment), _webhook(settings, clock)
    channels: dict[str, Channel | None] = {"command": command, "webhook": webhook}
    disk = _worker("store")
    notifier = Notifier(channels, store=store, disk=disk, clock=clock, new_id=_new_id, report=report)
    connector_clock = ConnectorClock(clock.elapsed)

    def observe(observation: Observation) -> None:
        metrics.call(observation.operation, observation.outcome, observation.seconds)
        _log.debug(
            Event.CONNECTOR_CALLED,
            extra={
                "operation": observation.operation,
                "outcome": observation.outcome,
                "duration_seconds": round(observation.seconds, 3),
                "correlation_id": observation.correlation_id,
            },
        )
        if observation.date is not None:
            connector_clock.note(observation.date)

    anchors = Anchors("COMPASS_CONNECTOR_CA_FILE", settings.connector_ca_file)
    connector = Connector(
        anchors=anchors,
        proxy_for=settings.proxy_for,
        timeout=settings.connector_timeout,
        observe=observe,
        now=clock.now,
    )
    connector.start()
    keys = KeyMaker(settings.key_size)
    keys.start()
    renewal = Renewal(
        clock=clock,
        store=store,
        connector=connector,
        keys=keys,
        publisher=_publisher(settings),
        disk=disk,
        publishing=_worker("publisher"),
        notifier=notifier,
        journal=events,
        connector_time=connector_clock.now,
        plan=Plan(settings.connector_url, settings.revoke_superseded_after),
        fit_for_tls=fit_for_tls,
    )
    supervisor = Supervisor(clock.monotonic)
    scheduler = Scheduler(
        clock=clock,
        renewal=renewal,
        journal=events,
        notifier=notifier,
        inputs=_inputs(settings, clock, store, anchors),
        connector_clock=connector_clock,
        policy=Policy(
            settings.renewal_window_ratio, settings.renewal_jitter_ratio, settings.renewal_min_interval
        ),
        instance_id=store.instance_id,
        warnings=store.reasons,
        new_id=_new_id,
        draw=random.random,
        events=events.newest,
        supervisor=supervisor,
        version=__version__,
    )
    tasks = notifier.tasks()
    if os.getpid() == 1:
        tasks["orphans"] = partial(reap_orphans, command, clock.sleep)
    return House(scheduler, connector, webhook, tasks, writer, store, metrics, supervisor)


def _worker(name: str) -> Worker:
    """Its thread is made now: a process that runs out of threads later still renews."""
    worker = Worker(name, limit=_DISK_LIMIT)
    worker.start()
    return worker


def _inputs(settings: Settings, clock: Clock, store: Store, anchors: Anchors) -> OperatorInputs:
    files = None
    if settings.client_certificate_file is not None:
        phrase = settings.client_key_passphrase
        passphrase = phrase.get_secret_value().encode() if phrase is not None else None
        files = CredentialFiles(
            settings.client_certificate_file, settings.client_key_file, passphrase, now=clock.now
        )
    return OperatorInputs(
        clock=clock,
        files=files,
        anchors=anchors,
        token=settings.token.get_secret_value() if settings.token is not None else None,
        token_file=settings.token_file,
        token_url=settings.token_connector_url,
        token_used=store.token_used,
    )


def _publisher(settings: Settings) -> Publisher | None:
    if settings.publish_dir is None:
        return None
    return Publisher.open(settings.publish_dir, group=settings.publish_group, warn=_warn)


def _command(settings: Settings, environment: Mapping[str, str]) -> Command | None:
    if settings.on_renew_command is None:
        return None
    handed = {name: environment[name] for name in _COMMAND_VARIABLES if name in environment}
    if settings.publish_dir is not None:
        handed["COMPASS_PUBLISH_DIR"] = str(settings.publish_dir)
    return Command(settings.on_renew_command, handed)


def _webhook(settings: Settings, clock: Clock) -> Webhook | None:
    if settings.notify_webhook is None:
        return None
    transport = Transport(
        anchors=Anchors("COMPASS_NOTIFY_WEBHOOK_CA_FILE", settings.notify_webhook_ca_file),
        proxy_for=settings.webhook_proxy_for,
        timeout=_WEBHOOK_LIMIT,
        now=clock.now,
        schemes=("https", "http"),
    )
    transport.start()
    secret = settings.notify_webhook_secret
    return Webhook(
        settings.notify_webhook,
        name=settings.name or socket.gethostname(),
        secret=secret.get_secret_value() if secret is not None else None,
        transport=transport,
        sleep=clock.sleep,
    )


def _access(settings: Settings) -> Access:
    token = settings.api_token
    return Access(
        api_token=token.get_secret_value() if token is not None else None,
        allowed_hosts=settings.allowed_hosts,
        hostname=socket.gethostname().lower(),
        unix_socket=settings.unix_socket is not None,
        expose_private_key=settings.expose_private_key,
    )


def _new_id() -> str:
    return str(uuid.uuid4())


def _warn(event: Event, detail: str) -> None:
    _log.warning(event, extra={"detail": detail})


def serve_until_signal(environment: Mapping[str, str]) -> int:
    """Run the sidecar. The exit status is 2 if the configuration cannot be used, 1 if the store cannot be."""
    try:
        settings = Settings.from_environment(
            environment, read=Reader("settings").read, default_store_dir=find_store_dir()
        )
    except SettingsError as error:
        return _fail(error)
    log = _configure_logging(settings, environment)
    return loop.run(_run_to_the_end(settings, environment, log))


async def _run_to_the_end(settings: Settings, environment: Mapping[str, str], log: StderrHandler) -> NoReturn:
    """Ends the process itself: the event loop would wait for a thread that hangs."""
    status = 0
    try:
        await run(settings, environment, lines_dropped=lambda: log.dropped)
    except SidecarError as error:
        log.close()
        status = _fail(error)
    except Exception:  # noqa: BLE001 - a mistake in the sidecar, which the log has no event for
        log.close()
        say(traceback.format_exc())
        status = 1
    log.close()
    os._exit(status)


def _configure_logging(settings: Settings, environment: Mapping[str, str]) -> StderrHandler:
    terminal = sys.stderr.isatty()
    for_people = (settings.log_format or ("console" if terminal else "json")) == "console"
    color = terminal and not environment.get("NO_COLOR")
    formatter = ForPeople(color=color) if for_people else JSONLines()
    return configure_logging(level=settings.log_level, formatter=formatter)


def _fail(error: SidecarError) -> int:
    """Say why there is no sidecar; the exit status."""
    problems = error.problems if isinstance(error, SettingsError) else [error.detail]
    say("".join(f"compass-sidecar: {problem}\n" for problem in problems))
    return 2 if isinstance(error, SettingsError) else 1


async def run(
    settings: Settings, environment: Mapping[str, str], *, lines_dropped: Callable[[], int] = lambda: 0
) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError or StoreLocked when it cannot start."""
    if settings.ignored_variables:
        _log.info(Event.IGNORED_VARIABLES, extra={"names": list(settings.ignored_variables)})
    house = await asyncio.to_thread(build, settings, environment)
    try:
        await house.scheduler.start()
        with ExitStack() as stack:
            await _serve(house, settings, stack, lines_dropped)
    finally:
        closing = [asyncio.create_task(each.aclose()) for each in (house.connector, house.webhook) if each]
        await asyncio.wait(closing, timeout=_END_LIMIT.total_seconds())
        house.journal.drain(_END_LIMIT)
        house.store.close()
        _log.info(Event.STOPPED)


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return f"http://{f'[{name[0]}]' if ':' in name[0] else name[0]}:{name[1]}"


def _end_within(limit: timedelta) -> None:
    """Whatever hangs by then: what the store does bears being killed."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, limit.total_seconds())


async def _serve(
    house: House, settings: Settings, stack: ExitStack, lines_dropped: Callable[[], int]
) -> None:
    scheduler = house.scheduler
    listeners: list[Listener] = []

    def metrics() -> bytes:
        connections = {listener.name: listener.connections for listener in listeners}
        return house.metrics.render(
            scheduler.status, scheduler.now(), lines_dropped=lines_dropped(), connections=connections
        )

    api = create_api(
        scheduler,
        _access(settings),
        metrics=metrics,
        observe=house.metrics.request,
    )
    if settings.unix_socket is not None:
        sockets = stack.enter_context(listen_unix(settings.unix_socket, group=settings.publish_group))
    else:
        optional = ("::1",) if settings.host_is_default else ()
        # In a thread: a name that has to be looked up may take its time.
        tcp = listen_tcp(settings.host, settings.port, may_miss=optional)
        sockets = await asyncio.to_thread(stack.enter_context, tcp)
    listeners.append(Listener("api", api, sockets, API_SHARE))
    if settings.health_port is not None:
        health = listen_tcp((settings.health_host,), settings.health_port, variables="COMPASS_HEALTH")
        sockets = await asyncio.to_thread(stack.enter_context, health)
        listeners.append(Listener("health", Health(api), sockets, HEALTH_SHARE))
    # What is there now stays: to look through all of it would hold up everybody for 30 ms, now and then.
    gc.freeze()
    gc.enable()
    for name, task in {"engine": scheduler.run, **house.tasks}.items():
        house.supervisor.start(name, task)
    addresses = [_address(each) for listener in listeners for each in listener.sockets]
    _log.info(Event.SERVING, extra={"version": __version__, "addresses": addresses})
    ending: list[asyncio.Task[None]] = []

    def stop() -> None:
        """What runs gets its grace at the same time as the server's connections."""
        _end_within(_LAST_LIMIT)
        scheduler.begin_stop()
        ending.append(asyncio.create_task(scheduler.stop(STOP_GRACE)))

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, scheduler.look_now)
    try:
        await serve(listeners, on_stop=stop)
    finally:
        await asyncio.gather(scheduler.stop(STOP_GRACE), *ending)
        await house.supervisor.aclose()
