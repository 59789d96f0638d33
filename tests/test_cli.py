"""The command line without a sidecar: mistakes, strangers who answer in its place, and what help teaches."""

import io
import json
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from compass_sidecar import __version__
from compass_sidecar.cli import commands as cli
from compass_sidecar.cli import display
from compass_sidecar.core.status import State


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Runs commands in this process, which is ten times as fast as a new one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, environ: dict[str, str] | None = None) -> Done:
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["compass-sidecar", *arguments])
            patch.setattr(sys, "stdin", io.StringIO())
            for name, value in (environ or {}).items():
                patch.setenv(name, value)
            try:
                status = cli.main()
            except SystemExit as error:  # the health check's parser
                status = int(error.code or 0)
        return Done(status, *self._capsys.readouterr())


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


MISTAKES = {
    "no such command": (("foo",), {}, 2),
    "no such option": (("status", "--foo"), {}, 2),
    "no command": (("--",), {}, 2),
    "a bad URL": (("status", "--url", "https://h"), {}, 2),
    "two ways": (("status", "--url", "http://h", "--unix-socket", "/s"), {}, 2),
    "a bad duration": (("wait", "--timeout", "soon"), {}, 2),
    "no duration": (("wait", "--timeout"), {}, 2),
    "a bad format": (("certificate", "--format", "der"), {}, 2),
    "a bad fingerprint": (("revoke", "--confirm", "xyz"), {}, 2),
    "no token": (("connect",), {}, 2),
    "no such token file": (("connect", "--token-file", "/nowhere"), {}, 2),
    "two API tokens": (("status",), {"COMPASS_API_TOKEN": "x", "COMPASS_API_TOKEN_FILE": "/y"}, 2),
    "no such API token file": (("status",), {"COMPASS_API_TOKEN_FILE": "/nowhere"}, 2),
    "an API token of two lines": (("status",), {"COMPASS_API_TOKEN": "hunter\n2"}, 2),
    "a host that is none": (("status", "--url", "http://a..b"), {}, 1),
    "nobody there": (("status", "--url", "http://127.0.0.1:1"), {}, 1),
    "a bad configuration": (("check",), {"COMPASS_PORT": "x"}, 2),
    "an unknown variable": (("check",), {"COMPASS_PROT": "x"}, 2),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(command: Shell, mistake: str) -> None:
    arguments, environ, status = MISTAKES[mistake]
    done = command(*arguments, environ=dict(environ))
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("compass-sidecar: ")
    assert "hunter" not in done.stderr


@pytest.mark.parametrize("name", ["COMPASS_EVENT", "COMPASS_FINGERPRINT", "COMPASS_NOT_AFTER"])
def test_what_a_command_of_ours_is_handed_is_no_unknown_variable(
    command: Shell, tmp_path: Path, name: str
) -> None:
    done = command("check", environ={name: "x", "COMPASS_STORE_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert name not in done.stderr


STRANGERS = [b"<html>hello</html>", b"[]", b"{}", b'{"state": 1}', b"null", b"\xff" * 50, b""]


@pytest.mark.parametrize("body", STRANGERS)
@pytest.mark.parametrize("name", ["status", "renew", "certificate", "wait --timeout 100ms"])
def test_an_answer_of_somebody_else_is_one_line(command: Shell, body: bytes, name: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    with stranger(head + body) as url:
        done = command(*name.split(), "--url", url)
    assert done.returncode == 1
    assert "not the sidecar's" in done.stderr or "still under way" in done.stdout
    assert len((done.stderr + done.stdout).splitlines()) == 1


def test_a_stranger_cannot_write_on_the_terminal(command: Shell) -> None:
    body = json.dumps({"code": "\x1b[2J", "detail": "\u202eboo\r\n", "status": 500}).encode()
    with stranger(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as url:
        done = command("status", "--url", url)
    assert done.stderr == "compass-sidecar: \\u001b[2J: \\u202eboo\\u000d\\u000a\n"


class stranger:  # noqa: N801 - used like a function
    """The URL of somebody who answers every request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(self._answer)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.mark.parametrize(
    "name",
    ["", "serve", "check", "status", "renew", "connect", "revoke", "certificate", "wait", "healthcheck"],
)
def test_help_teaches_by_examples_and_says_what_the_exit_status_means(command: Shell, name: str) -> None:
    done = command(*name.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "xit status:" in done.stdout
    assert "  compass-sidecar" in done.stdout


def test_the_version_is_printed(command: Shell) -> None:
    assert command("--version").stdout == f"compass-sidecar {__version__}\n"


def test_every_state_is_told_in_words() -> None:
    assert {state.value for state in State} == display.STATES.keys()
