"""What Prometheus reads, from a status and from what was counted."""

import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from compass_sidecar.adapters.metrics import PREFIX, Metrics
from compass_sidecar.core.catalogue import REASONS
from compass_sidecar.core.status import Progress, State, Status
from tests.api.fakes import generation
from tests.support.authority import NOW, Authority, name

OPERATIONS = ("configuration", "sign", "probe", "revoke")
# Section 8 of the public interface, and `reason`, which says what the alerts cannot see otherwise.
NAMES = {
    "certificate_not_before_timestamp_seconds",
    "certificate_not_after_timestamp_seconds",
    "renewal_due_timestamp_seconds",
    "renewal_next_attempt_timestamp_seconds",
    "renewal_last_success_timestamp_seconds",
    "renewal_consecutive_failures",
    "renewals",
    "renewal_duration_seconds",
    "connector_requests",
    "connector_request_duration_seconds",
    "clock_skew_seconds",
    "state",
    "reason",
    "credential_info",
    "build_info",
    "notifications",
    "log_lines_dropped",
    "http_requests",
}
OF_A_CREDENTIAL = {each for each in NAMES if each.endswith("timestamp_seconds")} | {"credential_info"}
UNCONNECTED = Status(version="1", started_at=NOW)
CONNECTED = replace(
    UNCONNECTED,
    generation=generation(),
    due_at=NOW + timedelta(days=60),
    next_attempt_at=NOW + timedelta(days=61),
    progress=Progress(last_success_at=NOW, consecutive_failures=2),
    clock_skew=timedelta(seconds=-1.5),
)


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics(version="1.2.3", python="3.13.0", operations=OPERATIONS)
    made.expect([("/status", "GET", 200)])
    return made


def families(
    metrics: Metrics, status: Status = CONNECTED, age: timedelta = timedelta(0)
) -> dict[str, Metric]:
    text = metrics.render(status, NOW + age).decode()
    return {each.name.removeprefix(PREFIX): each for each in text_string_to_metric_families(text)}


def samples(
    metrics: Metrics,
    family: str,
    *labels: str,
    status: Status = CONNECTED,
    age: timedelta = timedelta(0),
) -> dict[tuple[str, ...], float]:
    """By the values of these labels, without histograms' buckets."""
    found = [each for each in families(metrics, status, age)[family].samples if "le" not in each.labels]
    return {tuple(each.labels[label] for label in labels): each.value for each in found}


def test_the_names_are_those_of_the_interface(metrics: Metrics) -> None:
    assert families(metrics).keys() == NAMES


def test_what_is_of_a_credential_is_absent_without_one(metrics: Metrics) -> None:
    assert families(metrics, UNCONNECTED).keys() == NAMES - OF_A_CREDENTIAL - {"clock_skew_seconds"}
    assert "certificate_not_after" not in metrics.render(UNCONNECTED, NOW).decode()


def test_moments_are_absolute(metrics: Metrics) -> None:
    seen = {name: family.samples[0].value for name, family in families(metrics).items()}
    dues = [seen[f"renewal_{each}_timestamp_seconds"] for each in ("due", "next_attempt")]
    assert dues == [(NOW + timedelta(days=days)).timestamp() for days in (60, 61)]
    chain = generation().chain
    assert seen["certificate_not_before_timestamp_seconds"] == chain.not_before.timestamp()
    assert seen["certificate_not_after_timestamp_seconds"] == chain.effective_not_after.timestamp()
    assert seen["renewal_last_success_timestamp_seconds"] == NOW.timestamp()
    assert (seen["clock_skew_seconds"], seen["renewal_consecutive_failures"]) == (-1.5, 2)


def test_the_end_is_that_of_the_authority_if_that_comes_first(metrics: Metrics) -> None:
    authority = Authority.create(lifetime=timedelta(days=3))
    held = generation()
    brief = replace(held, credential=authority.credential(lifetime=timedelta(days=90)))
    status = replace(CONNECTED, generation=brief)
    (end,) = samples(metrics, "certificate_not_after_timestamp_seconds", status=status).values()
    assert end == authority.certificate.not_valid_after_utc.timestamp()
    assert samples(metrics, "reason", "reason", status=status)["ca-expires-first",] == 1


@pytest.mark.parametrize(
    ("status", "age", "state", "reasons"),
    [
        (UNCONNECTED, timedelta(0), State.UNCONNECTED, {"not-connected"}),
        (CONNECTED, timedelta(0), State.CONNECTED, set()),
        (CONNECTED, timedelta(days=65), State.DEGRADED, {"renewal-overdue"}),
        (CONNECTED, timedelta(days=90), State.EXPIRED, {"credential-expired", "renewal-overdue"}),
        (replace(CONNECTED, warnings=("publish-failed",)), timedelta(0), State.CONNECTED, {"publish-failed"}),
    ],
    ids=["unconnected", "connected", "degraded", "expired", "warned"],
)
def test_one_state_is_1_and_every_reason_is_there(
    metrics: Metrics, status: Status, age: timedelta, state: State, reasons: set[str]
) -> None:
    states = samples(metrics, "state", "state", status=status, age=age)
    assert states == {(each.value,): float(each is state) for each in State}
    given = samples(metrics, "reason", "reason", status=status, age=age)
    assert given == {(each,): float(each in reasons) for each in REASONS}


def test_there_is_one_credential_at_a_time(metrics: Metrics) -> None:
    for number in (0, 1):
        held = generation(number)
        (sample,) = families(metrics, replace(CONNECTED, generation=held))["credential_info"].samples
        assert sample.value == 1
        assert sample.labels == {
            "fingerprint_sha256": held.chain.fingerprint,
            "subject": held.chain.leaf.subject.rfc4514_string(),
            "issuer": held.chain.leaf.issuer.rfc4514_string(),
        }


def test_a_hostile_subject_is_one_harmless_label(metrics: Metrics) -> None:
    subject = name('a"} 1\nevil{b="\\\u202e' + "x" * 40, O="y" * 60, L="z" * 100, ST="v" * 100)
    held = replace(generation(), credential=Authority.create().credential(subject=subject))
    text = metrics.render(replace(CONNECTED, generation=held), NOW).decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{PREFIX}credential_info{{")]
    assert not any(each.startswith("evil") for each in text.splitlines())
    assert "\u202e" not in text
    assert len(line) < 1000
    assert families(metrics, replace(CONNECTED, generation=held)).keys() == NAMES


def test_what_is_known_beforehand_starts_with_0(metrics: Metrics) -> None:
    renewals = samples(metrics, "renewals", "result", "code")
    assert {
        ("success", "none"),
        ("failure", "connector-unavailable"),
        ("failure", "store-write-failed"),
    } <= set(renewals)
    calls = samples(metrics, "connector_requests", "operation", "outcome")
    assert {(each, outcome) for each in OPERATIONS for outcome in ("ok", "connector-timeout")} <= set(calls)
    notices = samples(metrics, "notifications", "kind", "result")
    assert set(notices) == {(k, r) for k in ("command", "webhook") for r in ("success", "failure")}
    requests = samples(metrics, "http_requests", "route", "method", "status")
    assert set(requests) == {("/status", "GET", "200")}
    assert {*renewals.values(), *calls.values(), *notices.values(), *requests.values()} == {0.0}
    durations = samples(metrics, "connector_request_duration_seconds", "operation")
    assert durations == {(each,): 0.0 for each in OPERATIONS}


def test_what_happens_is_counted(metrics: Metrics) -> None:
    metrics.event("renewed", {"duration_seconds": 0.4})
    metrics.event("attempt-failed", {"wanted": "renewed", "code": "connector-timeout"})
    metrics.event("attempt-failed", {"wanted": "connected", "code": "connector-timeout"})
    metrics.event("attempt-failed", {"wanted": "renewed", "code": "a-new-code"})
    metrics.call("sign", "ok", 0.02)
    metrics.call("sign", "connector-timeout", 30.5)
    metrics.notification("webhook", "failure")
    metrics.request("unmatched", "other", 404)
    counted = {
        family: {labels: value for labels, value in samples(metrics, family, *names).items() if value}
        for family, names in {
            "renewals": ("result", "code"),
            "connector_requests": ("operation", "outcome"),
            "notifications": ("kind", "result"),
            "http_requests": ("route", "method", "status"),
        }.items()
    }
    assert counted == {
        "renewals": {
            ("success", "none"): 1,
            ("failure", "connector-timeout"): 1,
            ("failure", "a-new-code"): 1,
        },
        "connector_requests": {("sign", "ok"): 1, ("sign", "connector-timeout"): 1},
        "notifications": {("webhook", "failure"): 1},
        "http_requests": {("unmatched", "other", "404"): 1},
    }


def test_a_histogram_counts_what_is_at_most_its_bound(metrics: Metrics) -> None:
    for seconds in (0.1, 0.11, 500.0):
        metrics.event("renewed", {"duration_seconds": seconds})
    found = families(metrics)["renewal_duration_seconds"].samples
    buckets = {each.labels["le"]: each.value for each in found if "le" in each.labels}
    assert (buckets["0.1"], buckets["0.25"], buckets["120.0"], buckets["+Inf"]) == (1, 2, 2, 3)
    assert {each.name.rpartition("_")[2]: each.value for each in found if "le" not in each.labels} == {
        "count": 3,
        "sum": pytest.approx(500.21),
    }


@pytest.mark.parametrize("status", [UNCONNECTED, CONNECTED], ids=["unconnected", "connected"])
def test_promtool_finds_nothing(metrics: Metrics, status: Status) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "`make test` installs it"
    done = subprocess.run(
        [promtool, "check", "metrics"], input=metrics.render(status, NOW), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
