"""The emulator as a process: files, signals, exit statuses, restarts."""

import ast
import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import compass_emulator as package
from compass_emulator import Emulator, EmulatorError, EmulatorOptions
from compass_emulator.__main__ import main
from compass_emulator.clock import parse_duration, parse_offset
from compass_emulator.options import EmulatorOptions as Options
from tests.emulator.talking import PROBE, ask, own_credential

EPHEMERAL = ("--token-port", "0", "--mtls-port", "0", "--control-port", "0")


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A process, once its `endpoints.json` is there."""
    command = [sys.executable, "-m", "compass_emulator", "--dir", str(folder), *EPHEMERAL, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, wait_for(folder / "endpoints.json", process)
        finally:
            process.kill()


def wait_for(file: Path, process: subprocess.Popen[str]) -> dict[str, str]:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if file.exists():
            return dict(json.loads(file.read_text(encoding="utf-8")))
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("endpoints.json did not appear")


def finish(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, float, str, str]:
    start = time.monotonic()
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    return process.returncode, time.monotonic() - start, output, errors


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of the command line, in this process."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(str(end.code))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def start_from(template: Path, tmp_path: Path) -> Path:
    """A folder with authorities, and without what a start leaves behind."""
    folder = tmp_path / "process"
    folder.mkdir()
    for name in ("client-ca.crt", "client-ca.key", "client.crt", "client.key", "state.json"):
        shutil.copy(template / name, folder)
    return folder


def hang(url: str, ca_file: str) -> ssl.SSLSocket:
    """A connection with a request that is never answered."""
    at = urlsplit(url)
    context = ssl.create_default_context(cafile=ca_file)
    plain = socket.create_connection((at.hostname or "", at.port or 0), timeout=5)
    line = context.wrap_socket(plain, server_hostname=at.hostname)
    line.sendall(b"GET /connector/graphql?query=%7B__typename%7D HTTP/1.1\r\nHost: x\r\n\r\n")
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_a_second_even_with_hanging_calls(
    template: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = start_from(template, tmp_path)
    with (
        running(folder, "--fault", "hang-headers") as (process, at),
        hang(at["token_connector_url"], at["ca_file"]),
    ):
        time.sleep(0.1)
        status, seconds, output, errors = finish(process, number)
    assert (status, errors) == (0, "")
    assert seconds < 1
    for name in ("token_connector_url", "connector_url", "control_url", "client_certificate_file", "ca_file"):
        assert at[name] in output
    assert "curl --cacert" in output
    assert at["token"] not in output


def test_secrets_are_readable_by_the_owner_only(template: Path, tmp_path: Path) -> None:
    folder = start_from(template, tmp_path)
    with running(folder, "--quiet") as (process, at):
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir() if file.name != ".lock"}
        assert (folder / "token").read_text(encoding="utf-8").strip() == at["token"]
        _, _, output, _ = finish(process, signal.SIGTERM)
    assert output == ""
    public = {"server-ca.crt", "client-ca.crt", "client.crt"}
    assert {name for name, mode in modes.items() if mode != 0o600} == public
    assert {"client.key", "client-ca.key", "server-ca.key", "token", "state.json", "endpoints.json"} <= set(
        modes
    )


def test_a_taken_port_is_one_clear_line_and_status_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(capsys, "--dir", str(folder), *EPHEMERAL, "--mtls-port", str(port))
    assert done == (1, "", f"compass-emulator: port {port} on 127.0.0.1 is in use\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--fault", "nonsense"), "there is no fault 'nonsense'"),
        (("--lifetime", "soon"), "'soon' is not a duration"),
        (("--lifetime", "0s"), "'0s' is shorter than a second"),
        (("--mtls-port", "99999"), "'99999' is not a port"),
        (("--subject", "O=x"), "the subject has no OU, L, ST, C"),
        (("--chaos", "2"), "'2' is not a rate from 0 to 1"),
        (("--clock-offset", "-soon"), "expected one argument"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
    ],
)
def test_a_bad_option_is_one_clear_line_and_status_2(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, errors = run(capsys, *arguments)
    assert (status, output) == (2, "")
    assert complaint in errors
    assert errors.count("\n") == 1


def test_an_unusable_folder_is_one_clear_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    status, _, errors = run(capsys, "--dir", str(tmp_path / "file"), *EPHEMERAL)
    assert status == 1
    assert errors.startswith("compass-emulator: cannot use ")
    assert errors.count("\n") == 1


def test_the_table_of_faults_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = run(capsys, "--list-faults", "--clock-offset", "-2m")
    assert status == 0
    assert "empty-400" in output
    assert len(output.splitlines()) == len(package.FAULTS) + 1


def test_a_reader_that_has_enough_of_the_table_is_no_error() -> None:
    command = f"{sys.executable} -m compass_emulator --list-faults | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.anyio
async def test_a_restart_keeps_authorities_and_a_good_credential(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder)) as first:
        before = {
            name: (folder / name).read_bytes() for name in ("server-ca.crt", "client-ca.crt", "client.crt")
        }
        token = first.endpoints.token
    async with Emulator.start(EmulatorOptions(dir=folder)) as second:
        assert before == {name: (folder / name).read_bytes() for name in before}
        assert second.endpoints.token != token
        assert (await ask(second, PROBE)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("spoil", ["fresh", "absent", "damaged", "expired", "longer-than-granted"])
async def test_the_first_credential_is_issued_anew_when_it_would_not_do(folder: Path, spoil: str) -> None:
    lifetime = timedelta(seconds=1) if spoil == "expired" else timedelta(hours=1)
    async with Emulator.start(EmulatorOptions(dir=folder, lifetime=lifetime)) as first:
        before = own_credential(first).certificate.read_bytes()
    if spoil == "absent":
        (folder / "client.crt").unlink()
    if spoil == "damaged":
        (folder / "client.key").write_text("damaged", encoding="utf-8")
    if spoil == "expired":
        await asyncio.sleep(1.1)
    granted = timedelta(minutes=1) if spoil == "longer-than-granted" else timedelta(hours=1)
    options = EmulatorOptions(dir=folder, lifetime=granted, fresh=spoil == "fresh")
    async with Emulator.start(options) as second:
        assert own_credential(second).certificate.read_bytes() != before
        assert (await ask(second, PROBE)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content", ["{", "[]", '{"system_auths": [{"odd": 1}], "revoked": 7}', '{"revoked": 7}']
)
async def test_a_damaged_state_is_no_reason_not_to_start(folder: Path, content: str) -> None:
    (folder / "state.json").write_text(content, encoding="utf-8")
    async with Emulator.start(EmulatorOptions(dir=folder)) as emulator:
        assert (await ask(emulator, PROBE)).status_code == 200


@pytest.mark.anyio
async def test_it_listens_on_other_addresses_too(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder, host="localhost")) as emulator:
        assert emulator.endpoints.connector_url.startswith("https://localhost:")
        assert (await ask(emulator, PROBE)).status_code == 200
    with pytest.raises(EmulatorError, match=r"cannot listen on 192\.0\.2\.1"):
        async with Emulator.start(EmulatorOptions(dir=folder, host="192.0.2.1")):
            pass


@pytest.mark.anyio
async def test_another_chain_length_makes_a_new_ca(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder, chain=3)) as emulator:
        assert own_credential(emulator).certificate.read_bytes().count(b"BEGIN CERTIFICATE") == 3
        assert (await ask(emulator, PROBE)).status_code == 200


@pytest.mark.anyio
async def test_two_emulators_do_not_share_a_folder(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder)):
        with pytest.raises(EmulatorError, match="in use by another emulator"):
            async with Emulator.start(EmulatorOptions(dir=folder)):
                pass
        assert (folder / "endpoints.json").exists()


@pytest.mark.anyio
async def test_a_stale_endpoints_file_is_gone_before_the_listeners_open(folder: Path) -> None:
    (folder / "endpoints.json").write_text("{}", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = EmulatorOptions(dir=folder, mtls_port=taken.getsockname()[1])
        with pytest.raises(EmulatorError, match="is in use"):
            async with Emulator.start(options):
                pass
    assert not (folder / "endpoints.json").exists()


@pytest.mark.anyio
async def test_latency_is_added_to_every_call(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder, latency=parse_duration("150ms"))) as emulator:
        start = time.monotonic()
        await ask(emulator, PROBE)
        assert time.monotonic() - start >= 0.15


@pytest.mark.parametrize(
    ("options", "host"),
    [
        ({}, "127.0.0.1"),
        ({"host": "::1"}, "[::1]"),
        ({"host": "0.0.0.0"}, "localhost"),
        ({"host": "0.0.0.0", "server_names": ("emulator",)}, "emulator"),
        ({"host": "0.0.0.0", "advertise": "compass.test"}, "compass.test"),
    ],
)
def test_urls_name_a_host_that_clients_can_reach(options: dict[str, str], host: str) -> None:
    assert Options(dir=Path(), **options).public_host == host  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90d", 7_776_000),
        ("2160h", 7_776_000),
        ("10m", 600),
        ("30s", 30),
        ("500ms", 0.5),
        ("7", 7),
        ("1.5h", 5400),
    ],
)
def test_a_duration_is_written_as_in_the_settings(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds
    assert parse_offset(f"-{text}").total_seconds() == -seconds


@pytest.mark.parametrize("text", ["", "soon", "1y", "-5s", "1e9", "999999999d", "5 m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|negative|century"):
        parse_duration(text)


def test_the_emulator_imports_nothing_of_the_application() -> None:
    for file in Path(package.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in {"app", "compass_sidecar"}], file
