"""Revocation with real processes: the emulator acts, and its answer does not always arrive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until

BEARER = {"Authorization": "Bearer sixteen-characters-and-more"}
LOST = "the answer was lost; the Connector refuses this certificate now"


@pytest.fixture
def sidecar(emulator: EmulatorProcess, tmp_path: Path) -> Iterator[SidecarProcess]:
    made = emulator.control("POST", "/tokens", {})
    environment = {
        "COMPASS_CONNECTOR_CA_FILE": emulator.endpoints["ca_file"],
        "COMPASS_TOKEN": made["token"],
        "COMPASS_TOKEN_CONNECTOR_URL": emulator.endpoints["token_connector_url"],
        "COMPASS_STORE_DIR": str(tmp_path / "store"),
        "COMPASS_API_TOKEN": "sixteen-characters-and-more",
        "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
        "COMPASS_REVOKE_SUPERSEDED_AFTER": "1s",
    }
    started = SidecarProcess(environment, log=tmp_path / "log").ready()
    yield started
    started.close()


def revoked(emulator: EmulatorProcess) -> set[str]:
    issued = emulator.control("GET", "/")["issued"]
    return {each["fingerprint_sha256"] for each in issued if each["revoked"]}


def events(sidecar: SidecarProcess, event: str) -> list[dict[str, object]]:
    return [each for each in sidecar.status()["events"] if each["event"] == event]


def renew(sidecar: SidecarProcess) -> str:
    """The fingerprint of the superseded certificate."""
    answer = sidecar.client.post("/renew", headers=BEARER)
    assert answer.status_code == 200, answer.text
    fingerprint: str = answer.json()["previous_fingerprint_sha256"]
    return fingerprint


def test_each_superseded_certificate_is_revoked_when_its_time_comes(
    sidecar: SidecarProcess, emulator: EmulatorProcess
) -> None:
    superseded = {renew(sidecar) for _ in range(3)}
    # The loop looks every 30 s besides.
    wait_until(lambda: superseded <= revoked(emulator), "three revocations", patience=20)
    assert sidecar.fingerprint() not in revoked(emulator)
    assert "revocation-failed" not in sidecar.status()["reasons"]


def test_a_lost_answer_is_no_reason_to_revoke_a_superseded_certificate_again_and_again(
    sidecar: SidecarProcess, emulator: EmulatorProcess
) -> None:
    emulator.fault("reset-after-acting@revoke*1")
    superseded = renew(sidecar)
    wait_until(lambda: events(sidecar, "superseded-revoked"), "the revocation to be known")
    (event,) = events(sidecar, "superseded-revoked")
    assert event["fingerprint"] == superseded
    assert event["detail"] == "the Connector refuses this certificate, and accepts the one in use"
    assert {superseded} == {each["fingerprint"] for each in events(sidecar, "revocation-failed")}
    assert sidecar.status()["state"] == "connected"


def test_a_revocation_whose_answer_was_lost_ends_in_revoked(
    sidecar: SidecarProcess, emulator: EmulatorProcess
) -> None:
    fingerprint = sidecar.fingerprint()
    emulator.fault("reset-after-acting@revoke*1")
    answer = sidecar.client.post("/revoke", json={"confirm": fingerprint}, headers=BEARER)
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert fingerprint in revoked(emulator)
    assert "revocation-failed" in sidecar.status()["reasons"]
    # Two refusals at least a minute apart.
    wait_until(lambda: sidecar.status()["state"] == "revoked", "the end of the revocation", patience=200)
    (event,) = events(sidecar, "revoked")
    assert event["detail"] == LOST
    assert sidecar.client.get("/certificate").json()["code"] == "credential-revoked"
    again = sidecar.client.post("/revoke", json={"confirm": fingerprint}, headers=BEARER)
    assert (again.status_code, again.json()["code"]) == (409, "credential-revoked")
