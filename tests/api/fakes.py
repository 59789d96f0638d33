"""A sidecar that does what a test says: the API is what these tests are about."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

from compass_sidecar.core.credential import Chain, Credential, render_private_key
from compass_sidecar.core.generation import Facts, Generation, Origin
from compass_sidecar.core.status import Status
from compass_sidecar.engine.renewal import Renewed
from compass_sidecar.errors import NotCurrent, SidecarError
from tests.support.authority import NOW, Authority, rsa_key

AUTHORITY = Authority.create()


@cache
def generation(
    number: int = 0,
    *,
    lifetime: timedelta = timedelta(days=90),
    leaf_only: bool = False,
    not_before: datetime = NOW,
) -> Generation:
    key = rsa_key(number)
    leaf = AUTHORITY.issue(key=key.public_key(), lifetime=lifetime, not_before=not_before)
    chain = Chain.of([leaf] if leaf_only else [leaf, *AUTHORITY.chain])
    facts = Facts(
        origin=Origin.IMPORT, connector_url="https://connector.example.org/graphql", activated_at=NOW
    )
    return Generation(name=f"g{number}", credential=Credential(chain, render_private_key(key)), facts=facts)


class FakeSidecar:
    """Implements `compass_sidecar.engine.ports.Sidecar`."""

    def __init__(self, current: Generation | None = None) -> None:
        self.status = Status(version="0.1.0", started_at=NOW, generation=current)
        self.clock = NOW + timedelta(days=1)
        self.stall: str | None = None
        self.refusal: SidecarError | None = None
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.attempts = 0
        self.connections: list[tuple[str, str | None]] = []
        self.revoked: list[str] = []
        self._running: asyncio.Task[Renewed] | None = None
        self._changed = asyncio.Event()
        self._stopping = False

    def now(self) -> datetime:
        return self.clock

    def stalled(self) -> str | None:
        return self.stall

    def changed(self) -> asyncio.Event:
        return self._changed

    def stopping(self) -> bool:
        return self._stopping

    def use(self, current: Generation | None) -> None:
        self.status = replace(self.status, generation=current)
        self._tell()

    def revoke_now(self) -> None:
        current = self.status.generation
        assert current is not None
        self.use(replace(current, facts=replace(current.facts, revoked_at=self.clock)))

    def begin_stop(self) -> None:
        self._stopping = True
        self._tell()

    def _tell(self) -> None:
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    # --- what is asked of it --------------------------------------------------------------------

    def renew(self) -> "asyncio.Task[Renewed]":
        if self._running is None or self._running.done():
            if self.refusal is not None:
                raise self.refusal
            self._running = asyncio.create_task(self._make())
            self._running.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._running

    async def _make(self) -> Renewed:
        self.attempts += 1
        previous = self.status.generation
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.use(generation(self.attempts))
        assert self.status.generation is not None
        replaced = previous.chain.fingerprint if previous else None
        return Renewed(self.status.generation, replaced, timedelta(seconds=0.4125))

    def connect(self, token: str, connector_url: str | None) -> "asyncio.Task[Renewed]":
        self.connections.append((token, connector_url))
        return self.renew()

    def revoke(self, fingerprint: str) -> "asyncio.Task[None]":
        if self.refusal is not None:
            raise self.refusal
        current = self.status.generation
        if current is None or current.chain.fingerprint != fingerprint:
            raise NotCurrent("the fingerprint to confirm is not the current certificate's")
        return asyncio.create_task(self._revoke(fingerprint))

    async def _revoke(self, fingerprint: str) -> None:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.revoked.append(fingerprint)
        self.revoke_now()
