"""Standard error of a real sidecar: read slowly or not at all, full, closed, a file, a socket, a terminal."""

import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT, SidecarProcess, wait_until

READS = 1500  # each of them is a line; the queue holds about 1,000
TOKEN = "0123456789abcdef"
DROPPED = "compass_sidecar_log_lines_dropped_total "


class Pipe:
    """A pipe that is full already, and whose reading end a test may read, or not."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        os.set_blocking(self.write, False)
        try:
            while True:
                os.write(self.write, b"\n" * 4096)
        except BlockingIOError:
            os.set_blocking(self.write, True)

    def drain(self) -> threading.Thread:
        """Read to the end, in a thread."""
        self.text = b""

        def read() -> None:
            while part := os.read(self.read, 65536):
                self.text += part

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split(b"\n")[:-1] if line]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for end in (made.read, made.write):
        with suppress(OSError):
            os.close(end)


@contextmanager
def logging_to(stderr: Any, environment: dict[str, str], log: Path) -> Iterator[SidecarProcess]:
    sidecar = SidecarProcess(environment, log=log, stderr=stderr)
    try:
        yield sidecar
    finally:
        sidecar.close()


def dropped(sidecar: SidecarProcess) -> float:
    text = sidecar.client.get("/metrics").text
    return next(float(line.removeprefix(DROPPED)) for line in text.splitlines() if line.startswith(DROPPED))


def test_a_log_that_nobody_reads_stops_nothing_and_says_what_is_missing(
    importing: dict[str, str], tmp_path: Path, pipe: Pipe
) -> None:
    revealing = {**importing, "COMPASS_API_TOKEN": TOKEN, "COMPASS_EXPOSE_PRIVATE_KEY": "true"}
    with logging_to(pipe.write, revealing, tmp_path / "log") as sidecar:
        sidecar.ready()
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for _ in range(READS):
            assert sidecar.client.get("/certificate/bundle.pem", headers=bearer).status_code == 200
        assert sidecar.client.post("/renew", headers=bearer).status_code == 200
        assert sidecar.client.get("/livez").status_code == 200
        lost = dropped(sidecar)
        assert 0 < lost < READS
        os.close(pipe.write)
        reading = pipe.drain()
        wait_until(lambda: b"log-lines-dropped" in pipe.text, "the line that says what is missing")
        assert sidecar.client.get("/certificate/bundle.pem", headers=bearer).status_code == 200
        assert sidecar.stop() == 0
        reading.join(30)
        names = [line["event"] for line in pipe.lines()]
        told = [line["count"] for line in pipe.lines() if line["event"] == "log-lines-dropped"]
        assert sum(told) == lost
        assert names.count("private-key-read") + names.count("renewed") + lost > READS
        assert names[names.index("log-lines-dropped") :][-2:] == ["private-key-read", "stopped"]


def test_a_log_that_nobody_reads_does_not_hold_up_the_end(
    importing: dict[str, str], tmp_path: Path, pipe: Pipe
) -> None:
    with logging_to(pipe.write, importing, tmp_path / "log") as sidecar:
        sidecar.ready()
        assert sidecar.stop() == 0


def test_what_is_in_the_queue_is_written_at_the_end(
    importing: dict[str, str], tmp_path: Path, pipe: Pipe
) -> None:
    with logging_to(pipe.write, importing, tmp_path / "log") as sidecar:
        sidecar.ready()
        os.close(pipe.write)
        sidecar.process.terminate()
        reading = pipe.drain()
        assert sidecar.process.wait(30) == 0
        reading.join(30)
        assert {"imported", "serving", "stopped"} <= {line["event"] for line in pipe.lines()}


@pytest.mark.parametrize(
    "wrong", [{"COMPASS_PORT": "x"}, {"COMPASS_STORE_DIR": "/proc/no"}], ids=["settings", "store"]
)
def test_a_start_that_fails_ends_although_nobody_reads_why(
    wrong: dict[str, str], importing: dict[str, str], tmp_path: Path, pipe: Pipe
) -> None:
    with logging_to(pipe.write, {**importing, **wrong}, tmp_path / "log") as sidecar:
        assert sidecar.process.wait(30) == 2


@pytest.mark.parametrize("read", [True, False])
def test_a_crash_is_told_with_its_traceback_and_ends_the_process(
    importing: dict[str, str], tmp_path: Path, pipe: Pipe, *, read: bool
) -> None:
    with logging_to(pipe.write, importing, tmp_path / "log") as sidecar:
        sidecar.kill()
        crash = (
            "import compass_sidecar.main, compass_sidecar.__main__\n"
            "compass_sidecar.main.build = lambda *_: 1 / 0\n"
            "compass_sidecar.__main__.serve()\n"
        )
        environment = {**sidecar.environment, "COMPASS_STORE_DIR": str(tmp_path / "crash")}
        ended = subprocess.Popen([sys.executable, "-c", crash], cwd=ROOT, env=environment, stderr=pipe.write)
        os.close(pipe.write)
        reading = pipe.drain() if read else None
        assert ended.wait(30) == 1
        if reading is not None:
            reading.join(30)
            assert b"ZeroDivisionError" in pipe.text


def test_streams_of_every_kind_are_borne(importing: dict[str, str], tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    main, terminal = pty.openpty()
    with Path("/dev/full").open("wb") as full, ours, theirs:
        for stream in (full, theirs, terminal):
            with logging_to(stream, importing, tmp_path / "log") as sidecar:
                sidecar.ready()
                assert (dropped(sidecar) > 0) == (stream is full)
                assert sidecar.stop() == 0
        theirs.close()
        assert b'"event": "stopped"' in ours.recv(65536)
    assert b"stopped" in os.read(main, 65536)
    closed = SidecarProcess(importing, log=tmp_path / "log", wrapper=("sh", "-c", 'exec "$@" 2>&-', "sh"))
    assert closed.ready().stop() == 0
    closed.close()
    for end in (main, terminal):
        os.close(end)


def test_anyone_can_send_nonsense_and_it_is_one_line(importing: dict[str, str], tmp_path: Path) -> None:
    with logging_to(None, importing, tmp_path / "log") as sidecar:
        sidecar.ready()
        for nonsense in (
            b"\x16\x03\x01",
            b"GET\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        ) * 20:
            with socket.create_connection(("127.0.0.1", sidecar.port)) as connection:
                connection.sendall(nonsense)
                assert connection.recv(65536).startswith(b"HTTP/1.1 4")
        sidecar.stop()
        lines = [json.loads(line) for line in sidecar.log.read_text().splitlines()]
        refused = [line for line in lines if line["event"] not in {"published", "imported", "state-changed"}]
        assert [line["event"] for line in refused] == ["serving", "requests-refused", "stopped"]
        assert refused[1]["count"] == 1
