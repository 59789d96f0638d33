"""uvicorn as we run it: sockets, slow clients, and the end of the process."""

import asyncio
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from compass_sidecar.api.guard import Access
from compass_sidecar.api.limits import Limits
from compass_sidecar.api.server import listen_tcp, listen_unix
from compass_sidecar.errors import SettingsError
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import Running, Wire, ask, serving, serving_on

pytestmark = pytest.mark.anyio
QUICK = Limits(request=0.4, send=0.4, idle=0.9)
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
async def quick() -> AsyncIterator[Running]:
    async with serving(FakeSidecar(generation()), limits=QUICK, metrics=lambda: b"m" * 20_000_000) as running:
        yield running


async def seconds_until_closed(wire: Wire) -> float:
    began = time.monotonic()
    await asyncio.wait_for(wire.closed(), 30)  # a limit for a hang, not a promise
    took = time.monotonic() - began
    await wire.close()
    return took


# --- slow clients ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"G",
        b"GET /livez HTTP/1.1\r\nHost: local",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: 1\r\n",
        b"POST /renew HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
    ],
)
async def test_a_request_that_does_not_come_is_not_waited_for(quick: Running, sent: bytes) -> None:
    wire = await Wire.open(quick.port)
    wire.write(sent)
    assert await seconds_until_closed(wire) > 0.3


async def test_a_byte_now_and_then_does_not_help(quick: Running) -> None:
    wire = await Wire.open(quick.port)

    async def drip() -> None:
        for byte in b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 100:
            wire.write(bytes([byte]))
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    assert await seconds_until_closed(wire) > 0.3
    dripping.cancel()


async def test_a_body_that_stops_coming_is_not_waited_for_and_changes_nothing() -> None:
    sidecar = FakeSidecar(generation())
    async with serving(sidecar, limits=QUICK) as running:
        wire = await Wire.open(running.port)
        wire.write(
            b"POST /renew HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"
        )
        await seconds_until_closed(wire)
    assert not sidecar.attempts


async def test_trailers_are_not_headers_and_not_endless() -> None:
    sidecar = FakeSidecar(generation())
    async with serving(sidecar) as running:
        head = b"GET /certificate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        wire = await Wire.open(running.port)
        wire.write(head + b"Accept: application/x-pem-file\r\n\r\n")
        assert (await wire.reply()).headers["content-type"] == "application/json"
        wire.write(head)
        with suppress(ConnectionError):
            for _ in range(200):
                wire.write(b"X-Trailer: " + b"x" * 10_000 + b"\r\n")
                await wire.writer.drain()
        assert b" 431 " in await wire.reader.readuntil(b"\r\n")
        await wire.close()


async def test_a_ready_answer_does_not_end_the_wait_of_the_request_behind_it() -> None:
    sidecar = FakeSidecar(generation())
    async with serving(sidecar, limits=QUICK) as running:
        wire = await Wire.open(running.port)
        tag = (await wire.ask("GET /certificate HTTP/1.1", "Host: localhost")).headers["etag"]
        wait = f"GET /certificate?wait=2s HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n"
        wire.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + wait.encode())
        assert (await wire.reply()).body == b"ok\n"
        assert (await wire.reply()).status == 304
        await wire.close()


async def test_half_a_request_behind_a_whole_one_is_not_waited_for() -> None:
    limits = Limits(request=0.4, send=0.4, idle=20)
    async with serving(FakeSidecar(generation()), limits=limits) as running:
        wire = await Wire.open(running.port)
        wire.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /li")
        assert (await wire.reply()).status == 200
        async with asyncio.timeout(15):
            assert await wire.closed()
        await wire.close()


WAIT = b"GET /certificate?wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n"


RENEW = b"POST /renew HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [WAIT * 3, RENEW, RENEW + WAIT], ids=["wait", "renew", "both"])
async def test_a_client_that_leaves_is_not_waited_for(caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    sidecar = FakeSidecar(None)
    sidecar.gate.clear()
    async with serving(sidecar) as running:
        for _ in range(5):
            wire = await Wire.open(running.port)
            wire.write(sent)
            await asyncio.sleep(0.1)
            await wire.close()
        for _ in range(200):
            if not [task for task in asyncio.all_tasks() if "run_asgi" in repr(task)]:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("somebody is still waited for")
    assert "Traceback" not in caplog.text


async def test_what_is_no_request_is_answered_after_the_requests_before_it() -> None:
    sidecar = FakeSidecar(None)
    async with serving(sidecar) as running:
        wire = await Wire.open(running.port)
        wire.write(WAIT + b"GET /livez HTTP/1.1\r\n\r\nrubbish\r\n\r\n")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                assert not await wire.reader.read(100)
        sidecar.use(generation())
        assert [(await wire.reply()).status for _ in range(3)] == [200, 200, 400]
        assert await wire.closed()
        await wire.close()


async def test_slow_clients_do_not_hold_up_the_others(quick: Running) -> None:
    wires = [await Wire.open(quick.port) for _ in range(200)]
    for wire in wires:
        wire.write(b"GET /status HTTP/1.1\r\nHost: loc")
    assert (await ask(quick.port, "GET /status HTTP/1.1", "Host: localhost")).status == 200
    for wire in wires:
        await wire.close()


async def test_a_wait_is_longer_than_the_limit_for_a_request(quick: Running) -> None:
    tag = (await ask(quick.port, "GET /certificate HTTP/1.1", "Host: localhost")).headers["etag"]
    reply = await ask(
        quick.port, "GET /certificate?wait=700ms HTTP/1.1", "Host: localhost", f"If-None-Match: {tag}"
    )
    assert reply.status == 304


async def test_a_connection_is_kept_for_the_next_request_and_then_closed(quick: Running) -> None:
    wire = await Wire.open(quick.port)
    for _ in range(3):
        assert (await wire.ask("GET /livez HTTP/1.1", "Host: localhost")).status == 200
        await asyncio.sleep(0.6)  # longer than the look in between
    assert await seconds_until_closed(wire) > 0.1


async def test_an_answer_that_nobody_reads_is_given_up(quick: Running) -> None:
    """The socket's buffers are kept small; the answer is much larger."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", quick.port))
    await loop.sock_sendall(sock, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.sleep(1)
    received = 0
    with suppress(ConnectionResetError):
        while chunk := await asyncio.wait_for(loop.sock_recv(sock, 2**20), 5):
            received += len(chunk)
    assert received < 20_000_000
    sock.close()


async def test_an_answer_before_the_end_of_its_request_leaves_no_connection_behind(quick: Running) -> None:
    wire = await Wire.open(quick.port)
    reply = await wire.ask("POST /connect HTTP/1.1", "Host: localhost", "Content-Length: 70000")
    assert reply.status == 413
    wire.write(b"x" * 70_000)
    assert (await wire.ask("GET /livez HTTP/1.1", "Host: localhost")).status == 200
    wire.write(b"POST /connect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n")
    assert (await wire.reply()).status == 413
    wire.write(b"x" * 70_000)
    assert await seconds_until_closed(wire) > 0.5


async def test_a_request_has_10_seconds_and_an_answer_that_is_not_read_has_15() -> None:
    """With the limits that a sidecar has."""

    async def half_a_request(port: int) -> float:
        wire, began = await Wire.open(port), time.monotonic()
        wire.write(b"GET /livez HTTP/1.1\r\nHost: local")
        assert (await wire.reply()).json()["code"] == "request-timeout"
        await wire.close()
        return time.monotonic() - began

    async def unread_answer(port: int) -> int:
        """How much of it comes to a client that begins to read too late."""
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop, received = asyncio.get_running_loop(), 0
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.sleep(17)
            with suppress(ConnectionResetError):
                while chunk := await asyncio.wait_for(loop.sock_recv(sock, 2**20), 30):
                    received += len(chunk)
        return received

    async with serving(FakeSidecar(None), metrics=lambda: b"m" * 20_000_000) as running:
        took, received = await asyncio.gather(half_a_request(running.port), unread_answer(running.port))
    assert took > 9.5
    assert received < 20_000_000


# --- what is not HTTP ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_a_problem_and_is_closed(quick: Running, sent: bytes) -> None:
    wire = await Wire.open(quick.port)
    wire.write(sent)
    reply = await wire.reply()
    assert (reply.status, reply.json()["code"]) == (400, "bad-request")
    assert reply.headers["connection"] == "close"
    await seconds_until_closed(wire)


async def test_pipelined_requests_are_answered_in_order(quick: Running) -> None:
    wire = await Wire.open(quick.port)
    paths = ["/livez", "/status", "/certificate/leaf.pem", "/nothing", "/livez"]
    wire.write(b"".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths))
    assert [(await wire.reply()).status for _ in paths] == [200, 200, 200, 404, 200]
    await wire.close()


# --- sockets ---------------------------------------------------------------------------------------


async def test_ipv6_loopback_works_where_there_is_one() -> None:
    sidecar = FakeSidecar(generation())
    with listen_tcp(("127.0.0.1", "::1"), 0, may_miss=("::1",)) as sockets:
        has_ipv6 = "00000000000000000000000000000001" in Path("/proc/net/if_inet6").read_text()
        assert len(sockets) == 1 + has_ipv6
    for host in ["127.0.0.1", "::1"][: 1 + has_ipv6]:
        async with running_on(sidecar, host) as port:
            name = f"[{host}]" if ":" in host else host
            reply = await ask(port, "POST /renew HTTP/1.1", f"Host: {name}:{port}", host=host)
            assert reply.status == 200  # so it counts as loopback too


@asynccontextmanager
async def running_on(sidecar: FakeSidecar, host: str) -> AsyncIterator[int]:
    with listen_tcp((host,), 0) as sockets:
        async with serving_on(sockets, sidecar, Access()):
            yield sockets[0].getsockname()[1]


def test_a_port_in_use_is_one_clear_line() -> None:
    with listen_tcp(("127.0.0.1",), 0) as sockets:
        port = sockets[0].getsockname()[1]
        for variables in ("COMPASS", "COMPASS_HEALTH"):
            with (
                pytest.raises(SettingsError) as caught,
                listen_tcp(("127.0.0.1",), port, variables=variables),
            ):
                pass
            (line,) = caught.value.problems
            assert line.startswith(f"{variables}_PORT: 127.0.0.1:{port} is used by another process")


def test_a_strange_address_is_an_error_and_a_missing_default_only_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(SettingsError, match=f"COMPASS_HOST: {host}"), listen_tcp((host,), 0):
            pass
    with listen_tcp(("127.0.0.1", "192.0.2.1"), 0, may_miss=("192.0.2.1",)) as sockets:
        assert len(sockets) == 1
    assert "192.0.2.1" in str([vars(record) for record in caplog.records])
    with pytest.raises(SettingsError), listen_tcp(("192.0.2.1",), 0, may_miss=("192.0.2.1",)):
        pass


def test_nothing_stays_open_when_one_address_fails() -> None:
    with pytest.raises(SettingsError), listen_tcp(("127.0.0.1", "192.0.2.1"), 0):
        pass
    gc.collect()  # warnings are errors: a socket left open would show


def test_the_unix_socket_is_for_user_and_group_from_the_first_moment(tmp_path: Path) -> None:
    path, modes = tmp_path / "socket", []
    umask = os.umask(0)
    try:
        with listen_unix(path, group=os.getgid()):
            modes.append(stat.S_IMODE(path.lstat().st_mode))
            assert path.lstat().st_gid == os.getgid()
    finally:
        assert os.umask(umask) == 0  # put back
    assert modes == [0o660]
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with listen_unix(path):
        with pytest.raises(SettingsError, match=r"COMPASS_UNIX_SOCKET: .*another process"), listen_unix(path):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_not_a_socket_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="not a socket"), listen_unix(path):
        pass
    assert path.is_symlink() or path.exists()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match="missing/socket: No such file"),
        listen_unix(tmp_path / "missing/socket"),
    ):
        pass


def test_a_socket_that_somebody_put_in_our_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listen_unix(path):
        path.rename(tmp_path / "moved")  # its inode must not be used again
        path.write_text("somebody's")
    assert path.read_text() == "somebody's"


# --- the end ---------------------------------------------------------------------------------------

PROGRAM = """
    import asyncio, sys
    from datetime import timedelta
    import uvloop
    from compass_sidecar.api.guard import Access
    from compass_sidecar.api.application import create_api
    from compass_sidecar.api.limits import API_SHARE, Listener
    from compass_sidecar.api.server import listen_tcp, serve
    from tests.api.fakes import FakeSidecar, generation

    async def main():
        sidecar = FakeSidecar(generation())
        sidecar.gate.clear()
        with listen_tcp(("127.0.0.1",), 0) as sockets:
            print(sockets[0].getsockname()[1], flush=True)
            api = create_api(sidecar, Access(), metrics=lambda: b"m" * 20_000_000)
            await serve([Listener("api", api, sockets, API_SHARE)], on_stop=sidecar.begin_stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
"""


async def test_the_process_ends_whoever_is_connected() -> None:
    await asyncio.gather(*(end_with(number) for number in (signal.SIGTERM, signal.SIGINT)))


async def end_with(number: signal.Signals) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    wires: dict[str, Any] = {}
    for name, sent in {
        "silent": "",
        "half": "GET /livez HT",
        "idle": "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "waiter": "GET /certificate?wait=5m HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\r\n",
        "renewal": "POST /renew HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "deaf": "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    }.items():
        wires[name] = await Wire.open(port)
        wires[name].write(sent.encode())
    wires["deaf"].writer.transport.pause_reading()
    assert (await wires["idle"].reply()).status == 200
    await asyncio.sleep(0.3)
    process.send_signal(number)
    assert (await asyncio.wait_for(wires["waiter"].reply(), 30)).status == 304
    assert (await asyncio.wait_for(wires["renewal"].reply(), 30)).status == 202
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    for wire in wires.values():
        await wire.close()
