"""`check` where nothing is wrong yet, and what it must leave as it is."""

import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from compass_sidecar.cli.check import examine
from compass_sidecar.cli.findings import Finding, Outcome, examine_store
from tests.e2e.conftest import Start
from tests.support.processes import ROOT, EmulatorProcess


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder, with its times and what is in it."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }


def test_check_changes_nothing_whether_a_sidecar_runs_or_not(
    start: Start, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    store, published = tmp_path / "store", tmp_path / "published"
    sidecar = start(publish_dir=str(published)).ready()
    sidecar.stop()
    checks = []
    for running in (False, True):
        if running:
            sidecar.start()
            sidecar.ready()
        before = tree(store), tree(published), emulator.control("GET", "/")["counters"]
        done = sidecar.command("check", "--json")
        assert done.returncode == 0, done.stdout
        after = tree(store), tree(published), emulator.control("GET", "/")["counters"]
        assert after[:2] == before[:2]
        assert after[2]["signatures"] == before[2]["signatures"]
        checks.append({each["name"]: each["detail"] for each in json.loads(done.stdout)["checks"]})
    assert "not in use now" in checks[0]["store"]
    assert f"in use by a sidecar (pid {sidecar.process.pid} on " in checks[1]["store"]


def test_check_judges_the_files_to_import_beside_the_store(
    start: Start, importing: dict[str, str], tmp_path: Path
) -> None:
    start().ready().stop()
    done = alone(importing)
    assert done.returncode == 0
    why = "is not taken over: the certificate in the files is the one in use"
    assert f"{importing['COMPASS_CLIENT_CERTIFICATE_FILE']} {why}" in done.stdout
    bad = alone(importing, COMPASS_CLIENT_KEY_FILE="/nowhere")
    assert bad.returncode == 0
    why = "COMPASS_CLIENT_KEY_FILE: /nowhere does not exist; correct the files"
    assert f"warning     import          {why}" in bad.stdout
    damaged = next((tmp_path / "store").glob("generations/*/tls.crt"))
    damaged.write_bytes(damaged.read_bytes()[:-40])
    lost = alone(importing, COMPASS_CLIENT_CERTIFICATE_FILE="", COMPASS_CLIENT_KEY_FILE="")
    assert lost.returncode == 1
    assert "tls.crt is damaged: its checksum is wrong" in lost.stdout


def test_check_before_the_first_start_makes_no_folder(importing: dict[str, str], tmp_path: Path) -> None:
    done = alone(importing, "--json")
    assert done.returncode == 0, done.stdout
    assert {each["outcome"] for each in json.loads(done.stdout)["checks"]} == {"ok"}
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "published").exists()


def alone(ours: dict[str, str], *options: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    """`check` where no sidecar has ever been."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COMPASS_")}
    return subprocess.run(
        [sys.executable, "-m", "compass_sidecar", "check", *options],
        cwd=ROOT,
        env={**environ, **ours, **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_check_with_an_encrypted_key_leaves_no_copy_of_it(importing: dict[str, str], tmp_path: Path) -> None:
    key = tmp_path / "client.key"
    source = importing["COMPASS_CLIENT_KEY_FILE"]
    command = ["openssl", "pkcs8", "-topk8", "-in", source, "-out", str(key), "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    names = {path.name for path in tmp_path.iterdir()}
    done = alone(importing, COMPASS_CLIENT_KEY_FILE=str(key), COMPASS_CLIENT_KEY_PASSPHRASE="secret")
    assert (done.returncode, done.stderr) == (0, "")
    assert "accepts our certificate" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == names
    wrong = alone(importing, COMPASS_CLIENT_KEY_FILE=str(key), COMPASS_CLIENT_KEY_PASSPHRASE="hunter2")
    assert wrong.returncode == 1
    assert "cannot be decrypted: wrong passphrase?" in wrong.stdout
    assert "hunter2" not in wrong.stdout + wrong.stderr


@pytest.mark.parametrize("form", ["token", "nothing", "no URL"])
def test_check_without_a_credential_says_how_to_get_one_and_spends_no_token(
    importing: dict[str, str], emulator: EmulatorProcess, form: str
) -> None:
    for name in ("CLIENT_CERTIFICATE_FILE", "CLIENT_KEY_FILE"):
        del importing[f"COMPASS_{name}"]
    if form != "nothing":
        del importing["COMPASS_CONNECTOR_URL"]
    if form == "token":
        importing["COMPASS_TOKEN"] = emulator.control("POST", "/tokens", {})["token"]
        importing["COMPASS_TOKEN_CONNECTOR_URL"] = emulator.endpoints["token_connector_url"]
    done = alone(importing, "--json")
    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert checks["Connector"]["outcome"] == ("failed" if form == "no URL" else "not-checked")
    assert checks["credential"]["outcome"] == ("ok" if form == "token" else "failed")
    assert checks["TLS"]["outcome"] == ("not-checked" if form == "no URL" else "ok")
    assert done.returncode == (0 if form == "token" else 1)
    if form == "token":
        token, url = importing["COMPASS_TOKEN"], importing["COMPASS_TOKEN_CONNECTOR_URL"]
        query = {"query": "{ configuration { token { token } } }"}
        with httpx.Client(verify=ssl.create_default_context(cafile=emulator.endpoints["ca_file"])) as client:
            answer = client.post(url, json=query, headers={"Connector-Token": token})
        assert answer.json()["data"]["configuration"]["token"]["token"]


def test_check_recommends_only_what_can_work_in_that_state(
    importing: dict[str, str], emulator: EmulatorProcess, start: Start, tmp_path: Path
) -> None:
    renew, connect = "`compass-sidecar renew`", "`compass-sidecar connect --token-file FILE`"
    for name in ("CLIENT_CERTIFICATE_FILE", "CLIENT_KEY_FILE"):
        del importing[f"COMPASS_{name}"]
    url = emulator.endpoints["token_connector_url"]
    made = emulator.control("POST", "/tokens", {})["token"]
    sidecar = start(api_token="sixteen-characters-and-more").started()
    bearer = {"Authorization": "Bearer sixteen-characters-and-more"}

    def post(path: str, body: object = None) -> None:
        sidecar.client.post(path, json=body, headers=bearer)

    def advice() -> str:
        return " ".join(
            line for line in sidecar.command("check").stdout.splitlines() if "compass-sidecar " in line
        )

    emulator.fault("502-empty@configuration*1")
    post("/connect", {"token": made, "connector_url": url})
    assert renew not in advice()
    assert connect in advice()
    post("/connect", {"token": emulator.control("POST", "/tokens", {})["token"], "connector_url": url})
    emulator.fault("502-empty@configuration*1")
    post("/renew")
    assert renew in advice()
    assert connect not in advice()
    post("/revoke", {"confirm": sidecar.fingerprint()})
    assert renew not in advice()
    assert connect in advice()


def test_a_configuration_that_cannot_be_used_stops_check_with_every_problem(
    importing: dict[str, str],
) -> None:
    done = alone(importing, "--json", COMPASS_PORT="x", COMPASS_CONNECTOR_URL="http://h", COMPASS_PROT="1")
    assert done.returncode == 2
    problems = [each["detail"] for each in json.loads(done.stdout)["checks"]]
    assert [problem.partition(":")[0] for problem in problems] == [
        "COMPASS_PROT",
        "COMPASS_CONNECTOR_URL",
        "COMPASS_PORT",
    ]
    assert done.stderr.splitlines() == [f"compass-sidecar: {problem}" for problem in problems]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner and be another")
def test_check_says_whose_the_store_is(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    lines: list[Any] = []
    with files_of(65534):
        examine_store(store, lines.append)
    (finding,) = lines
    assert finding.outcome == "failed"
    assert "we are uid 65534" in finding.detail
    assert "fsGroup" in finding.detail


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner and be another")
def test_check_does_not_take_a_store_that_it_cannot_read_for_an_empty_one() -> None:
    lines: list[Finding] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        store.mkdir(mode=0o700)
        Path(folder).chmod(0o755)
        with files_of(65534):
            examine({"COMPASS_STORE_DIR": str(store)}, lines.append)
    found = {line.name: line for line in lines}
    assert found["credential"].outcome is Outcome.FAILED
    assert "cannot be read by uid 65534: run this as the sidecar's user" in found["credential"].detail


@contextmanager
def files_of(uid: int) -> Iterator[None]:
    """With another user's rights to files."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("mode", "said"), [(0o707, "every user can write in"), (0o700, "others may read")])
def test_check_says_what_others_may_do_in_the_store(tmp_path: Path, mode: int, said: str) -> None:
    generation = tmp_path / "store" / "generations" / "x"
    generation.mkdir(parents=True)
    (generation / "tls.key").write_text("")
    (generation / "tls.key").chmod(0o640)
    (tmp_path / "store").chmod(mode)
    lines: list[Any] = []
    examine_store(tmp_path / "store", lines.append)
    assert (lines[0].outcome, said in lines[0].detail) == ("warning", True)
