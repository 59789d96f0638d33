"""What Prometheus reads: counted as it happens, and put together from the status when it is scraped.

Moments are absolute, so that an alert works over any gap between scrapes. Known label sets start at 0, so
that the first failure is an increase. No label takes its value from a request.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..core.catalogue import Reason
from ..core.status import State, Status, state_of
from ..errors import ConnectorError, SidecarError, StoreDamaged, StoreError

PREFIX = "compass_sidecar_"
# A call takes 20 ms in a data centre, and is given up after 40 s unless the operator says otherwise.
_CALL_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 40.0)
# Three calls and a key that may not be ready yet; the proof may be made four times.
_RENEWAL_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


def _codes(tree: type[SidecarError]) -> set[str]:
    return {each.code for each in tree.__subclasses__()}


_OUTCOMES = {"ok", StoreDamaged.code, *_codes(ConnectorError)}
_FAILURES = {SidecarError.code, *_codes(ConnectorError), *_codes(StoreError)}


class Metrics:
    """Counts on the event loop; `render` adds what the status says."""

    def __init__(self, *, version: str, python: str, operations: Iterable[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._counted = CollectorRegistry(auto_describe=False)
        build = self._gauge("build_info", "Version of the sidecar and of Python.", "version", "python")
        build.labels(version, python).set(1)
        self._renewals = self._counter("renewals_total", "Renewals that ended.", "result", "code")
        self._renewal_seconds = Histogram(
            f"{PREFIX}renewal_duration_seconds",
            "Duration of renewals that succeeded.",
            buckets=_RENEWAL_BOUNDS,
            registry=self._counted,
        )
        self._calls = self._counter(
            "connector_requests_total",
            "Calls to the Connector that ended; the outcome is ok or an error's code.",
            "operation",
            "outcome",
        )
        self._call_seconds = Histogram(
            f"{PREFIX}connector_request_duration_seconds",
            "Duration of calls to the Connector, successful or not.",
            ("operation",),
            buckets=_CALL_BOUNDS,
            registry=self._counted,
        )
        self._notifications = self._counter(
            "notifications_total", "Notifications that were delivered or given up.", "kind", "result"
        )
        self._requests = self._counter(
            "http_requests_total",
            "Requests to the local API; an unknown route or method is unmatched or other.",
            "route",
            "method",
            "status",
        )
        # `labels` looks up under a lock, which would add 0.7 us to each request.
        self._request = cache(self._requests.labels)
        self._expect_outcomes(operations)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, about, labels, registry=self._counted)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, about, labels, registry=self._counted)

    def _expect_outcomes(self, operations: Iterable[str]) -> None:
        self._renewals.labels("success", "none")
        for code in sorted(_FAILURES):
            self._renewals.labels("failure", code)
        for operation in operations:
            self._call_seconds.labels(operation)
            for outcome in sorted(_OUTCOMES):
                self._calls.labels(operation, outcome)
        for kind in ("command", "webhook"):
            for result in ("success", "failure"):
                self._notifications.labels(kind, result)

    def expect(self, requests: Iterable[tuple[str, str, int]]) -> None:
        """Requests that are exposed as 0 before the first one."""
        for route, method, status in requests:
            self._request(route, method, status)

    def request(self, route: str, method: str, status: int) -> None:
        """One answer of the local API."""
        self._request(route, method, status).inc()

    def call(self, operation: str, outcome: str, seconds: float) -> None:
        """One call to the Connector that has ended; `outcome` is `ok` or the error's code."""
        self._calls.labels(operation, outcome).inc()
        self._call_seconds.labels(operation).observe(seconds)

    def notification(self, kind: str, result: Literal["success", "failure"]) -> None:
        """One notification of a consumer that was delivered or given up."""
        self._notifications.labels(kind, result).inc()

    def event(self, event: str, details: Mapping[str, object]) -> None:
        """One event of the journal: how a renewal ended is what counts here."""
        if event == "renewed":
            seconds = details["duration_seconds"]
            assert isinstance(seconds, float)  # noqa: S101 - Attempts rounds them
            self._renewals.labels("success", "none").inc()
            self._renewal_seconds.observe(seconds)
        elif event == "attempt-failed" and details["wanted"] == "renewed":
            self._renewals.labels("failure", str(details["code"])).inc()

    def render(
        self,
        status: Status,
        now: datetime,
        *,
        lines_dropped: int = 0,
        connections: Mapping[str, int] | None = None,
    ) -> bytes:
        """Prometheus text, format 0.0.4. `connections` has the open ones of each listener."""
        snapshot = _Snapshot(status, now, lines_dropped, connections or {})
        return generate_latest(snapshot) + generate_latest(self._counted)


@dataclass(frozen=True, slots=True)
class _Snapshot(Collector):
    """What is read at each scrape. A family without a sample is left out."""

    status: Status
    now: datetime
    lines_dropped: int
    connections: Mapping[str, int]

    def collect(self) -> Iterator[Metric]:
        found = (*self._moments(), *self._numbers(), *self._labelled())
        return (family for family in found if family.samples)

    def _moments(self) -> Iterator[Metric]:
        status, generation = self.status, self.status.generation
        chain = generation.chain if generation is not None else None
        for name, about, moment in (
            ("certificate_not_before", "Start of the certificate in use.", chain and chain.not_before),
            (
                "certificate_not_after",
                "End of the certificate in use or of one of its issuers, whichever comes first.",
                chain and chain.effective_not_after,
            ),
            ("renewal_due", "When renewal is due.", status.due_at),
            ("renewal_next_attempt", "When the next attempt will be made.", status.next_attempt_at),
            (
                "renewal_last_success",
                "When the credential was last renewed.",
                status.progress.last_success_at,
            ),
        ):
            yield _gauge(f"{name}_timestamp_seconds", about, moment.timestamp() if moment else None)

    def _numbers(self) -> Iterator[Metric]:
        skew = self.status.clock_skew
        yield _gauge(
            "clock_skew_seconds",
            "The Connector's clock minus this machine's.",
            skew.total_seconds() if skew is not None else None,
        )
        yield _gauge(
            "renewal_consecutive_failures",
            "Attempts that failed since the last one that succeeded.",
            self.status.progress.consecutive_failures,
        )
        yield CounterMetricFamily(
            f"{PREFIX}log_lines_dropped_total",
            "Log lines that were lost because standard error was not read or was full.",
            value=self.lines_dropped,
        )

    def _labelled(self) -> Iterator[Metric]:
        state, reasons = state_of(self.status, self.now)
        yield _by_label("state", "Whether this is the state.", {each: each is state for each in State})
        yield _by_label(
            "reason",
            "Whether this is a reason why the state is not simply connected.",
            {reason: reason in reasons for reason in Reason},
        )
        yield _by_label(
            "http_connections", "Open connections of the local API.", self.connections, label="listener"
        )
        credential = GaugeMetricFamily(
            f"{PREFIX}credential_info",
            "The certificate in use.",
            labels=("fingerprint_sha256", "subject", "issuer"),
        )
        if self.status.generation is not None:
            chain = self.status.generation.chain
            credential.add_metric((chain.fingerprint, chain.subject, chain.issuer), 1)
        yield credential


def _gauge(name: str, about: str, value: float | None) -> Metric:
    return GaugeMetricFamily(PREFIX + name, about, value=value)


def _by_label(name: str, about: str, values: Mapping[str, float], *, label: str = "") -> Metric:
    family = GaugeMetricFamily(PREFIX + name, about, labels=(label or name,))
    for each, value in values.items():
        family.add_metric((each,), float(value))
    return family
