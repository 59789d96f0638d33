"""A real sidecar is scraped."""

import platform
import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Start
from tests.support.processes import EmulatorProcess, SidecarProcess, free_port, wait_until

Value = Callable[..., float | None]


def scrape(sidecar: SidecarProcess, port: int | None = None) -> Value:
    """`value("state", state="connected")` is that sample's, None if there is none."""
    url = f"http://127.0.0.1:{port or sidecar.port}/metrics"
    answer = httpx.get(url, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name.removeprefix("compass_sidecar_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    return lambda name, **labels: samples.get((name, frozenset(labels.items())))


def test_a_renewal_and_a_failing_one_are_seen(start: Start, emulator: EmulatorProcess) -> None:
    sidecar = start(connector_timeout="5s").ready()
    before = scrape(sidecar)
    assert before("renewals_total", result="success", code="none") == 0
    assert before("renewals_total", result="failure", code="connector-unavailable") == 0
    assert before("state", state="connected") == 1

    assert sidecar.client.post("/renew").status_code == 200
    renewed = scrape(sidecar)
    assert renewed("renewals_total", result="success", code="none") == 1
    assert renewed("renewal_duration_seconds_count") == 1
    for operation in ("configuration", "sign", "probe"):
        assert renewed("connector_requests_total", operation=operation, outcome="ok") == 1
        assert renewed("connector_request_duration_seconds_count", operation=operation) == 1
    assert renewed("renewal_last_success_timestamp_seconds") is not None
    assert before("renewal_last_success_timestamp_seconds") is None

    emulator.fault("503-timeout-json@sign")
    for _ in range(3):
        assert sidecar.client.post("/renew").status_code == 503
    failed = scrape(sidecar)  # the loop may have tried again too
    count = failed("renewal_consecutive_failures") or 0
    assert count >= 3
    assert (failed("renewals_total", result="failure", code="connector-unavailable") or 0) >= count
    assert (
        failed("connector_requests_total", operation="sign", outcome="connector-unavailable") or 0
    ) >= count
    assert failed("state", state="degraded") == failed("reason", reason="renewal-failing") == 1
    assert failed("state", state="connected") == 0
    assert failed("renewal_duration_seconds_count") == 1
    assert failed("http_requests_total", route="/renew", method="POST", status="503") == 3


def test_there_is_one_credential_and_it_is_the_current_one(start: Start) -> None:
    sidecar = start().ready()
    assert sidecar.client.post("/renew").status_code == 200
    lines = [
        line
        for line in sidecar.client.get("/metrics").text.splitlines()
        if line.startswith("compass_sidecar_credential_info")
    ]
    certificate = sidecar.status()["certificate"]
    assert len(lines) == 1
    for name in ("fingerprint_sha256", "subject", "issuer"):
        assert f'{name}="{certificate[name]}"' in lines[0]


def test_the_health_listener_serves_them_and_names_stay_few(start: Start) -> None:
    port = free_port()
    sidecar = start(health_port=str(port), health_host="127.0.0.1").ready()
    series = len(sidecar.client.get("/metrics").text.splitlines())
    for _ in range(1000):
        sidecar.client.get(f"/{secrets.token_hex(4)}")
    sidecar.client.request("BREW", "/status")
    sidecar.client.request(secrets.token_hex(4).upper().replace("0", "A"), "/status")
    value = scrape(sidecar, port)
    assert value("http_requests_total", route="unmatched", method="GET", status="404") == 1000
    assert len(sidecar.client.get("/metrics").text.splitlines()) - series < 10
    assert (value("http_requests_total", route="/metrics", method="GET", status="200") or 0) >= 1


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_method_that_the_api_does_not_have_is_other(start: Start, method: str) -> None:
    sidecar = start().ready()
    assert sidecar.client.request(method, "/status").status_code == 405
    assert scrape(sidecar)("http_requests_total", route="/status", method="other", status="405") == 1


def test_without_a_credential_nothing_is_said_of_one(start: Start) -> None:
    sidecar = start(client_certificate_file="", client_key_file="").started()
    value = scrape(sidecar)
    assert value("state", state="unconnected") == value("reason", reason="not-connected") == 1
    assert "certificate_not" not in sidecar.client.get("/metrics").text
    assert value("build_info", version=sidecar.status()["version"], python=platform.python_version()) == 1


def test_open_connections_are_counted_for_each_listener(start: Start) -> None:
    health = free_port()
    sidecar = start(health_host="127.0.0.1", health_port=str(health)).ready()
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", health)))
        value = scrape(sidecar)
        assert value("http_connections", listener="health") == 5
        assert (value("http_connections", listener="api") or 0) >= 1
    wait_until(lambda: scrape(sidecar)("http_connections", listener="health") == 0, "the end of connections")
