"""When to renew and how long to wait after a failure: decides, does nothing.

The numbers are the public interface's, section 11. Every function is pure; `draw` is a random
number from [0, 1) that the caller brings.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import (
    ConnectorError,
    ConnectorRejected,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    DirectorRefused,
    SidecarError,
    UnusableAnswer,
)
from .credential import Chain
from .generation import Generation, Origin, Pending

# The wall clock is looked at this often at most: a suspended or stepped clock does no harm.
LOOK = timedelta(seconds=30)
# In `expired` attempts still go out, since our clock may be the wrong one.
EXPIRED_INTERVAL = timedelta(minutes=15)
# The least time after a renewal that gained nothing, as far as it can be seen.
_PAUSE_WITHOUT_GAIN = timedelta(minutes=15)
_PAUSE_AFTER_DROP = timedelta(minutes=10)
_LONGEST_PAUSE_AFTER_DROP = timedelta(hours=24)
# A signed answer is given up after this many failed proofs, the first of them so long ago.
PROOFS_BEFORE_DROP = 3
PROOF_PATIENCE = timedelta(minutes=10)
CSR_MAX_AGE = timedelta(hours=1)
# The second token of a first connection is good for five minutes, whatever pause an operator wants.
_RESUME_INTERVAL = timedelta(seconds=10)
# More than all calls of an attempt take at their own limits: what lasts longer hangs.
ATTEMPT_LIMIT = timedelta(minutes=15)
_TIME_TO_RENEW = timedelta(seconds=10)
SKEW_LIMIT = timedelta(minutes=2)
FAILURES_BEFORE_DEGRADED = 3
_SHORTEST_WAIT = timedelta(milliseconds=100)
_FIRST_WAIT = timedelta(seconds=1)
# A refusal is rarely cured by itself in seconds, and the gateway's buckets are shared by everybody.
_FIRST_WAIT_AFTER_REFUSAL = timedelta(minutes=1)
_REFUSING = frozenset({403, 404})
_LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's numbers: w and j as shares of the lifetime, and the least interval."""

    window_ratio: float = 0.333
    jitter_ratio: float = 0.25
    min_interval: timedelta = timedelta(seconds=10)

    def due_at(self, chain: Chain, instance_id: str) -> datetime:
        """When renewal is due; the same for one certificate and instance, whoever asks."""
        jitter = min(self.jitter_ratio, (1 - self.window_ratio) / 2)
        share = 1 - self.window_ratio - _spread(chain.fingerprint, instance_id) * jitter
        return chain.not_before + lifetime(chain) * share

    def interval(self, chain: Chain) -> timedelta:
        """The least time between two automatic renewals that succeed."""
        return min(self.min_interval, lifetime(chain) / 10)


def _spread(fingerprint: str, instance_id: str) -> float:
    """U: a number from [0, 1) that differs between instances, so that a herd spreads out."""
    digest = hashlib.sha256(f"{fingerprint}:{instance_id}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def lifetime(chain: Chain) -> timedelta:
    """L; zero for a chain whose CA had expired before the leaf began."""
    return max(chain.effective_not_after - chain.not_before, timedelta(0))


def left(chain: Chain, now: datetime) -> timedelta:
    return max(chain.effective_not_after - now, timedelta(0))


def nearly_over(chain: Chain, now: datetime) -> bool:
    """Whether a tenth of the lifetime is left: time for a person to look."""
    return left(chain, now) <= lifetime(chain) / 10


def in_danger(chain: Chain | None, now: datetime) -> bool:
    """Whether what is left is too little to wait any longer for the proof of its successor."""
    if chain is None:
        return True
    # A proof's pauses take up to 4 s, and another renewal has to fit in what is left after one.
    least = min(lifetime(chain) / 4, _TIME_TO_RENEW)
    return left(chain, now) < max(min(lifetime(chain) / 20, PROOF_PATIENCE), least)


def longest_wait(chain: Chain | None, now: datetime) -> timedelta:
    """The cap of the backoff: ten attempts must always fit in what is left."""
    return max(_cap(chain, now), _SHORTEST_WAIT)


def _cap(chain: Chain | None, now: datetime) -> timedelta:
    if chain is None or not lives(chain, now):
        return EXPIRED_INTERVAL
    return min(_LONGEST_WAIT, max(timedelta(minutes=5), lifetime(chain) / 500), left(chain, now) / 10)


def backoff(
    error: SidecarError, failures: int, *, chain: Chain | None, now: datetime, draw: float
) -> timedelta:
    """How long to wait after the failure number `failures` (1 is the first) in a row.

    `chain` is the one in use, None when only what is pending counts.
    """
    if chain is not None and not lives(chain, now):
        return EXPIRED_INTERVAL
    # 2**20 s are twelve days: past every cap, and far from an overflow.
    ceiling = min(_first_wait(error) * (1 << min(failures - 1, 20)), _cap(chain, now))
    wait = ceiling * draw
    retry_after = error.retry_after if isinstance(error, ConnectorUnavailable) else None
    if retry_after is not None:
        wait = max(wait, min(retry_after, _longest_asked(chain, now))) * (1 + draw / 10)
    return max(wait, _SHORTEST_WAIT)


def _first_wait(error: SidecarError) -> timedelta:
    refused = isinstance(
        error, ConnectorRejected | ConnectorUnauthenticated | DirectorRefused | UnusableAnswer
    ) or (isinstance(error, ConnectorError) and error.status in _REFUSING)
    return _FIRST_WAIT_AFTER_REFUSAL if refused else _FIRST_WAIT


def _longest_asked(chain: Chain | None, now: datetime) -> timedelta:
    """How much of a `Retry-After` is heeded."""
    return left(chain, now) / 4 if chain is not None and lives(chain, now) else EXPIRED_INTERVAL


def lives(chain: Chain, now: datetime) -> bool:
    """Whether nothing in the chain has expired."""
    return now < chain.effective_not_after


@dataclass(frozen=True, slots=True)
class Failed:
    """The last attempt's failure: how long ago by a clock that cannot be set, and the wait drawn then."""

    ago: timedelta
    wait: timedelta
    asked_to_wait: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How long ago things were, by a clock that cannot be set; None: never, or before this boot.

    `request`: the last sign request that was sent. `signature`: the request that the credential in use came
    of. `drop`: when a signed answer was dropped last. `start`: the start of this process.
    """

    request: timedelta | None = None
    signature: timedelta | None = None
    drop: timedelta | None = None
    start: timedelta = timedelta.max


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision depends on."""

    generation: Generation | None
    pending: Pending | None
    failed: Failed | None
    policy: Policy
    instance_id: str
    pace: Pace = Pace()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Renew:
    """An attempt is to be made now: a renewal, or going on with the one in `pending/`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Connect:
    """Only a new one-time token, or a newer import, helps."""

    reason: str


Decision = Wait | Renew | Connect


def decide(situation: Situation, now: datetime) -> Decision:
    """What to do at this moment."""
    generation, pending = situation.generation, situation.pending
    ready_at = max(_ready_at(situation, now), now + _pause_of_connection(situation))
    if now < ready_at:
        return Wait(ready_at)
    if pending is not None and (pending.signed is not None or pending.origin is Origin.CONNECT):
        return Renew("resume")
    if generation is None:
        return Connect("not-connected")
    if generation.facts.revoked_at is not None:
        return Connect("credential-revoked")
    wanted = renewal_at(situation, generation, now)
    if now < wanted:
        return Wait(wanted)
    return Renew("due" if lives(generation.chain, now) else "expired")


def _pause_of_connection(situation: Situation) -> timedelta:
    """For a first connection that was cut off before its signature."""
    pending = situation.pending
    if pending is None or pending.signed is not None or pending.origin is not Origin.CONNECT:
        return timedelta(0)
    return _remaining(min(situation.policy.min_interval, _RESUME_INTERVAL), situation.pace.request)


def renewal_at(situation: Situation, generation: Generation, now: datetime) -> datetime:
    """When the loop renews if nothing fails: due, but not too soon after the last signature."""
    due_at = situation.policy.due_at(generation.chain, situation.instance_id)
    return max(due_at, now + _pause(situation, generation, now))


def _pause(situation: Situation, generation: Generation, now: datetime) -> timedelta:
    """How much longer an automatic signature has to wait, whatever clocks and `Date` headers say."""
    pace = situation.pace
    return max(
        _remaining(situation.policy.interval(generation.chain), pace.request),
        _pause_of_no_use(situation, generation),
        _remaining(_pause_after_drops(generation, now), _first(pace.drop, pace.start)),
    )


def _pause_of_no_use(situation: Situation, generation: Generation) -> timedelta:
    """For a certificate that is due again although it was signed a moment ago, or that gained nothing."""
    chain, facts, pace = generation.chain, generation.facts, situation.pace
    if facts.origin is Origin.IMPORT:
        return timedelta(0)
    pause = max(min(_PAUSE_WITHOUT_GAIN, lifetime(chain) / 20), _FIRST_WAIT)
    due_at = situation.policy.due_at(chain, situation.instance_id)
    activated_at = max(facts.activated_at, facts.connector_time or facts.activated_at)
    if activated_at >= due_at or not moved(generation):
        return _remaining(pause, _first(pace.signature, pace.start))
    # By the time that has passed it is not due yet: what says so is a clock.
    return _remaining(min(pause, due_at - chain.not_before), pace.signature)


def _pause_after_drops(generation: Generation, now: datetime) -> timedelta:
    """After signed answers that could not be proven: a next one may be no better."""
    if not generation.facts.drops:
        return timedelta(0)
    pause = _PAUSE_AFTER_DROP * (1 << min(generation.facts.drops - 1, 10))
    return min(pause, _LONGEST_PAUSE_AFTER_DROP, left(generation.chain, now) / 10)


def _remaining(pause: timedelta, ago: timedelta | None) -> timedelta:
    return pause - ago if ago is not None and ago < pause else timedelta(0)


def _first(ago: timedelta | None, otherwise: timedelta) -> timedelta:
    return ago if ago is not None else otherwise


def last_success(generation: Generation) -> datetime | None:
    """When it was renewed or connected; None for an import, which is no success of ours."""
    return None if generation.facts.origin is Origin.IMPORT else generation.facts.activated_at


def unproven(generation: Generation) -> bool:
    """Whether it was taken into use without the Connector having accepted it; an import always is."""
    return generation.facts.origin is not Origin.IMPORT and generation.facts.proven_at is None


def moved(generation: Generation) -> bool:
    """Whether this renewal made the end later; it does not when the CA expires first."""
    replaced_end = generation.facts.replaced_end
    return replaced_end is None or generation.chain.effective_not_after > replaced_end


def _ready_at(situation: Situation, now: datetime) -> datetime:
    """When the backoff is over. The cap is taken anew: after a suspend less is left than was then."""
    failed = situation.failed
    if failed is None:
        return now
    chain = situation.generation.chain if situation.generation is not None else None
    cap = longest_wait(chain, now)
    if failed.asked_to_wait:
        cap = max(_cap(chain, now), _longest_asked(chain, now) * 1.1)
    return now + max(min(failed.wait, cap) - failed.ago, timedelta(0))
