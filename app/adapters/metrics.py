"""What Prometheus reads: counted as it happens, and put together from the status when it is asked for.

Moments are absolute, so that an alert works over any gap between scrapes. What is known beforehand is there
from the start with 0, so that the first failure is an increase; and no label takes what a caller sends.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from ..core.catalogue import REASONS
from ..core.status import State, Status, state_of
from ..errors import ConnectorError, SidecarError, StoreDamaged, StoreError

if TYPE_CHECKING:
    from prometheus_client import Metric

PREFIX = "compass_sidecar_"
# A call takes 20 ms in a data centre, and is given up after 40 s unless the operator says otherwise.
_CALL_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 40.0)
# Three calls and a key that may not be ready yet; the proof may be made four times.
_RENEWAL_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_Labels = tuple[str, ...]


def _codes(tree: type[SidecarError]) -> set[str]:
    return {each.code for each in tree.__subclasses__()}


_OUTCOMES = {"ok", StoreDamaged.code, *_codes(ConnectorError)}
_FAILURES = {SidecarError.code, *_codes(ConnectorError), *_codes(StoreError)}


class _Histogram:
    """How often each duration up to a bound was seen, in seconds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, how many were at most that), the last one +Inf."""
        return list(zip([*map(str, self._bounds), "+Inf"], accumulate(self._counts), strict=True))


@dataclass(frozen=True, slots=True)
class _Family:
    kind: Literal["gauge", "counter", "histogram"]
    name: str
    about: str
    labels: _Labels
    samples: Mapping[_Labels, "float | _Histogram"]


class Metrics:
    """Counts what it is told of, on the event loop; `render` adds what the status says."""

    def __init__(self, *, version: str, python: str, operations: Iterable[str]) -> None:
        self._build = (version, python)
        self._renewals: dict[_Labels, float] = {("success", "none"): 0.0}
        self._renewals |= {("failure", code): 0.0 for code in sorted(_FAILURES)}
        self._renewal_seconds = _Histogram(_RENEWAL_BOUNDS)
        self._call_seconds: dict[_Labels, _Histogram] = {
            (each,): _Histogram(_CALL_BOUNDS) for each in operations
        }
        self._calls: dict[_Labels, float] = {
            (*operation, outcome): 0.0 for operation in self._call_seconds for outcome in sorted(_OUTCOMES)
        }
        kinds, results = ("command", "webhook"), ("success", "failure")
        self._notifications: dict[_Labels, float] = {(k, r): 0.0 for k in kinds for r in results}
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)

    def expect(self, requests: Iterable[tuple[str, str, int]]) -> None:
        """Requests that are there with 0 before they are made."""
        for each in requests:
            self._requests[each] += 0

    def request(self, route: str, method: str, status: int) -> None:
        """One answer of the local API. Called for each of them: no lock, no lookup by label."""
        self._requests[route, method, status] += 1

    def call(self, operation: str, outcome: str, seconds: float) -> None:
        """One call to the Connector that has ended; `outcome` is `ok` or the error's code."""
        self._calls[operation, outcome] = self._calls.get((operation, outcome), 0.0) + 1
        self._call_seconds[operation,].note(seconds)

    def notification(self, kind: str, result: Literal["success", "failure"]) -> None:
        """One notice to a neighbour that arrived, or was given up."""
        self._notifications[kind, result] += 1

    def event(self, event: str, details: Mapping[str, object]) -> None:
        """One event of the journal: how a renewal ended is what counts here."""
        if event == "renewed":
            seconds = details["duration_seconds"]
            assert isinstance(seconds, float)  # noqa: S101 - Attempts rounds them
            self._renewals["success", "none"] += 1
            self._renewal_seconds.note(seconds)
        elif event == "attempt-failed" and details["wanted"] == "renewed":
            outcome = ("failure", str(details["code"]))
            self._renewals[outcome] = self._renewals.get(outcome, 0.0) + 1

    def render(
        self,
        status: Status,
        now: datetime,
        *,
        lines_dropped: int = 0,
        connections: Mapping[str, int] | None = None,
    ) -> bytes:
        """Prometheus text, format 0.0.4. `connections` has the open ones of each listener."""
        # Only here: a sidecar that nobody scrapes starts 12 ms sooner without it.
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

        registry = CollectorRegistry(auto_describe=False)
        families = self._families(status, now, lines_dropped, connections or {})
        registry.register(_Collected(families))
        return generate_latest(registry)

    def _families(
        self, status: Status, now: datetime, lines_dropped: int, connections: Mapping[str, int]
    ) -> Iterator[_Family]:
        yield from _of_credential(status)
        yield from _of_state(status, now)
        yield _info(
            "build_info", "The version of the sidecar and of Python.", ("version", "python"), self._build
        )
        yield _Family("counter", "renewals_total", "Renewals that ended.", ("result", "code"), self._renewals)
        yield _Family(
            "histogram",
            "renewal_duration_seconds",
            "How long renewals that succeeded took.",
            (),
            {(): self._renewal_seconds},
        )
        yield _Family(
            "counter",
            "connector_requests_total",
            "Calls to the Connector that ended; the outcome is ok or an error's code.",
            ("operation", "outcome"),
            self._calls,
        )
        yield _Family(
            "histogram",
            "connector_request_duration_seconds",
            "How long calls to the Connector took, good or bad.",
            ("operation",),
            self._call_seconds,
        )
        yield _Family(
            "counter",
            "notifications_total",
            "Notices to neighbours that arrived or were given up.",
            ("kind", "result"),
            self._notifications,
        )
        yield _Family(
            "counter",
            "log_lines_dropped_total",
            "Lines of the log that were lost, because nothing read standard error or it was full.",
            (),
            {(): float(lines_dropped)},
        )
        requests = {(*names, str(code)): float(count) for (*names, code), count in self._requests.items()}
        yield _Family(
            "counter",
            "http_requests_total",
            "Requests to the local API; a route or method that it does not have is unmatched or other.",
            ("route", "method", "status"),
            requests,
        )
        yield _Family(
            "gauge",
            "http_connections",
            "Open connections of the local API.",
            ("listener",),
            {(name,): float(number) for name, number in connections.items()},
        )


def _of_credential(status: Status) -> Iterator[_Family]:
    """What there is of these depends on there being a credential, and on what has happened."""
    generation = status.generation
    chain = generation.chain if generation is not None else None
    moments = {
        "certificate_not_before": (
            chain.not_before if chain else None,
            "When the certificate in use begins.",
        ),
        "certificate_not_after": (
            chain.effective_not_after if chain else None,
            "When the certificate in use or one of its issuers ends, whatever comes first.",
        ),
        "renewal_due": (status.due_at, "When renewal is due."),
        "renewal_next_attempt": (status.next_attempt_at, "When the next attempt will be made."),
        "renewal_last_success": (status.progress.last_success_at, "When the credential was renewed last."),
    }
    for name, (moment, about) in moments.items():
        yield _gauge(f"{name}_timestamp_seconds", about, moment.timestamp() if moment else None)
    if chain is not None:
        names = (chain.subject, chain.issuer)
        labels = ("fingerprint_sha256", "subject", "issuer")
        identity = (chain.fingerprint, *names)
        yield _info("credential_info", "The certificate in use.", labels, identity)


def _of_state(status: Status, now: datetime) -> Iterator[_Family]:
    state, reasons = state_of(status, now)
    skew = status.clock_skew.total_seconds() if status.clock_skew is not None else None
    yield _gauge("clock_skew_seconds", "The Connector's clock minus ours.", skew)
    failures = status.progress.consecutive_failures
    yield _gauge(
        "renewal_consecutive_failures", "Attempts that failed since the last one that succeeded.", failures
    )
    states: dict[_Labels, float] = {(each.value,): float(each is state) for each in State}
    yield _Family("gauge", "state", "Whether this is the state.", ("state",), states)
    given: dict[_Labels, float] = {(reason,): float(reason in reasons) for reason in (*REASONS, *reasons)}
    yield _Family(
        "gauge",
        "reason",
        "Whether this is a reason why the state is not simply connected.",
        ("reason",),
        given,
    )


def _gauge(name: str, about: str, value: float | None) -> _Family:
    return _Family("gauge", name, about, (), {} if value is None else {(): value})


def _info(name: str, about: str, labels: _Labels, values: _Labels) -> _Family:
    return _Family("gauge", name, about, labels, {values: 1.0})


class _Collected:
    """Families as prometheus_client asks for them; those without a sample are left out."""

    def __init__(self, families: Iterable[_Family]) -> None:
        self._families = families

    def collect(self) -> "Iterator[Metric]":
        return (_as_prometheus(each) for each in self._families if each.samples)


def _as_prometheus(family: _Family) -> "Metric":
    from prometheus_client import core  # noqa: PLC0415 - loaded by the first scrape

    kinds = {
        "gauge": core.GaugeMetricFamily,
        "counter": core.CounterMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }
    made: Any = kinds[family.kind](PREFIX + family.name, family.about, labels=family.labels)
    for labels, value in family.samples.items():
        if isinstance(value, _Histogram):
            made.add_metric(labels, value.buckets(), value.total)
        else:
            made.add_metric(labels, value)
    return made  # type: ignore[no-any-return]
