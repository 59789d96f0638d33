"""The whole sidecar but its process: real store, real TLS to a real emulator, the API on top.

Only waiting is not real: a pause is over at once, so that the proofs of a fresh pair take no seven seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from compass_sidecar.adapters.anchors import Anchors
from compass_sidecar.adapters.clock import Clock
from compass_sidecar.adapters.connector import Connector, Observation
from compass_sidecar.adapters.worker import Worker
from compass_sidecar.api.guard import Access
from compass_sidecar.core.credential import Chain, Credential, parse_certificates
from compass_sidecar.core.generation import Facts, Origin
from compass_sidecar.core.policy import Policy
from compass_sidecar.engine.connector_clock import ConnectorClock
from tests.api.serving import BEARER, TOKEN, local_client
from tests.support.house import House, Inputs, Keys, Recorder
from tests.support.processes import EmulatorProcess

DRAW = 0.5


class EagerClock(Clock):
    """The system's clocks, and nobody ever waits."""

    def __init__(self) -> None:
        super().__init__()
        self.busy: Callable[[], bool] = lambda: False

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(0)


class ArmedConnector:
    """The real one; just before the first call of `operation` the fault is set.

    On a new connection: a fault of connections does not concern one that is open.
    """

    def __init__(self, inner: Connector) -> None:
        self._inner = inner
        self._armed: tuple[str, Callable[[], None]] | None = None

    def arm(self, operation: str, act: Callable[[], None]) -> None:
        self._armed = (operation, act)

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Awaitable[Any]] = getattr(self._inner, name)

        async def armed(*arguments: Any) -> Any:
            if self._armed is not None and self._armed[0] == name:
                _, act = self._armed
                self._armed = None
                await self._inner.retire(frozenset())
                await asyncio.to_thread(act)
            return await call(*arguments)

        return armed


@dataclass
class Stage(House):
    """A House that talks to `emulator`; it holds the emulator's first credential, and renewal is due."""

    emulator: EmulatorProcess = field(kw_only=True)
    timeout: timedelta = timedelta(seconds=20)
    policy: Policy = field(
        default_factory=lambda: Policy(window_ratio=1 - 1e-9, jitter_ratio=0, min_interval=timedelta(0))
    )
    draw: Callable[[], float] = lambda: DRAW

    def __post_init__(self) -> None:
        self.clock = EagerClock()  # type: ignore[assignment]
        self.observed: list[Observation] = []
        self.connector_clock = ConnectorClock(self.clock.elapsed)
        self.real = Connector(
            anchors=Anchors("COMPASS_CONNECTOR_CA_FILE", Path(self.emulator.endpoints["ca_file"])),
            proxy_for=lambda _url: None,
            timeout=self.timeout,
            observe=self._observe,
            now=self.clock.now,
        )
        self.connector = ArmedConnector(self.real)  # type: ignore[assignment]
        self.said = Recorder()
        self.inputs = Inputs()
        self.keys = Keys()
        self.worker = Worker("disk", limit=timedelta(minutes=1))
        self.open()
        self.api: httpx.AsyncClient = local_client(self.scheduler, Access(api_token=TOKEN))  # type: ignore[arg-type]
        self.api.headers.update(BEARER)

    def _observe(self, observation: Observation) -> None:
        self.observed.append(observation)
        if observation.date is not None:
            self.connector_clock.note(observation.date)

    async def begin(self) -> None:
        at = self.emulator.endpoints
        chain = Chain.of(parse_certificates(Path(at["client_certificate_file"]).read_bytes()))
        credential = Credential(chain, Path(at["client_key_file"]).read_bytes())
        facts = Facts(Origin.IMPORT, at["connector_url"], self.clock.now())
        self.store.activate(credential, facts)
        await self.scheduler.start()

    async def end(self) -> None:
        await self.api.aclose()
        await self.scheduler.stop(timedelta(seconds=5))
        await self.real.aclose()
        self.close()

    # --- what a user does ------------------------------------------------------------------------

    async def renew(self) -> httpx.Response:
        return await self.api.post("/renew")

    async def connect(self) -> httpx.Response:
        made = await asyncio.to_thread(self.emulator.control, "POST", "/tokens", {})
        body = {"token": made["token"], "connector_url": self.emulator.endpoints["token_connector_url"]}
        return await self.api.post("/connect", json=body)

    async def revoke(self) -> httpx.Response:
        return await self.api.post("/revoke", json={"confirm": self.fingerprint})

    async def served(self) -> bytes:
        answer = await self.api.get("/certificate/chain.pem")
        assert answer.status_code == 200, answer.text
        return answer.content

    def limit(self, seconds: float) -> None:
        """COMPASS_CONNECTOR_TIMEOUT from the next call on."""
        self.real._transport._timeout = timedelta(seconds=seconds)

    @property
    def wait(self) -> timedelta | None:
        """The wait that was drawn after the last failure."""
        failed = self.attempts.failed()
        return failed.wait if failed is not None else None
