"""What happened: counters, the last requests, what was issued, and what was revoked.

Revocation is a set of SHA-256 fingerprints, as in the real ConfigMap. It is consulted in front of the
Connector only and does not make a TLS handshake fail.
"""

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from cryptography import x509

from .authority import fingerprint
from .subjects import common_name, subject_of

_REMEMBERED_REQUESTS = 200
_REMEMBERED = 5_000  # certificates listed by the control endpoint; a soak test issues more


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request, or one connection that came to nothing (operation `connect`). Never a token or a key."""

    at: str
    listener: str
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
    """Counts until it is reset; remembers the last 200 requests."""

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


@dataclass(frozen=True, slots=True)
class Issued:
    """One issued certificate, as the control endpoint lists it."""

    fingerprint_sha256: str
    client_id: str
    subject: str
    not_before: str
    not_after: str
    monotonic: float

    def as_dict(self, *, revoked: bool) -> dict[str, Any]:
        """JSON for the control endpoint."""
        return {
            "fingerprint_sha256": self.fingerprint_sha256,
            "client_id": self.client_id,
            "subject": self.subject,
            "not_before": self.not_before,
            "not_after": self.not_after,
            "revoked": revoked,
        }


class Registry:
    """Issued certificates (in memory) and revoked fingerprints (persisted through `on_change`)."""

    def __init__(self, *, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._issued: OrderedDict[str, Issued] = OrderedDict()
        self._revoked: set[str] = set()

    def record(self, certificate: x509.Certificate, *, issued_at: float | None = None) -> None:
        """Remembers an issued certificate and the moment: now, or this reading of the monotonic clock."""
        key, subject = fingerprint(certificate), subject_of(certificate)
        self._issued[key] = Issued(
            fingerprint_sha256=key,
            client_id=common_name(subject),
            subject=subject.rfc4514_string(),
            not_before=_iso(certificate.not_valid_before_utc.isoformat()),
            not_after=_iso(certificate.not_valid_after_utc.isoformat()),
            monotonic=time.monotonic() if issued_at is None else issued_at,
        )
        while len(self._issued) > _REMEMBERED:
            self._issued.popitem(last=False)

    def age(self, key: str) -> float | None:
        """Seconds since this certificate was issued by this process; None if it was not."""
        issued = self._issued.get(key)
        return None if issued is None else time.monotonic() - issued.monotonic

    def revoke(self, key: str) -> None:
        """Adds a fingerprint; repeating it changes nothing."""
        self._revoked.add(key.lower())
        self._on_change()

    def revoked(self, key: str) -> bool:
        """Whether the certificate yields no identity any more."""
        return key in self._revoked

    def listing(self) -> list[dict[str, Any]]:
        """Every certificate remembered, oldest first."""
        return [one.as_dict(revoked=self.revoked(key)) for key, one in self._issued.items()]

    def dump(self) -> list[str]:
        """What to persist."""
        return sorted(self._revoked)

    def load(self, revoked: list[str]) -> None:
        """What was persisted."""
        self._revoked.update(revoked)


def _iso(text: str) -> str:
    return text.replace("+00:00", "Z")
