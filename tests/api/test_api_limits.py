"""How much clients may take, over real sockets: sizes, connections, requests sent ahead, and memory."""

import asyncio
import json
import socket
from contextlib import suppress

import pytest

from compass_sidecar.api.limits import Limits, Share
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import Reply, Wire, ask, serving

pytestmark = pytest.mark.anyio
WAIT = b"GET /certificate?wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n"  # for a first credential
LIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"POST /renew HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
LIVE_LINES = ("GET /livez HTTP/1.1", "Host: localhost")
STATUS = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
HANG = 30  # seconds: a limit for a hang, not a promise


async def reply(wire: Wire) -> Reply:
    return await asyncio.wait_for(wire.reply(), HANG)


async def send(wire: Wire, data: bytes, *, pieces: int = 1) -> None:
    step = -(-len(data) // pieces)
    for start in range(0, len(data), step):
        wire.write(data[start : start + step])
        await asyncio.sleep(0.01 if pieces > 1 else 0)


# --- one head -------------------------------------------------------------------------------------


def head_of(size: int, path: str) -> bytes:
    start, end = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX: ".encode(), b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("path", ["/livez", "/startupz"])  # ready, and from a route
async def test_a_head_has_32_kib_and_on_the_health_port_16(path: str, pieces: int) -> None:
    async with serving(FakeSidecar(generation())) as running:
        for port, limit in ((running.port, 32 * 1024), (running.health_port, 16 * 1024)):
            for size, status in ((limit, 200), (limit + 1, 431), (400_000, 431)):
                wire = await Wire.open(port)
                await send(wire, head_of(size, path), pieces=pieces)
                assert (await reply(wire)).status == status
                await wire.close()


@pytest.mark.parametrize("before", [b"", b"POST /renew HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"])
async def test_a_head_has_100_fields(before: bytes) -> None:
    async with serving(FakeSidecar(generation())) as running:
        for fields, status in ((100, 200), (101, 431), (4_000, 431)):
            wire = await Wire.open(running.port)
            rest = b"a:\r\n" * (fields - 1) + b"\r\n"
            wire.write(before + b"GET /status HTTP/1.1\r\nHost: localhost\r\n" + rest)
            if before:
                assert (await reply(wire)).status == 421
            assert (await reply(wire)).status == status
            await wire.close()


async def test_a_head_without_an_end_is_refused_when_it_is_too_large() -> None:
    async with serving(FakeSidecar(generation())) as running:
        for endless in (b"A: b\r\n" * 20_000, b"A: " + b"b" * 2_000_000, b"A: b\r\n" * 150):
            wire = await Wire.open(running.port)
            wire.write(b"GET /status HTTP/1.1\r\n" + endless)
            assert (await reply(wire)).json()["code"] == "headers-too-large"
            await wire.close()


async def test_the_limits_of_a_head_hold_behind_a_body_in_chunks_however_it_is_cut() -> None:
    body = (
        b"POST /renew HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    fields = b"GET /status HTTP/1.1\r\nHost: localhost\r\n" + b"a:\r\n" * 150 + b"\r\n"
    async with serving(FakeSidecar(generation())) as running:
        for cut in range(len(body) - 5, len(body) + 3):
            wire = await Wire.open(running.port)
            wire.write((body + LIVE + fields)[:cut])
            await asyncio.sleep(0.02)
            wire.write((body + LIVE + fields)[cut:])
            assert [(await reply(wire)).status for _ in range(3)] == [200, 200, 431]
            await wire.close()


# --- nothing is lost ------------------------------------------------------------------------------

OFFER = b"Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUPGRADE: h2c\r\nHTTP2-Settings: AAM\r\n"
CONNECT = json.dumps({"token": "t"}).encode()
JSON_TYPE = b"Content-Type: application/json\r\nAuthorization: Bearer 0123456789abcdef-token\r\n"


@pytest.mark.parametrize("pieces", [1, 2, 300])
@pytest.mark.parametrize("path", [b"/livez", b"/status"])
async def test_an_offer_of_another_protocol_loses_no_request(path: bytes, pieces: int) -> None:
    async with serving(FakeSidecar(generation())) as running:
        wire = await Wire.open(running.port)
        offer = b"GET " + path + b" HTTP/1.1\r\n" + OFFER + b"\r\n"
        await send(wire, offer + STATUS + offer + LIVE, pieces=pieces)
        assert [(await reply(wire)).status for _ in range(4)] == [200] * 4
        await wire.close()


@pytest.mark.parametrize("pieces", [1, 2, 300])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_offer_of_another_protocol_loses_no_body(chunked: bool, pieces: int) -> None:
    """Java's client offers h2c with its first request, be it a POST. Its body is no request of its own."""
    from compass_sidecar.api.guard import Access
    from tests.api.serving import TOKEN

    sidecar = FakeSidecar(generation())
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CONNECT), CONNECT) if chunked else CONNECT
    length = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(CONNECT)
    async with serving(sidecar, Access(api_token=TOKEN)) as running:
        wire = await Wire.open(running.port)
        head = b"POST /connect HTTP/1.1\r\n" + OFFER + JSON_TYPE + length + b"\r\n"
        await send(wire, head + framed + LIVE, pieces=pieces)
        assert [(await reply(wire)).status for _ in range(2)] == [200, 200]
        await wire.close()
    assert sidecar.connections == [("t", None)]


@pytest.mark.parametrize("first", [STATUS, LIVE, WAIT], ids=["status", "livez", "wait"])
async def test_hundreds_of_requests_in_one_packet_are_all_answered_in_order(first: bytes) -> None:
    sidecar = FakeSidecar(None if first is WAIT else generation())
    async with serving(sidecar) as running:
        wire = await Wire.open(running.port)
        requests = [b"/livez", b"/nothing", b"/certificate/leaf.pem"] * 300
        lines = (b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in requests)
        wire.write(first + b"".join(lines))
        await asyncio.sleep(0.1)
        sidecar.use(generation())
        assert (await reply(wire)).status == 200
        expected = {b"/livez": 200, b"/nothing": 404, b"/certificate/leaf.pem": 200}
        assert [(await reply(wire)).status for _ in requests] == [expected[path] for path in requests]
        await wire.close()


async def test_a_wait_at_the_end_of_a_long_packet_has_its_time() -> None:
    limits = Limits(request=0.3, send=0.3, idle=0.6)
    async with serving(FakeSidecar(None), limits=limits) as running:
        wire = await Wire.open(running.port)
        wire.write(LIVE * 20 + STATUS * 20 + WAIT.replace(b"5m", b"2s"))
        statuses = [(await reply(wire)).status for _ in range(41)]
        assert statuses == [200] * 40 + [503]
        await wire.close()


@pytest.mark.parametrize("request_", [STATUS, LIVE, STATUS * 30, STATUS.replace(b"1.1", b"1.0")])
async def test_a_client_that_closed_its_sending_half_gets_its_answers(request_: bytes) -> None:
    """As `nc -N` and `socat` do."""
    async with serving(FakeSidecar(generation()), limits=Limits(leaving=HANG)) as running:
        wire = await Wire.open(running.port)
        wire.write(request_)
        wire.writer.write_eof()
        for _ in range(request_.count(b"GET")):
            assert (await reply(wire)).status == 200
        assert await asyncio.wait_for(wire.closed(), HANG)
        await wire.close()


# --- connections ----------------------------------------------------------------------------------


async def test_the_longest_idle_connection_makes_room_for_a_new_one() -> None:
    async with serving(FakeSidecar(None), share=Share(3, 32 * 1024)) as running:
        silent, used, waiting = [await Wire.open(running.port) for _ in range(3)]
        waiting.write(WAIT)
        assert (await asyncio.wait_for(used.ask(*LIVE_LINES), HANG)).status == 200
        second = await Wire.open(running.port)
        assert (await asyncio.wait_for(second.ask(*LIVE_LINES), HANG)).status == 200
        assert await asyncio.wait_for(silent.closed(), HANG)
        assert (await asyncio.wait_for(used.ask(*LIVE_LINES), HANG)).status == 200
        third = await Wire.open(running.port)
        assert (await asyncio.wait_for(third.ask(*LIVE_LINES), HANG)).status == 200
        assert await asyncio.wait_for(second.closed(), HANG)
        assert (await asyncio.wait_for(used.ask(*LIVE_LINES), HANG)).status == 200
        for wire in (silent, used, waiting, second, third):
            await wire.close()


@pytest.mark.parametrize("busy", [WAIT, b"GET /li", WAIT + LIVE], ids=["waits", "half", "more"])
async def test_without_an_idle_connection_a_new_one_is_refused(busy: bytes) -> None:
    async with serving(FakeSidecar(None), share=Share(2, 32 * 1024)) as running:
        wires = [await Wire.open(running.port) for _ in range(2)]
        for wire in wires:
            wire.write(busy)
        await asyncio.sleep(0.1)
        for _ in range(3):
            refused = await ask(running.port, "GET /livez HTTP/1.1", "Host: localhost")
            assert (refused.status, refused.json()["code"]) == (503, "too-many-connections")
            assert refused.headers["connection"] == "close"
        assert (await ask(running.health_port, "GET /livez HTTP/1.1")).status == 200
        await wires.pop().close()
        async with asyncio.timeout(HANG):
            while (await ask(running.port, "GET /livez HTTP/1.1", "Host: localhost")).status != 200:
                await asyncio.sleep(0.05)
        await wires.pop().close()


async def test_the_health_port_has_100_connections() -> None:
    async with serving(FakeSidecar(generation())) as running:
        wires = [await Wire.open(running.health_port) for _ in range(100)]
        for wire in wires:
            wire.write(b"GET /li")
        await asyncio.sleep(0.1)
        refused = await ask(running.health_port, "GET /livez HTTP/1.1")
        assert refused.json()["code"] == "too-many-connections"
        wires[7].write(LIVE[7:])
        assert (await reply(wires[7])).status == 200
        assert (await ask(running.health_port, "GET /livez HTTP/1.1")).status == 200
        assert await asyncio.wait_for(wires[7].closed(), HANG)
        for wire in wires:
            await wire.close()


async def test_those_who_do_not_read_their_refusal_do_not_pile_up() -> None:
    async with serving(FakeSidecar(None), share=Share(1, 32 * 1024)) as running:
        first = await Wire.open(running.port)
        first.write(WAIT)
        await asyncio.sleep(0.05)
        refused = [await Wire.open(running.port) for _ in range(150)]
        async with asyncio.timeout(HANG):
            for wire in refused[:50]:
                while not wire.writer.transport.is_closing():
                    wire.write(b"x")
                    await asyncio.sleep(0.01)
        for wire in (first, *refused):
            await wire.close()


# --- memory ---------------------------------------------------------------------------------------

BODY = b"POST /renew HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65_000
AHEAD = WAIT + head_of(30_000, "/status") * 7
LARGE_WAIT = WAIT.replace(b"Host", b"X: " + b"x" * 30_000 + b"\r\nHost")


@pytest.mark.parametrize(
    "sent",
    [
        BODY,
        CHUNKED + b"fde8\r\n" + b"x" * 65_000,
        head_of(32_000, "/livez")[:-2],
        AHEAD,
        LARGE_WAIT,
        CHUNKED + b"0\r\nX: " + b"x" * 200_000,
        WAIT + STATUS * 8 + head_of(30_000, "/status") * 6,
    ],
    ids=["body", "chunks", "head", "ahead", "waiter", "trailer", "unparsed"],
)
async def test_the_slowest_are_ended_when_unfinished_requests_take_24_mib(sent: bytes) -> None:
    sidecar = FakeSidecar(None)
    sidecar.gate.clear()
    number = 24 * 2**20 // len(sent) + 50
    async with serving(sidecar) as running:
        waiter, young = await Wire.open(running.port), await Wire.open(running.health_port)
        waiter.write(WAIT)
        wires = []
        for _ in range(number):
            wires.append(await Wire.open(running.port))
            wires[-1].write(sent)
        young.write(head_of(16_000, "/livez")[:-2])
        await asyncio.sleep(0.1)
        ended = await reply(wires[0])
        assert (ended.status, ended.json()["code"]) == (408, "request-timeout")
        young.write(b"\r\n")
        assert (await reply(young)).status == 200
        sidecar.use(generation(1))
        assert (await reply(waiter)).status == 200
        for wire in (waiter, young, *wires):
            await wire.close()


async def test_what_is_not_over_the_limit_is_not_ended() -> None:
    sidecar = FakeSidecar(generation())
    async with serving(sidecar) as running:
        wires = [await Wire.open(running.port) for _ in range(200)]
        for wire in wires:
            wire.write(BODY.replace(b"/renew", b"/nowhere"))
        await asyncio.sleep(0.1)
        for wire in wires:
            wire.write(b"x" * 536 + LIVE)
            assert [(await reply(wire)).status for _ in range(2)] == [404, 200]
            await wire.close()


async def test_answers_that_are_not_read_count_too() -> None:
    size, number, loop = 20_000_000, 4, asyncio.get_running_loop()
    async with serving(FakeSidecar(None), metrics=lambda: b"m" * size) as running:
        socks = [socket.socket() for _ in range(number)]
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", running.port))
            await loop.sock_sendall(sock, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.5)
        received = [await asyncio.wait_for(read_all(sock), HANG) for sock in socks]
    assert received[0] < size < received[-1]


async def read_all(sock: socket.socket) -> int:
    """How many bytes of one answer of 20 MB come."""
    received, loop = 0, asyncio.get_running_loop()
    with sock, suppress(ConnectionError):
        while received < 20_000_000 and (chunk := await loop.sock_recv(sock, 2**20)):
            received += len(chunk)
    return received
