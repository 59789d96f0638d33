"""The proof of a new pair: calls that the Connector accepts, or what their failure says about the pair."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from ..core.door import ClientPair, Door
from ..errors import (
    ConnectorError,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    PairRefused,
    SidecarError,
    UnexpectedFailure,
    UnusableURL,
)
from .ports import Clock, Connector

# kyma#7110: a fresh certificate may be refused for a moment. The caller who asked for the renewal is
# waiting, so a few probes are made at once before the loop's backoff takes over.
_PAUSES = (timedelta(seconds=1), timedelta(seconds=2), timedelta(seconds=4))
# Answers of a policy in front of the Connector, which may look at the certificate.
_REFUSING = frozenset({401, 403, 404})


class Verdict(Enum):
    ACCEPTED = auto()
    OPEN = auto()  # it was not looked at, or neither pair is accepted
    REFUSED = auto()  # and the old pair is accepted at the same URL
    UNEXPECTED = auto()  # an exception from outside the error tree, which may come from the answer
    UNUSABLE = auto()  # its files cannot be loaded or its URL cannot be called, ever


@dataclass(frozen=True, slots=True)
class Proof:
    """How a proof ended: the URL that was probed last, and the failure unless it was accepted."""

    verdict: Verdict
    url: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new pair with the announced URL, the URL known to work, and the pair in use if that is good.

    `urgent()`: whether the pair in use ends so soon that there is no time for pauses.
    """

    pair: ClientPair
    announced: str
    known: str | None
    old: ClientPair | None
    urgent: Callable[[], bool]


class Prover:
    def __init__(self, *, clock: Clock, connector: Connector) -> None:
        self._clock = clock
        self._connector = connector

    async def prove(self, candidate: Candidate, correlation_id: str) -> Proof:
        """Probe with the new pair; after a refusal a few times, and then once with the old pair."""
        for pause in (*_PAUSES, None):
            url, error = await self._probe(candidate, correlation_id)
            if pause is None or not isinstance(error, ConnectorUnauthenticated) or candidate.urgent():
                break
            await self._clock.sleep(pause)
        return Proof(await self._judge(candidate, url, error, correlation_id), url, error)

    async def _probe(self, candidate: Candidate, correlation_id: str) -> tuple[str, Exception | None]:
        announced, known = candidate.announced, candidate.known
        error = await self._call(Door(announced, correlation_id, pair=candidate.pair))
        if (
            error is None
            or isinstance(error, ConnectorUnauthenticated)
            or known is None
            or known == announced
        ):
            return announced, error
        # An announced URL that does not work must not cost the one that does.
        second = await self._call(Door(known, correlation_id, pair=candidate.pair))
        if isinstance(error, UnusableURL) and second is not None and not _is_passing(second):
            return announced, error
        return known, second

    async def _call(self, door: Door) -> Exception | None:
        try:
            await self._connector.probe(door)
        except Exception as error:  # noqa: BLE001 - what is unexpected is judged with the rest
            return error
        return None

    async def _judge(
        self, candidate: Candidate, url: str, error: Exception | None, correlation_id: str
    ) -> Verdict:
        if error is None:
            return Verdict.ACCEPTED
        if isinstance(error, UnusableURL | PairRefused):
            return Verdict.UNUSABLE
        if not isinstance(error, SidecarError) or isinstance(error, UnexpectedFailure):
            return Verdict.UNEXPECTED
        if candidate.old is None or _is_passing(error):
            return Verdict.OPEN
        refused = await self._call(Door(url, correlation_id, pair=candidate.old)) is None
        return Verdict.REFUSED if refused else Verdict.OPEN


def _is_passing(error: Exception) -> bool:
    """Whether the failure says nothing about the pair, such as an outage, an overload or a full disk."""
    if isinstance(error, ConnectorUnavailable):
        return error.status not in _REFUSING
    passing = isinstance(error, ConnectorTimeout | ConnectorUntrusted)
    return passing or (
        isinstance(error, SidecarError) and not isinstance(error, ConnectorError | PairRefused)
    )
