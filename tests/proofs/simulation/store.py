"""The store in the simulation: what it holds survives a crash; each write happens whole or not at all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from compass_sidecar.core.credential import Credential
from compass_sidecar.core.door import ClientPair
from compass_sidecar.core.generation import Facts, Generation, Pending
from compass_sidecar.errors import NoCredential, StoreError

T = TypeVar("T")


@dataclass
class Disk:
    """What is stored. `activations` is the history of what was current, for the invariants."""

    generations: dict[str, Generation] = field(default_factory=dict)
    current: str | None = None
    pending: Pending | None = None
    used_tokens: set[str] = field(default_factory=set)
    activations: list[Generation] = field(default_factory=list)
    notifications: dict[str, Any] | None = None


class SimulatedStore:
    """Implements the engine's `Store` over a `Disk`. Calls are made through a `SimulatedWorker`."""

    def __init__(self, disk: Disk, *, on_activate: Callable[[Generation], None] = lambda _: None) -> None:
        self.disk = disk
        self.instance_id = "simulated"
        self._on_activate = on_activate

    def load(self) -> Generation | None:
        return self.disk.generations[self.disk.current] if self.disk.current is not None else None

    def generations(self) -> tuple[Generation, ...]:
        every = self.disk.generations.values()
        return tuple(
            sorted(every, key=lambda each: (each.chain.not_before, each.facts.activated_at), reverse=True)
        )

    def activate(self, credential: Credential, facts: Facts) -> Generation:
        generation = Generation(f"{len(self.disk.activations):06}", credential, facts)
        self._on_activate(generation)
        previous = self.disk.current
        keep = {previous, *(name for name, each in self.disk.generations.items() if _outstanding(each))}
        self.disk.generations = {name: each for name, each in self.disk.generations.items() if name in keep}
        self.disk.generations[generation.name] = generation
        self.disk.current, self.disk.pending = generation.name, None
        self.disk.activations.append(generation)
        return generation

    def amend(self, generation: Generation, facts: Facts) -> Generation:
        if generation.name not in self.disk.generations:
            raise StoreError(f"there is no generation {generation.name}")
        amended = replace(generation, facts=facts)
        self.disk.generations[generation.name] = amended
        return amended

    def pair(self, generation: Generation) -> ClientPair:
        return ClientPair(generation.chain.fingerprint, Path("tls.crt"), Path("tls.key"))

    def pending(self) -> Pending | None:
        return self.disk.pending

    def pending_pair(self, pending: Pending) -> ClientPair:
        if pending.signed is None:
            raise NoCredential("no signed answer is waiting for its proof")
        return ClientPair(pending.signed.chain.fingerprint, Path("pair.pem"), Path("pair.pem"))

    def save_pending(self, pending: Pending) -> None:
        self.disk.pending = pending

    def drop_pending(self) -> None:
        self.disk.pending = None

    def token_used(self, digest: str) -> bool:
        return digest in self.disk.used_tokens

    def notifications(self) -> dict[str, Any] | None:
        return self.disk.notifications

    def save_notifications(self, record: Mapping[str, Any]) -> None:
        self.disk.notifications = dict(record)

    def remember_token(self, digest: str) -> None:
        self.disk.used_tokens.add(digest)


def _outstanding(generation: Generation) -> bool:
    return generation.facts.revoke_at is not None and generation.facts.revoked_at is None
