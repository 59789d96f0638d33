"""What the sidecar says of itself, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from .catalogue import Reason
from .generation import Generation
from .policy import FAILURES_BEFORE_DEGRADED, SKEW_LIMIT, lifetime, moved


class State(StrEnum):
    """In the order in which they are tried: the first that fits."""

    REVOKED = "revoked"
    UNCONNECTED = "unconnected"
    EXPIRED = "expired"
    DEGRADED = "degraded"
    CONNECTED = "connected"


@dataclass(frozen=True, slots=True)
class LastError:
    """Why the last attempt failed; cleared by a success."""

    code: str
    detail: str
    retryable: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How the attempts went."""

    last_attempt_at: datetime | None = None
    last_success_at: datetime | None = None
    consecutive_failures: int = 0
    last_error: LastError | None = None
    in_progress: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """Replaced whole at every change. What depends on the clock is computed by `state_of`.

    `pending` is the fingerprint of a signed answer that waits for its proof; `announced_url` is set
    when the Connector names another URL than the one that the operator set; `warnings` are reasons
    that say something for people and leave the state alone.
    """

    version: str
    started_at: datetime
    generation: Generation | None = None
    pending: str | None = None
    due_at: datetime | None = None
    next_attempt_at: datetime | None = None
    progress: Progress = Progress()
    connector_url: str | None = None
    director_url: str | None = None
    announced_url: str | None = None
    clock_skew: timedelta | None = None
    warnings: tuple[Reason, ...] = ()
    events: tuple[Mapping[str, object], ...] = ()


def state_of(status: Status, now: datetime) -> tuple[State, tuple[Reason, ...]]:
    """The state at that moment, and the reasons why it is not simply `connected`."""
    generation = status.generation
    reasons = (*degraded_reasons(status, now), *status.warnings)
    if generation is None:
        return State.UNCONNECTED, (Reason.NOT_CONNECTED, *reasons)
    if generation.facts.revoked_at is not None:
        return State.REVOKED, (Reason.CREDENTIAL_REVOKED, *reasons)
    if now >= generation.chain.effective_not_after:
        return State.EXPIRED, (Reason.CREDENTIAL_EXPIRED, *reasons)
    if degraded_reasons(status, now):
        return State.DEGRADED, reasons
    return State.CONNECTED, reasons


def degraded_reasons(status: Status, now: datetime) -> tuple[Reason, ...]:
    found = {
        Reason.RENEWAL_FAILING: status.progress.consecutive_failures >= FAILURES_BEFORE_DEGRADED,
        Reason.RENEWAL_OVERDUE: _overdue(status, now),
        Reason.PROOF_PENDING: status.pending is not None,
        Reason.CLOCK_SKEW: status.clock_skew is not None and abs(status.clock_skew) > SKEW_LIMIT,
        Reason.CA_EXPIRES_FIRST: _ca_expires_first(status),
    }
    return tuple(reason for reason, fits in found.items() if fits)


def _overdue(status: Status, now: datetime) -> bool:
    if status.generation is None or status.due_at is None:
        return False
    return now - status.due_at > lifetime(status.generation.chain) / 20


def _ca_expires_first(status: Status) -> bool:
    if status.generation is None:
        return False
    chain = status.generation.chain
    if chain.effective_not_after < chain.not_after:
        return True
    # A CA that cuts its certificates to its own end makes all of them end then.
    ends = [each.not_valid_after_utc for each in chain.authorities]
    return not moved(status.generation) and chain.effective_not_after == min(ends, default=None)
