"""What has to hold after every step, and what was seen."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from compass_sidecar.core.generation import Generation, Origin
from compass_sidecar.core.policy import Policy, left, lives, longest_wait
from compass_sidecar.core.status import State, state_of

from .connector import Signature, SimulatedConnector
from .store import Disk
from .world import World

if TYPE_CHECKING:
    from .story import Process

# Two attempts of 15 minutes that are waited for, and one of one's own.
VISIT_LIMIT = timedelta(minutes=46)
UNMOVED = timedelta(minutes=15)
DELIVERED = frozenset({"connected", "renewed", "imported", "revoked"})


class Watch:
    """Is told of every step, and raises `Broken` where a rule does not hold."""

    def __init__(self, world: World, disk: Disk, connector: SimulatedConnector, *, look: timedelta) -> None:
        self.world = world
        self.disk = disk
        self.connector = connector
        self.look = look
        self.policy = Policy()
        self.process: Process | None = None
        self.counts: Counter[str] = Counter()
        self._visits = 0
        self._failed_when_due = 0
        self._undisturbed_since = timedelta(0)
        self._due_since: timedelta | None = None
        self._delivered: str | None = None
        self._started = timedelta(0)
        self._activated = timedelta(0)
        self._unserved_since: timedelta | None = None

    # --- what is told --------------------------------------------------------------------------

    def event(self, event: str, details: Mapping[str, object]) -> None:
        self.counts[event] += 1
        if event in {"renewed", "connected", "imported"}:
            self._failed_when_due = 0
        if event == "attempt-failed" and details.get("wanted") == "renewed" and self._due():
            self._failed_when_due += 1

    def delivered(self, event: str, fingerprint: str | None) -> None:
        self.counts[f"delivered {event}"] += 1
        self._delivered = fingerprint

    def started(self) -> None:
        """A process counts its own failures; what came before it is in the journal only."""
        self._failed_when_due = 0
        self._started = self.world.elapsed()

    def disturbed(self) -> None:
        """Somebody or something outside changed what the engine could rely on."""
        self._undisturbed_since = self.world.elapsed()

    @contextmanager
    def visit(self, what: str) -> Iterator[None]:
        """(h) Every request to the local API is answered in time."""
        self._visits += 1
        began = self.world.elapsed()
        try:
            yield
        finally:
            self._visits -= 1
            took = self.world.elapsed() - began
            self.world.check(took <= VISIT_LIMIT, f"(h) {what} took {took}")
            self.disturbed()

    def automatic(self) -> bool:
        return self._visits == 0

    # --- (a) what comes into use ---------------------------------------------------------------

    def activated(self, generation: Generation) -> None:
        self.counts["activations"] += 1
        fingerprint = generation.chain.fingerprint
        issued = self.connector.issued.get(fingerprint)
        self.world.say(f"activate {fingerprint[:8]} ({generation.facts.origin.value})")
        self.world.check(issued is not None and issued.good, f"(a) {fingerprint[:8]} was not verified")
        current = self.disk.generations.get(self.disk.current or "")
        if current is None or issued is None:
            return
        held = self.connector.issued[current.chain.fingerprint]
        if generation.facts.origin is Origin.RENEW:
            self.world.check(
                issued.number >= held.number, f"(a) {fingerprint[:8]} is older than the current one"
            )
        self._due_since = None
        self._activated = self.world.elapsed()

    # --- (b), (e) signatures -------------------------------------------------------------------

    def signature(self, signature: Signature) -> None:
        self.counts["signatures"] += 1
        current = self.disk.generations.get(self.disk.current or "")
        pending = self.disk.pending
        if not signature.automatic:
            return
        self.counts["automatic signatures"] += 1
        before = self.connector.signatures[-2] if len(self.connector.signatures) > 1 else None
        if before is not None and current is not None:
            interval = self.policy.interval(current.chain)
            since = signature.at - before.at
            self.world.check(
                since >= interval - timedelta(seconds=0.1),  # the mark on disk is older by a write
                f"(b) two signatures within {since}, not {interval}",
            )
        fresh = pending is not None and pending.signed is not None and pending.csr_pem != signature.csr
        held = current.chain.fingerprint if current is not None else None
        if fresh and pending is not None and pending.begun_by == held:
            self.world.check(False, "(e) a new signature although a signed answer is stored")

    # --- (c), (d), (f) from time to time -------------------------------------------------------

    def step(self) -> None:
        """After every call of a port."""
        process = self.process
        if process is None:
            return
        held = self.disk.generations.get(self.disk.current or "")
        used, now = process.renewal.generation, self.world.our_time()
        revoked = held is not None and self.connector.issued[held.chain.fingerprint].revoked
        if held is None or revoked or not _usable(held, now) or (used is not None and _usable(used, now)):
            self._unserved_since = None
        elif self._unserved_since is None:
            self._unserved_since = self.world.elapsed()
        elif self.world.calm():
            # After an answer of the disk that was lost, the next look takes up what it wrote.
            since = max(self._unserved_since, self.world.calm_since)
            patience = 3 * self.look + timedelta(minutes=1)
            self.world.check(
                self.world.elapsed() - since <= patience, "(d) a usable credential is not served"
            )
        self._check_status(process)

    def _check_status(self, process: "Process") -> None:
        status = process.scheduler.status
        state, reasons = state_of(status, self.world.our_time())
        if self._failed_when_due >= 3 and not process.scheduler._attempts.running():
            self.world.check(
                state is not State.CONNECTED or reasons, "(f) connected, although what was due failed"
            )

    async def patrol(self) -> None:
        while True:
            await asyncio.sleep(self.look.total_seconds())
            if self.world.broken is not None:
                raise self.world.broken
            self.step()
            self._check_progress()
            self._check_delivery()

    def _due(self) -> bool:
        current = self.disk.generations.get(self.disk.current or "")
        if current is None:
            return False
        due_at = self.policy.due_at(current.chain, "simulated")
        return self._decision_time() >= due_at

    def _decision_time(self) -> datetime:
        return self.world.our_time()

    def _check_progress(self) -> None:
        """(c) Due, calm and undisturbed for longer than the longest wait: then it is renewed."""
        world, current = self.world, self.disk.generations.get(self.disk.current or "")
        process = self.process
        if (
            current is None
            or process is None
            or not world.calm()
            or not self._due()
            or not self._can_be_renewed(current)
        ):
            self._due_since = None
            return
        if self._due_since is None:
            self._due_since = world.elapsed()
        since = max(self._due_since, world.calm_since, self._undisturbed_since)
        passed = world.elapsed() - since
        wait = self._longest(world.our_time() - passed) + 2 * self.look + timedelta(minutes=1)
        world.check(passed <= wait, f"(c) due for {passed} in calm weather, and not renewed within {wait}")

    def _check_delivery(self) -> None:
        """(g) In calm weather a consumer learns of the credential in use: 3 tries, at least 10 s apart."""
        world, current = self.world, self.disk.generations.get(self.disk.current or "")
        if current is None or self.process is None or not world.calm() or current.facts.revoked_at:
            return
        since = max(self._activated, self._started, world.calm_since, self._undisturbed_since)
        if world.elapsed() - since > 3 * self.look + timedelta(minutes=3):
            known = self._delivered == current.chain.fingerprint
            world.check(known, "(g) the consumer was not told of the credential in use")

    def _longest(self, began: datetime) -> timedelta:
        assert self.disk.current is not None
        current = self.disk.generations[self.disk.current].chain
        rest = left(current, began)
        # A quarter of what is left is waited for a `Retry-After`, and a tenth after a dropped answer.
        return max(longest_wait(current, began), rest / 4 * 1.1, min(rest / 10, timedelta(hours=24)), UNMOVED)

    def _can_be_renewed(self, current: Generation) -> bool:
        issued = self.connector.issued[current.chain.fingerprint]
        skewed = abs(self.world.our_error - self.world.their_error) > timedelta(minutes=2)
        odd = self.world.date_error is None or abs(self.world.date_error) > timedelta(seconds=45)
        revoked = issued.revoked or current.facts.revoked_at is not None
        return not revoked and not skewed and not odd and lives(current.chain, self.world.their_time())

    def helpless(self, process: "Process") -> bool:
        state, _ = state_of(process.scheduler.status, self.world.our_time())
        return state in {State.UNCONNECTED, State.EXPIRED, State.REVOKED}

    def finish(self) -> None:
        self.world.check(self.counts["activations"] > 0, "nothing was ever activated")


def _usable(generation: Generation, now: datetime) -> bool:
    return generation.facts.revoked_at is None and lives(generation.chain, now)
