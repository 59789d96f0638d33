"""Signatures of a real process at a Connector whose `Date` headers are wrong."""

import time

import pytest

from tests.e2e.conftest import Start
from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until


def attempted(sidecar: SidecarProcess) -> None:
    wait_until(lambda: sidecar.status()["renewal"]["last_attempt_at"], "an attempt")


@pytest.mark.parametrize(
    "date", ["date-ahead:60d", "date-ahead:89d", "date-behind:60d", "date-year-1", "date-year-9999"]
)
def test_a_wrong_date_leads_to_one_signature_and_not_to_one_after_the_other(
    start: Start, emulator: EmulatorProcess, date: str
) -> None:
    sidecar = start().ready()
    emulator.fault(date)
    before = emulator.signatures()
    sidecar.client.post("/renew")
    time.sleep(5)
    assert emulator.signatures() - before == 1
    assert sidecar.client.get("/livez").status_code == 200


def test_restarts_do_not_quicken_the_pace(start: Start, emulator: EmulatorProcess) -> None:
    sidecar = start().ready()
    emulator.fault("date-changing:60d")
    before = emulator.signatures()
    sidecar.client.post("/renew")
    for number in range(4):
        sidecar.kill() if number % 2 else sidecar.stop()
        sidecar.start()
        sidecar.ready()
        time.sleep(1)
    assert emulator.signatures() - before <= 1


def test_a_request_that_was_killed_counts(start: Start, emulator: EmulatorProcess) -> None:
    """The Connector signs each time, and its answers are lost."""
    sidecar = start(
        renewal_window_ratio="0.999999",
        renewal_jitter_ratio="0",
        renewal_min_interval="1h",
        connector_timeout="5m",
    )
    emulator.fault("hang-headers@sign")
    before = emulator.signatures()
    for _ in range(4):
        sidecar.ready()
        wait_until(lambda: emulator.signatures() > before, "a signature")
        sidecar.kill()
        sidecar.start()
    sidecar.ready()
    time.sleep(2)
    assert emulator.signatures() - before == 1
