"""The command line against a sidecar that runs: what it prints, where, and with which exit status."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.processes import ROOT, EmulatorProcess, SidecarProcess, free_port
from tests.support.terminal import on_terminal

API_TOKEN = "sixteen-characters-and-more"


@pytest.fixture(scope="module")
def shared(
    emulator_for_all: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SidecarProcess]:
    """A sidecar for all the tests that only look at it."""
    endpoints, folder = emulator_for_all.endpoints, tmp_path_factory.mktemp("shared")
    environment = {
        "COMPASS_CONNECTOR_URL": endpoints["connector_url"],
        "COMPASS_CONNECTOR_CA_FILE": endpoints["ca_file"],
        "COMPASS_CLIENT_CERTIFICATE_FILE": endpoints["client_certificate_file"],
        "COMPASS_CLIENT_KEY_FILE": endpoints["client_key_file"],
        "COMPASS_STORE_DIR": str(folder / "store"),
        "COMPASS_HEALTH_PORT": str(free_port()),
        "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
    }
    sidecar = SidecarProcess(environment, log=folder / "log")
    yield sidecar.ready()
    sidecar.close()


@pytest.fixture(scope="module")
def guarded_for_all(
    emulator_for_all: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SidecarProcess]:
    folder = tmp_path_factory.mktemp("guarded")
    environment = {
        "COMPASS_CONNECTOR_CA_FILE": emulator_for_all.endpoints["ca_file"],
        "COMPASS_STORE_DIR": str(folder / "store"),
        "COMPASS_API_TOKEN": API_TOKEN,
        "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
    }
    sidecar = SidecarProcess(environment, log=folder / "log")
    yield sidecar.started()
    sidecar.close()


@pytest.fixture
def guarded(guarded_for_all: SidecarProcess, emulator: EmulatorProcess) -> SidecarProcess:
    """A sidecar with an API token and, whatever the last test did to it, a credential of its own."""
    if guarded_for_all.status()["state"] != "connected":
        body = {"token": new_token(emulator), "connector_url": emulator.endpoints["token_connector_url"]}
        bearer = {"Authorization": f"Bearer {API_TOKEN}"}
        assert guarded_for_all.client.post("/connect", json=body, headers=bearer).is_success
    return guarded_for_all


def new_token(emulator: EmulatorProcess) -> str:
    token: str = emulator.control("POST", "/tokens", {})["token"]
    return token


def test_status_is_lines_to_grep_in_or_json(shared: SidecarProcess) -> None:
    done = shared.command("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split()[:2] == ["state", "connected"]
    assert shared.fingerprint() in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(shared.command("status", "--json").stdout)["state"] == "connected"


@pytest.mark.parametrize("columns", [100, 40])
def test_on_a_terminal_status_is_a_panel_that_fits(shared: SidecarProcess, columns: int) -> None:
    seen = on_terminal("status", environ=shared.environment, columns=columns)
    assert seen.status == 0
    assert "╭" in seen.text
    assert "\x1b[1;32mconnected" in seen.text
    plain = on_terminal("status", environ=shared.environment | {"NO_COLOR": "1"}, columns=columns).text
    assert "\x1b[1;32m" not in plain
    assert "renewal due" in plain
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", plain).strip().split("\r\n")
    assert {len(line) for line in lines} == {columns}


def test_a_pipe_gets_no_colours_whatever_the_environment_says(shared: SidecarProcess) -> None:
    shared.environment |= {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    assert "\x1b" not in shared.command("status").stdout
    assert "\x1b" not in shared.command("check").stdout


def test_a_renewal_shows_its_progress_on_a_terminal_only(
    shared: SidecarProcess, emulator: EmulatorProcess
) -> None:
    emulator.fault("slow@sign:1")
    seen = on_terminal("renew", environ=shared.environment)
    assert seen.status == 0
    assert "renewing: a new key" in seen.text
    assert f": {shared.fingerprint()}" in seen.text
    done = shared.command("renew")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("renewed in ")
    assert json.loads(shared.command("renew", "--json").stdout)["renewed"] is True


def test_a_failed_renewal_says_until_when_the_old_one_is_good(
    shared: SidecarProcess, emulator: EmulatorProcess
) -> None:
    emulator.fault("503-text@configuration")
    done = shared.command("renew", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "connector-unavailable"
    assert done.stderr.startswith("compass-sidecar: connector-unavailable: the Connector answered 503")
    assert "stays in use, and is good until 20" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_interrupted_renewal_goes_on(shared: SidecarProcess, emulator: EmulatorProcess) -> None:
    emulator.fault("slow@sign:2")
    seen = on_terminal("renew", environ=shared.environment, when="renewing", typed="\x03")
    assert seen.status == 130
    assert "the sidecar goes on with it" in seen.text
    assert "Traceback" not in seen.text


def test_certificate_prints_or_writes_the_chain(shared: SidecarProcess, tmp_path: Path) -> None:
    chain = shared.client.get("/certificate/chain.pem").text
    assert shared.command("certificate").stdout == chain
    content = json.loads(shared.command("certificate", "--format", "json").stdout)
    assert content == json.loads(shared.command("certificate", "--json").stdout)
    assert content["chain"] == chain
    target, link = tmp_path / "chain.pem", tmp_path / "link.pem"
    link.symlink_to("chain.pem")
    assert shared.command("certificate", "-o", str(link)).returncode == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    target.chmod(0o600)
    target.write_text("old")
    assert shared.command("certificate", "-o", str(link)).returncode == 0
    assert (target.read_text(), link.is_symlink()) == (chain, True)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain.pem", "link.pem"]
    assert shared.command("certificate", "-o", "/dev/stdout").stdout == chain


@pytest.mark.parametrize("way", ["tcp", "health port", "unix socket"])
def test_the_health_check_works_on_each_listener(
    shared: SidecarProcess, start: Start, tmp_path: Path, way: str
) -> None:
    sidecar = start(unix_socket=str(tmp_path / "s")) if way == "unix socket" else shared
    environ = dict(sidecar.environment)
    if way == "tcp":
        del environ["COMPASS_HEALTH_PORT"]
    if way == "unix socket":
        command = [sys.executable, "-m", "compass_sidecar", "wait", "--timeout", "30s"]
        assert subprocess.run(command, cwd=ROOT, env=environ, check=False, timeout=60).returncode == 0
    for options in ([], ["--ready"]):
        command = [sys.executable, "-m", "compass_sidecar", "healthcheck", *options]
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_wait_begins_before_the_sidecar_and_ends_when_it_is_ready(
    importing: dict[str, str], tmp_path: Path
) -> None:
    port = str(free_port())
    environ = {**os.environ, "COMPASS_PORT": port}
    command = [sys.executable, "-m", "compass_sidecar", "wait", "--timeout", "50s", "--json"]
    waiting = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    assert waiting.poll() is None
    sidecar = SidecarProcess(importing | {"COMPASS_PORT": port}, log=tmp_path / "log")
    try:
        out, _ = waiting.communicate(timeout=60)
        assert (waiting.returncode, json.loads(out)) == (0, {"ready": True, "reason": None})
    finally:
        sidecar.close()
        waiting.kill()


def test_wait_says_what_it_has_waited_for() -> None:
    done = command("wait", "--timeout", "100ms", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert (
        "not ready after 100ms: no sidecar answers at http://127.0.0.1:1: Connection refused" in done.stderr
    )


@pytest.mark.parametrize("source", ["file", "stdin", "variable", "variable's file", "terminal"])
def test_connect_takes_the_token_from_anywhere_but_its_arguments(
    guarded: SidecarProcess, emulator: EmulatorProcess, tmp_path: Path, source: str
) -> None:
    before, url = guarded.fingerprint(), emulator.endpoints["token_connector_url"]
    token = new_token(emulator)
    (tmp_path / "token").write_text(f"{token}\n")
    environ = dict(guarded.environment)
    given, arguments = "", ["connect", "--connector-url", url]
    match source:
        case "file":
            arguments += ["--token-file", str(tmp_path / "token")]
        case "stdin":
            given = f"{token}\n"
        case "variable":
            environ |= {"COMPASS_TOKEN": token, "COMPASS_TOKEN_CONNECTOR_URL": url}
            arguments = ["connect"]
        case "variable's file":
            environ["COMPASS_TOKEN_FILE"] = str(tmp_path / "token")
    if source == "terminal":
        seen = on_terminal(*arguments, environ=environ, typed=f"{token}\n", when="not shown")
        assert (seen.status, token in seen.text) == (0, False)
    else:
        done = command(*arguments, environ=environ, given=given)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("connected in ")
    assert guarded.fingerprint() != before


def test_connect_says_whose_token_was_refused(guarded: SidecarProcess, emulator: EmulatorProcess) -> None:
    url = emulator.endpoints["token_connector_url"]
    arguments = ("connect", "--connector-url", url)
    done = command(*arguments, environ=guarded.environment, given="a-token-nobody-knows")
    assert done.returncode == 1
    assert "connector-unauthenticated" in done.stderr
    assert "the token came from standard input" in done.stderr
    assert "a-token-nobody-knows" not in done.stderr
    environ = guarded.environment | {"COMPASS_API_TOKEN": "another-wrong-token"}
    assert "token-invalid" in command(*arguments, environ=environ, given="x").stderr


def test_revoke_wants_the_fingerprint(guarded: SidecarProcess) -> None:
    fingerprint = guarded.fingerprint()
    unasked = command("revoke", environ=guarded.environment)
    assert unasked.returncode == 2
    assert f"the current certificate is {fingerprint}" in unasked.stderr
    other = command("revoke", "--confirm", "0" * 64, environ=guarded.environment)
    assert (other.returncode, "not-current" in other.stderr) == (1, True)
    half = command("revoke", "--confirm", fingerprint[:12], environ=guarded.environment)
    assert half.returncode == 2
    wrong = on_terminal("revoke", environ=guarded.environment, typed="000000000000\n", when="digits: ")
    assert (wrong.status, "not revoked" in wrong.text) == (1, True)
    assert guarded.status()["state"] == "connected"
    seen = on_terminal("revoke", environ=guarded.environment, typed=f"{fingerprint[:12]}\n", when="digits: ")
    assert (seen.status, f"revoked: {fingerprint}" in seen.text) == (0, True)
    done = command("status", environ=guarded.environment)
    assert done.returncode == 1
    assert (
        "credential-revoked: The certificate was revoked, and is not served any more. Hand over a new"
        in done.stdout
    )


def test_revoke_takes_the_fingerprint_as_openssl_prints_it(guarded: SidecarProcess) -> None:
    digits = guarded.fingerprint().upper()
    written = ":".join(digits[place : place + 2] for place in range(0, 64, 2))
    assert command("revoke", "--confirm", written, environ=guarded.environment).returncode == 0


def command(
    *arguments: str, environ: dict[str, str] | None = None, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    without = {name: value for name, value in os.environ.items() if not name.startswith("COMPASS_")}
    return subprocess.run(
        [sys.executable, "-m", "compass_sidecar", *arguments],
        cwd=ROOT,
        env=without | (environ or {}),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_output_that_cannot_be_written_is_one_line(shared: SidecarProcess, tmp_path: Path) -> None:
    done = shared.command("certificate", "-o", str(tmp_path / "none" / "chain.pem"))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "cannot be written: no such file or directory" in done.stderr
    with Path("/dev/full").open("w") as full:
        arguments = [sys.executable, "-m", "compass_sidecar", "status"]
        done = subprocess.run(
            arguments,
            cwd=ROOT,
            env=shared.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "no space left on device" in done.stderr


def test_closed_streams_and_strange_input_are_no_traceback() -> None:
    for script in ("connect <&-", "status >&- --url http://127.0.0.1:1", "connect --token-file /dev/urandom"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -m compass_sidecar {script}', sys.executable],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in (1, 2)
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "it is a device, and not a regular file" in done.stderr


def test_a_reader_that_leaves_is_no_traceback(shared: SidecarProcess) -> None:
    for name in ("status", "certificate", "check"):
        process = subprocess.Popen(
            [sys.executable, "-m", "compass_sidecar", name],
            cwd=ROOT,
            env=shared.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=60)
        assert b"Traceback" not in err
        assert b"Exception" not in err
        assert len(err.splitlines()) <= 1


@pytest.mark.parametrize("path", ["/nowhere", "/" * 200])
def test_a_socket_that_is_not_there_is_one_line(path: str) -> None:
    done = command("renew", "--unix-socket", path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(f"compass-sidecar: no sidecar answers at {path}: ")


def test_an_interrupt_is_status_130_without_a_word() -> None:
    seen = on_terminal(
        "wait", "--url", "http://127.0.0.1:1", environ=os.environ, typed="\x03", when="waiting"
    )
    assert seen.status == 130
    assert "Traceback" not in seen.text
    assert "compass-sidecar:" not in seen.text
