"""The emulator as a whole: its parts, its listeners, and what tests can do with it."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast, get_args

from .authority import rsa_key
from .clock import Clock
from .connector import Connector
from .control import Control
from .director import Director, DirectorAPI, TokenForms
from .faults import FAULTS
from .faults.plan import FaultPlan
from .folder import CERTIFICATE, KEY, FirstCredential, Folder, FolderError, StateFile
from .gateway import ADAPTER_PATH, DIRECTOR_PATH, PATH, Gateway
from .journal import Journal, Registry
from .options import ConsumerType, EmulatorOptions, Endpoints, ListenerName, OperatorConfiguration
from .server import Listener, Server
from .subjects import SubjectConstants
from .tls import ServerTLS

_FIRST_TOKEN_TTL = timedelta(minutes=60)  # for people: the Director's 5 minutes pass while they read


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything behind the ports; URLs are filled in once the ports are known."""

    folder: Folder
    state: StateFile
    clock: Clock
    journal: Journal
    plan: FaultPlan
    director: Director
    director_api: DirectorAPI
    registry: Registry
    operator: OperatorConfiguration
    tls: ServerTLS
    gateway: Gateway
    latency: timedelta

    def server(self, name: ListenerName) -> Server:
        """What serves the connections of one of the two listeners."""
        return Server(
            name,
            tls=self.tls,
            gateway=self.gateway,
            plan=self.plan,
            journal=self.journal,
            clock=self.clock,
            latency=self.latency,
        )

    def first_credential(self, options: EmulatorOptions) -> FirstCredential:
        """What the emulator comes with."""
        return FirstCredential(
            folder=self.folder,
            operator=self.operator,
            director=self.director,
            registry=self.registry,
            consumer_type=options.consumer_type,
            client_id=options.client_id,
        )


def build(options: EmulatorOptions, folder: Folder) -> Parts:
    """Makes or loads authorities and state; raises ValueError for a bad fault."""
    state, clock, journal = StateFile(folder), Clock(options.clock_offset), Journal()
    director = Director(ttl=options.token_ttl, on_change=state.changed)
    registry = Registry(on_change=state.changed)
    state.load(director, registry)
    plan = FaultPlan(FAULTS, chaos=options.chaos, seed=options.seed)
    for spec in options.faults:
        plan.add(spec)
    operator = _operator(options, folder)
    connector = Connector(
        configuration=operator, director=director, registry=registry, journal=journal, clock=clock
    )
    director_api = DirectorAPI(director=director, operator=operator, journal=journal, clock=clock)
    return Parts(
        folder=folder,
        state=state,
        clock=clock,
        journal=journal,
        plan=plan,
        director=director,
        director_api=director_api,
        registry=registry,
        operator=operator,
        tls=ServerTLS(
            authority=folder.server_authority(),
            names=options.certified_names(),
            anchor=operator.authority.anchor,
            tls_max=options.tls_max,
            scratch=folder.path,
        ),
        gateway=Gateway(
            connector=connector,
            director=director,
            director_api=director_api,
            registry=registry,
            plan=plan,
            journal=journal,
            clock=clock,
            audit=options.gateway,
        ),
        latency=options.latency,
    )


def _operator(options: EmulatorOptions, folder: Folder) -> OperatorConfiguration:
    return OperatorConfiguration(
        subject=options.subject,
        director_url=options.director_url or "",
        token_secured_connector_url="",
        adapter_url="",
        certificate_secured_connector_url="",
        lifetime=options.lifetime,
        authority=folder.client_authority(chain=options.chain, lifetime=options.ca_lifetime),
    )


class EmulatorError(Exception):
    """The emulator cannot start; the message is one clear line."""


class Emulator:
    """A running emulator: `async with Emulator.start(EmulatorOptions(dir=...)) as emulator:`."""

    endpoints: Endpoints

    def __init__(self, options: EmulatorOptions, parts: Parts) -> None:
        self.options = options
        self._parts = parts
        self._token_listener = Listener(options.host, options.token_port, parts.server("token").serve)
        self._mtls_listener = Listener(options.host, options.mtls_port, parts.server("mtls").serve)
        self._control = Listener(options.control_host, options.control_port, Control(self).serve)
        self._reopening: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def start(cls, options: EmulatorOptions) -> AsyncIterator["Emulator"]:
        """A running emulator; everything is closed when the block ends.

        Raises EmulatorError when a port or the folder cannot be used, ValueError for a bad fault.
        """
        try:
            with Folder(options.dir) as folder:
                emulator = cls(options, await asyncio.to_thread(build, options, folder))
                try:
                    await emulator._open()
                    yield emulator
                finally:
                    await emulator._close()
        except FolderError as error:
            raise EmulatorError(str(error)) from error

    @property
    def counters(self) -> dict[str, Any]:
        """Calls per operation, signatures, tokens minted, and so on."""
        return self._parts.journal.counters()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The last 200 requests, oldest first."""
        return [entry.as_dict() for entry in self._parts.journal.requests]

    @property
    def issued(self) -> list[dict[str, Any]]:
        """Issued certificates: fingerprint, client id, subject, dates, whether revoked; oldest first."""
        return self._parts.registry.listing()

    def state(self) -> dict[str, Any]:
        """What `GET /` of the control endpoint answers."""
        clock, operator = self._parts.clock, self._parts.operator
        return {
            "endpoints": {key: value for key, value in self.endpoints.as_dict().items() if key != "token"},
            "counters": self.counters,
            "faults": self._parts.plan.listing(),
            "chaos": self._parts.plan.chaos,
            "seed": self._parts.plan.seed,
            "clock": {
                "now": clock.now().isoformat().replace("+00:00", "Z"),
                "offset_seconds": clock.offset.total_seconds(),
            },
            "lifetime_seconds": operator.lifetime.total_seconds(),
            "subject": operator.subject.render("{cn}"),
            "in_outage": self._reopening is not None,
            "issued": self.issued,
            "requests": self.requests,
        }

    def fault(self, spec: str) -> None:
        """Activates `NAME[@operation][*count][:parameter]`; raises ValueError."""
        self._parts.plan.add(spec)

    def clear_faults(self) -> None:
        """Deactivates all faults, chaos included."""
        self._parts.plan.clear()

    def set_chaos(self, rate: float, seed: int | None = None) -> None:
        """Random faults at this rate from 0 to 1, repeatable with a seed; raises ValueError."""
        if not 0 <= rate <= 1:
            raise ValueError("the chaos rate is a number from 0 to 1")
        self._parts.plan.set_chaos(rate, seed)

    def token(self, *, ttl: timedelta | None = None, consumer_type: str | None = None) -> TokenForms:
        """A new one-time token: a new pairing, hence a new system auth and CN; raises ValueError."""
        kind = consumer_type or self.options.consumer_type
        if kind not in get_args(ConsumerType):
            raise ValueError(f"consumer_type is one of {', '.join(get_args(ConsumerType))}")
        auth = self._parts.director.create(cast("ConsumerType", kind))
        return self._parts.director_api.token(auth, ttl=ttl)

    def revoke(self, fingerprint: str) -> None:
        """Revokes a certificate by its hex SHA-256, as a call of `revokeCertificate` does."""
        self._parts.registry.revoke(fingerprint)

    def forget(self, client_id: str) -> bool:
        """Deletes a system auth; whether there was one."""
        return self._parts.director.forget(client_id)

    def set_clock_offset(self, offset: timedelta) -> None:
        """Moves the Connector's clock; TLS stays on the real one."""
        self._parts.clock.offset = offset

    def set_lifetime(self, lifetime: timedelta) -> None:
        """Of certificates signed from now on; raises ValueError below a second."""
        if lifetime < timedelta(seconds=1):
            raise ValueError("a certificate lives for a second at least")
        self._parts.operator.lifetime = lifetime

    def set_subject(self, subject: str) -> None:
        """Changes the operator's constants: certificates with the old ones yield no identity any more."""
        self._parts.operator.subject = SubjectConstants.parse(subject)

    async def replace_client_ca(self, *, keep_connections: bool = False) -> None:
        """A new client CA of the same name: in a new handshake what the old one signed gets alert 48.

        Connections are cut; if they are kept, who has one does not notice until it closes.
        """
        replace = self._parts.folder.replace_client_authority
        authority = await asyncio.to_thread(
            replace, chain=self.options.chain, lifetime=self.options.ca_lifetime
        )
        self._parts.operator.authority = authority
        self._parts.tls.trust(authority.anchor)
        if not keep_connections:
            await self._mtls_listener.drop()

    async def outage(self, seconds: float) -> None:
        """Both listeners refuse connections for so long, and drop those they have; 0 ends an outage."""
        await self._stop_reopening()
        await self._token_listener.suspend()
        await self._mtls_listener.suspend()
        self._reopening = asyncio.create_task(self._reopen(seconds))

    def reset_counters(self) -> None:
        """All counters to zero, the requests forgotten."""
        self._parts.journal.reset()

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._token_listener.resume()
        self._mtls_listener.resume()
        self._reopening = None

    async def _stop_reopening(self) -> None:
        if self._reopening is not None:
            self._reopening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reopening
            self._reopening = None

    async def _open(self) -> None:
        """Listeners, first credential, first token; `endpoints.json` last."""
        for listener in (self._token_listener, self._mtls_listener, self._control):
            _open(listener)
        operator = self._parts.operator
        operator.certificate_secured_connector_url = self._url(self._mtls_listener)
        operator.token_secured_connector_url = self._url(self._token_listener)
        operator.adapter_url = self._url(self._token_listener, ADAPTER_PATH)
        operator.director_url = operator.director_url or self._url(self._mtls_listener, DIRECTOR_PATH)
        first = self._parts.first_credential(self.options)
        if self.options.fresh or not first.good():
            first.issue(await asyncio.to_thread(rsa_key))
        self._provide_endpoints()

    def _provide_endpoints(self) -> None:
        folder, operator = self._parts.folder, self._parts.operator
        token = self.token(ttl=self.options.token_ttl or _FIRST_TOKEN_TTL)
        self.endpoints = Endpoints(
            connector_url=operator.certificate_secured_connector_url,
            token_connector_url=self._url(self._token_listener),
            control_url=f"http://{_bracketed(self.options.control_host)}:{self._control.port}/",
            director_url=operator.director_url,
            ca_file=folder.file("server-ca.crt"),
            client_certificate_file=folder.file(CERTIFICATE),
            client_key_file=folder.file(KEY),
            token=token.token,
        )
        folder.write_private("token", token.token.encode() + b"\n")
        self._parts.state.save()
        folder.write_json("endpoints.json", self.endpoints.as_dict())

    async def _close(self) -> None:
        await self._stop_reopening()
        for listener in (self._token_listener, self._mtls_listener, self._control):
            await listener.close()
        self._parts.state.save()

    def _url(self, listener: Listener, path: str = PATH) -> str:
        return f"https://{self.options.public_host}:{listener.port}{path}"


def _open(listener: Listener) -> None:
    try:
        listener.open()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EmulatorError(f"port {listener.port} on {listener.host} is in use") from error
        reason = error.strerror or error
        raise EmulatorError(f"cannot listen on {listener.host}, port {listener.port}: {reason}") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
