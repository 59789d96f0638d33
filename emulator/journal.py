"""Counters, and the last requests: what a test asks the emulator afterwards."""

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

_REMEMBERED_REQUESTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request, or one connection that came to nothing (operation `connect`). Never a token or a key."""

    at: str
    door: str
    operation: str
    outcome: str
    status: int | None = None
    client_id: str | None = None
    peer_fingerprint_sha256: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON for the control endpoint."""
        return asdict(self)


class Journal:
    """Counts for as long as nobody resets it; remembers the last 200 requests."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """All counters to zero, the requests forgotten."""
        self.calls: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests: deque[Entry] = deque(maxlen=_REMEMBERED_REQUESTS)

    def record(self, entry: Entry) -> None:
        """Counts a request, and remembers it."""
        self.calls[entry.operation] += 1
        self.faults.update(entry.faults)
        self.requests.append(entry)

    def counters(self) -> dict[str, Any]:
        """JSON for the control endpoint: operations and events that have not happened are 0."""
        operations = ("configuration", "sign", "revoke", "probe", "adapter", "director", "other", "connect")
        events = (
            "signatures",
            "tokens_minted",
            "tokens_consumed",
            "revocations",
            "connections_token",
            "connections_mtls",
            "handshakes_failed",
        )
        return {
            "calls": {name: self.calls[name] for name in operations},
            **{name: self.events[name] for name in events},
            "faults": dict(self.faults),
        }
