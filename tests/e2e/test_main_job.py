"""The main job with real processes, real TLS and a real GraphQL Connector."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.load import opened
from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until


def openssl(*arguments: object) -> str:
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout


def test_a_renewal_gives_neighbours_a_new_chain_that_openssl_accepts(start: Start, tmp_path: Path) -> None:
    sidecar = start().ready()
    before = sidecar.fingerprint()
    answer = sidecar.client.post("/renew")
    assert answer.status_code == 200
    content = answer.json()
    assert content["renewed"] is True
    assert content["previous_fingerprint_sha256"] == before
    after = content["certificate"]["fingerprint_sha256"]
    assert after not in {before, None}
    assert content["certificate"]["proven_at"] is not None
    assert sidecar.status()["state"] == "connected"
    chain, ca = tmp_path / "tls.crt", tmp_path / "ca.crt"
    chain.write_bytes(sidecar.client.get("/certificate/chain.pem").content)
    ca.write_bytes(sidecar.client.get("/certificate/ca.pem").content)
    assert openssl("verify", "-CAfile", ca, "-untrusted", chain, chain).strip().endswith("OK")
    current = tmp_path / "store" / "current"
    assert (current / "tls.crt").read_bytes() == chain.read_bytes()
    assert openssl("x509", "-in", current / "tls.crt", "-noout", "-pubkey") == openssl(
        "pkey", "-in", current / "tls.key", "-pubout"
    )


def test_the_stored_and_the_published_pair_open_the_connector_for_curl(
    start: Start, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    sidecar = start().ready()
    assert sidecar.client.post("/renew").status_code == 200
    for folder in (tmp_path / "store" / "current", tmp_path / "published"):
        done = subprocess.run(
            [
                *("curl", "-sS", "--cacert", emulator.endpoints["ca_file"]),
                *("--cert", str(folder / "tls.crt"), "--key", str(folder / "tls.key")),
                *("-H", "Content-Type: application/json", "-d", '{"query":"{ __typename }"}'),
                emulator.endpoints["connector_url"],
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert '"data"' in done.stdout


def test_the_connector_is_called_with_the_new_certificate_from_then_on(
    start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    first = sidecar.client.post("/renew").json()["certificate"]["fingerprint_sha256"]
    assert sidecar.client.post("/renew").status_code == 200
    calls = [each for each in emulator.control("GET", "/")["requests"] if each["operation"] == "sign"]
    assert calls[-1]["peer_fingerprint_sha256"] == first


@pytest.mark.anyio
async def test_a_thousand_callers_get_one_signature_and_equal_answers(
    start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    before = emulator.signatures()
    emulator.fault("slow@sign:2")
    # Bare sockets: a thousand clients of httpx would cost the machine more than what is tested.
    lines = await opened(sidecar.port, 1000)
    answers = await asyncio.gather(*(line.ask("POST", "/renew") for line in lines))
    for line in lines:
        line.close()
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert emulator.signatures() == before + 1


def test_respond_async_answers_at_once_and_the_renewal_goes_on(
    start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    before = sidecar.fingerprint()
    emulator.fault("slow@sign:1")
    answer = sidecar.client.post("/renew", headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["location"] == "/status"
    assert answer.json() == {"renewed": False, "pending": None}
    wait_until(lambda: sidecar.fingerprint() != before, "the renewal")


WRONG_ANSWERS = {
    "wrong-key": (502, "connector-protocol"),
    "wrong-subject": (502, "connector-protocol"),
    "expired": (502, "connector-protocol"),
    "not-yet-valid": (502, "connector-protocol"),
    "forged-signature": (502, "connector-protocol"),
    "broken-base64": (502, "connector-protocol"),
    "no-certificate": (502, "connector-protocol"),
    "empty-chain": (502, "connector-protocol"),
    "private-key-in-pem": (502, "connector-protocol"),
    "leaf-mismatch": (502, "connector-protocol"),
    "csr-invalid-common-name": (502, "connector-rejected"),
    "empty-400": (502, "connector-unauthenticated"),
    "503-timeout-json": (503, "connector-unavailable"),
    "html-200": (502, "connector-protocol"),
    "hang-headers": (504, "connector-timeout"),
    "reset-before-acting": (503, "connector-unavailable"),
    "endless-body": (502, "connector-protocol"),
}


@pytest.fixture(scope="module")
def patient(emulator_for_all: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> object:
    """One sidecar for the whole table: whatever happened before, the next wrong answer changes nothing."""
    endpoints, folder = emulator_for_all.endpoints, tmp_path_factory.mktemp("sidecar")
    environment = {
        "COMPASS_CONNECTOR_URL": endpoints["connector_url"],
        "COMPASS_CONNECTOR_CA_FILE": endpoints["ca_file"],
        "COMPASS_CLIENT_CERTIFICATE_FILE": endpoints["client_certificate_file"],
        "COMPASS_CLIENT_KEY_FILE": endpoints["client_key_file"],
        "COMPASS_STORE_DIR": str(folder / "store"),
        "COMPASS_CONNECTOR_TIMEOUT": "2s",
    }
    sidecar = SidecarProcess(environment, log=folder / "log")
    yield sidecar.ready()
    sidecar.close()


@pytest.mark.parametrize("fault", WRONG_ANSWERS)
def test_a_wrong_answer_leaves_the_old_credential_in_use(
    patient: SidecarProcess, emulator: EmulatorProcess, fault: str
) -> None:
    before = patient.client.get("/certificate/chain.pem").content
    emulator.fault(f"{fault}@sign")
    answer = patient.client.post("/renew")
    status, code = WRONG_ANSWERS[fault]
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["valid_until"]
    assert patient.client.get("/certificate/chain.pem").content == before
    assert patient.client.get("/readyz").status_code == 200
    assert patient.status()["renewal"]["last_error"]["code"] == code


def test_a_chain_in_another_order_is_put_into_issuing_order(start: Start, emulator: EmulatorProcess) -> None:
    sidecar = start().ready()
    emulator.fault("shuffled@sign")
    assert sidecar.client.post("/renew").status_code == 200
    content = sidecar.client.get("/certificate").json()
    assert content["chain"] == content["leaf"] + content["ca"]


def test_sigterm_ends_it_with_status_0_and_a_restart_has_the_same_chain(start: Start) -> None:
    sidecar = start().ready()
    sidecar.client.post("/renew")
    before = sidecar.client.get("/certificate/chain.pem").content
    assert sidecar.stop() == 0
    sidecar.start()
    sidecar.ready()
    assert sidecar.client.get("/certificate/chain.pem").content == before


def test_the_command_line_talks_to_the_running_sidecar(start: Start, tmp_path: Path) -> None:
    sidecar = start().ready()
    assert sidecar.command("status").stdout.startswith("state        connected")
    renewed = sidecar.command("renew")
    assert (renewed.returncode, renewed.stdout.split()[0]) == (0, "renewed")
    target = tmp_path / "chain.pem"
    assert sidecar.command("certificate", "-o", str(target)).returncode == 0
    assert target.read_bytes() == sidecar.client.get("/certificate/chain.pem").content
    sidecar.stop()
    gone = sidecar.command("status")
    assert (gone.returncode, len(gone.stderr.splitlines())) == (1, 1)


def _other_key(environment: dict[str, str], folder: Path) -> dict[str, str]:
    openssl("genrsa", "-out", folder / "other.key", "2048")
    return environment | {"COMPASS_CLIENT_KEY_FILE": str(folder / "other.key")}


BAD_SETTINGS = {
    "COMPASS_CONNECTOR_URL": lambda env, _: env | {"COMPASS_CONNECTOR_URL": "http://example.com/graphql"},
    "COMPASS_CLIENT_CERTIFICATE_FILE: .*key": _other_key,
    "COMPASS_CLIENT_KEY_FILE: .*missing.key": lambda env, _: env | {"COMPASS_CLIENT_KEY_FILE": "missing.key"},
    "COMPASS_CONECTOR_URL: .*COMPASS_CONNECTOR_URL": lambda env, _: env | {"COMPASS_CONECTOR_URL": "x"},
}


@pytest.mark.parametrize("line", BAD_SETTINGS)
def test_a_wrong_setting_stops_the_start_with_a_line_that_says_what_to_do(
    importing: dict[str, str], tmp_path: Path, line: str
) -> None:
    sidecar = SidecarProcess(BAD_SETTINGS[line](importing, tmp_path), log=tmp_path / "log")
    try:
        assert sidecar.process.wait(30) == 2
    finally:
        sidecar.close()
    said = [each for each in sidecar.log.read_text().splitlines() if not each.startswith("{")]
    import re

    assert re.match(f"compass-sidecar: {line}", said[-1]), said
    assert "Traceback" not in "\n".join(said)


def test_no_secret_is_in_the_log(start: Start, tmp_path: Path) -> None:
    sidecar = start(log_level="debug", api_token="a-token-nobody-may-see").ready()
    sidecar.client.post("/renew", headers={"Authorization": "Bearer a-token-nobody-may-see"})
    sidecar.stop()
    log = sidecar.log.read_text() + (tmp_path / "store" / "journal.jsonl").read_text()
    assert "PRIVATE" not in log
    assert "nobody-may-see" not in log
    assert "CERTIFICATE REQUEST" not in log


def test_openssl_and_curl_are_there() -> None:
    assert shutil.which("openssl")
    assert shutil.which("curl")
