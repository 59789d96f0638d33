"""The life of a credential with real processes: connect, renew by itself, prove, resume, revoke."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.support.processes import ROOT, EmulatorProcess, SidecarProcess, wait_until

BEARER = {"Authorization": "Bearer sixteen-characters-and-more"}


@pytest.fixture
def connecting(emulator: EmulatorProcess, tmp_path: Path) -> dict[str, str]:
    """The environment of a sidecar that has nothing yet."""
    return {
        "COMPASS_CONNECTOR_CA_FILE": emulator.endpoints["ca_file"],
        "COMPASS_STORE_DIR": str(tmp_path / "store"),
        "COMPASS_PUBLISH_DIR": str(tmp_path / "published"),
        "COMPASS_API_TOKEN": "sixteen-characters-and-more",
        "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
    }


@pytest.fixture
def sidecars(tmp_path: Path) -> Iterator[list[SidecarProcess]]:
    started: list[SidecarProcess] = []
    yield started
    for sidecar in started:
        sidecar.close()


def new_token(emulator: EmulatorProcess) -> dict[str, str]:
    return emulator.control("POST", "/tokens", {})  # type: ignore[return-value]


def pending_key(store: Path) -> bytes:
    key: str = json.loads((store / "pending" / "pending.json").read_bytes())["key_pem"]
    return key.encode()


def token_forms(emulator: EmulatorProcess) -> dict[str, dict[str, str]]:
    url, made = emulator.endpoints["token_connector_url"], new_token(emulator)
    beside = {"COMPASS_TOKEN_CONNECTOR_URL": url}
    return {
        "plain": {"COMPASS_TOKEN": made["token"], **beside},
        "raw": {"COMPASS_TOKEN": made["raw"]},
        "raw encoded": {"COMPASS_TOKEN": made["raw_encoded"]},
        "url": {"COMPASS_TOKEN": str(httpx.URL(url, params={"token": made["token"]}))},
        "legacy URL": {"COMPASS_TOKEN": made["legacy_url"], **beside},
    }


@pytest.mark.parametrize("form", ["plain", "raw", "raw encoded", "url", "legacy URL"])
def test_nothing_but_a_token_is_needed(
    connecting: dict[str, str],
    sidecars: list[SidecarProcess],
    emulator: EmulatorProcess,
    tmp_path: Path,
    form: str,
) -> None:
    sidecar = SidecarProcess(connecting | token_forms(emulator)[form], log=tmp_path / "log")
    sidecars.append(sidecar)
    status = sidecar.ready().status()
    assert status["state"] == "connected"
    assert status["connector"]["url"] == emulator.endpoints["connector_url"]
    assert status["certificate"]["proven_at"]
    assert sidecar.client.post("/renew", headers=BEARER).status_code == 200
    assert sidecar.stop() == 0
    sidecar.start()
    assert sidecar.ready().status()["state"] == "connected"
    assert "attempt-failed" not in (tmp_path / "store" / "journal.jsonl").read_text()


def test_a_token_by_post_connects_without_a_restart(
    connecting: dict[str, str], sidecars: list[SidecarProcess], emulator: EmulatorProcess, tmp_path: Path
) -> None:
    sidecar = SidecarProcess(connecting, log=tmp_path / "log").started()
    sidecars.append(sidecar)
    assert sidecar.status()["state"] == "unconnected"
    assert sidecar.client.get("/certificate").json()["code"] == "not-connected"
    made = new_token(emulator)
    body = {"token": made["token"], "connector_url": emulator.endpoints["token_connector_url"]}
    assert sidecar.client.post("/connect", json=body).status_code == 401
    answer = sidecar.client.post("/connect", json=body, headers=BEARER)
    assert answer.status_code == 200, answer.text
    assert answer.json()["connected"] is True
    assert sidecar.status()["state"] == "connected"
    again = sidecar.client.post("/connect", json=body, headers=BEARER)
    assert (again.status_code, again.json()["code"]) == (502, "connector-unauthenticated")
    assert sidecar.status()["state"] == "connected"


def test_the_legacy_url_alone_costs_no_token(
    connecting: dict[str, str], sidecars: list[SidecarProcess], emulator: EmulatorProcess, tmp_path: Path
) -> None:
    made = new_token(emulator)
    sidecar = SidecarProcess(connecting, log=tmp_path / "log").started()
    sidecars.append(sidecar)
    alone = sidecar.client.post("/connect", json={"token": made["legacy_url"]}, headers=BEARER)
    assert (alone.status_code, alone.json()["code"]) == (400, "bad-request")
    body = {"token": made["legacy_url"], "connector_url": emulator.endpoints["token_connector_url"]}
    assert sidecar.client.post("/connect", json=body, headers=BEARER).status_code == 200


def test_a_token_file_that_comes_later_is_found(
    connecting: dict[str, str], sidecars: list[SidecarProcess], emulator: EmulatorProcess, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    url = emulator.endpoints["token_connector_url"]
    environment = connecting | {"COMPASS_TOKEN_FILE": str(path), "COMPASS_TOKEN_CONNECTOR_URL": url}
    sidecar = SidecarProcess(environment, log=tmp_path / "log").started()
    sidecars.append(sidecar)
    wait_until(
        lambda: "connect-needed" in {event["event"] for event in sidecar.status()["events"]},
        "the request for a token",
    )
    path.write_text(new_token(emulator)["token"] + "\n")
    wait_until(lambda: sidecar.status()["state"] == "connected", "the connection", patience=45)


def test_a_revoked_credential_is_served_no_more_until_a_new_token(
    connecting: dict[str, str], sidecars: list[SidecarProcess], emulator: EmulatorProcess, tmp_path: Path
) -> None:
    sidecar = SidecarProcess(connecting | token_forms(emulator)["url"], log=tmp_path / "log").ready()
    sidecars.append(sidecar)
    wrong = sidecar.client.post("/revoke", json={"confirm": "0" * 64}, headers=BEARER)
    assert (wrong.status_code, wrong.json()["code"]) == (409, "not-current")
    confirmed = {"confirm": sidecar.fingerprint()}
    assert sidecar.client.post("/revoke", json=confirmed, headers=BEARER).is_success
    assert sidecar.status()["state"] == "revoked"
    for path in ("/certificate", "/certificate/chain.pem", "/readyz"):
        assert sidecar.client.get(path).status_code == 503
    assert sidecar.client.get("/certificate").json()["code"] == "credential-revoked"
    refused = sidecar.client.post("/renew", headers=BEARER)
    assert (refused.status_code, refused.json()["code"]) == (409, "credential-revoked")
    sidecar.kill()
    sidecar.start()
    assert sidecar.started().status()["state"] == "revoked"
    body = {
        "token": new_token(emulator)["token"],
        "connector_url": emulator.endpoints["token_connector_url"],
    }
    assert sidecar.client.post("/connect", json=body, headers=BEARER).status_code == 200
    assert sidecar.client.get("/readyz").status_code == 200


def test_a_signed_answer_survives_a_kill_and_is_proven_after_it(
    start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    before, signatures = sidecar.fingerprint(), emulator.signatures()
    emulator.fault("503-text@probe")
    refused = sidecar.client.post("/renew")
    assert refused.json()["code"] == "connector-unavailable"
    status = sidecar.status()
    assert status["state"] == "degraded"
    assert "proof-pending" in status["reasons"]
    assert sidecar.fingerprint() == before
    sidecar.kill()
    emulator.heal()
    sidecar.start()
    sidecar.ready()
    wait_until(lambda: sidecar.fingerprint() != before, "the proof")
    assert emulator.signatures() == signatures + 1


def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    start: Start, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    sidecar = start().ready()
    emulator.fault("reset-after-acting@sign")
    assert sidecar.client.post("/renew").json()["code"] == "connector-unavailable"
    key = pending_key(tmp_path / "store")
    emulator.heal()
    sidecar.kill()
    sidecar.start()
    sidecar.ready()
    assert sidecar.client.post("/renew").status_code == 200
    assert (tmp_path / "store" / "current" / "tls.key").read_bytes() == key


def test_sigterm_in_the_middle_of_a_renewal_ends_with_status_0_and_is_resumed(
    start: Start, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    sidecar = start().ready()
    before, signatures = sidecar.fingerprint(), emulator.signatures()
    emulator.fault("hang-headers@sign")
    assert sidecar.client.post("/renew", headers={"Prefer": "respond-async"}).status_code == 202
    wait_until((tmp_path / "store" / "pending").exists, "the CSR on disk")
    key = pending_key(tmp_path / "store")
    assert sidecar.stop() == 0
    emulator.heal()
    sidecar.start()
    sidecar.ready()
    assert sidecar.client.post("/renew").json()["previous_fingerprint_sha256"] == before
    assert (tmp_path / "store" / "current" / "tls.key").read_bytes() == key
    assert emulator.signatures() <= signatures + 2


def test_a_certificate_that_is_refused_at_first_is_proven_after_a_moment(
    start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    before = sidecar.fingerprint()
    emulator.fault("empty-400@probe*2")
    answer = sidecar.client.post("/renew")
    assert answer.status_code == 200
    assert answer.json()["previous_fingerprint_sha256"] == before


def test_skew_is_measured_and_dates_are_judged_by_the_connectors_clock(
    start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    emulator.control("POST", "/clock", {"offset": "-10m"})
    try:
        assert sidecar.client.post("/renew").status_code == 200
        status = sidecar.status()
        assert -605 < status["clock_skew_seconds"] < -595
        assert status["state"] == "degraded"
        assert "clock-skew" in status["reasons"]
    finally:
        emulator.control("POST", "/clock", {"offset": "0s"})


def test_a_mounted_pair_is_taken_over_while_running(
    importing: dict[str, str], sidecars: list[SidecarProcess], tmp_path: Path
) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, variable in (("tls.crt", "CERTIFICATE"), ("tls.key", "KEY")):
        source = Path(importing[f"COMPASS_CLIENT_{variable}_FILE"])
        (mounted / name).write_bytes(source.read_bytes())
    environment = importing | {
        "COMPASS_CLIENT_CERTIFICATE_FILE": str(mounted / "tls.crt"),
        "COMPASS_CLIENT_KEY_FILE": str(mounted / "tls.key"),
    }
    sidecar = SidecarProcess(environment, log=tmp_path / "log").ready()
    other = SidecarProcess(
        importing | {"COMPASS_STORE_DIR": str(tmp_path / "other"), "COMPASS_PUBLISH_DIR": ""},
        log=tmp_path / "other.log",
    ).ready()
    sidecars += [sidecar, other]
    time.sleep(1)  # whole seconds in certificates: the new one must be later
    assert other.client.post("/renew").status_code == 200
    for name in ("tls.key", "tls.crt"):
        (mounted / name).write_bytes((tmp_path / "other" / "current" / name).read_bytes())
    wait_until(lambda: sidecar.fingerprint() == other.fingerprint(), "the import", patience=45)


def test_it_renews_by_itself_through_faults_and_an_outage_and_is_always_ready(tmp_path: Path) -> None:
    """The short form of `make soak`: a minute of life, a token, random faults, an outage, readers."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.soak",
            "--minutes",
            "0.7",
            "--outages",
            "1",
            "--outage",
            "5",
            "--lifetime",
            "20s",
            "--seed",
            "1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
