"""The fast path and the routes give the same answer, to the byte."""

import asyncio
import itertools
import re
from contextlib import suppress

import pytest
from starlette.types import Scope

from compass_sidecar.api.application import API, create_router
from compass_sidecar.api.guard import Access, Guard
from compass_sidecar.api.paths import PATHS, TARGETS
from compass_sidecar.api.problems import Answer
from compass_sidecar.api.served import FastPath, Served
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import Wire, ask, client_for, serving

pytestmark = pytest.mark.anyio


READY = list(TARGETS.values())
HEADERS: list[str] = [
    "",
    "Accept: */*",
    "Accept: application/json",
    "Accept: application/pem-certificate-chain",
    "Accept: application/x-pem-file;q=0.9, text/html",
    "If-None-Match: *",
    'If-None-Match: "other"',
    "Accept: application/pem-certificate-chain\r\nIf-None-Match: *",
    "Content-Length: 0",
]


class Watched(API):
    """Knows which answers were ready."""

    answered: int = 0

    def ready(self, scope: Scope) -> Answer | None:
        answer = super().ready(scope)
        self.answered += answer is not None
        return answer


def watched(sidecar: FakeSidecar) -> Watched:
    served, access = Served(sidecar), Access()
    return Watched(
        Guard(access), FastPath(sidecar, served), create_router(sidecar, served, access), lambda *_: None
    )


async def raw(wire: Wire, *lines: str) -> tuple[bytes, bytes]:
    """Head and body as they come; the Date differs with the second, and is taken out."""
    wire.write("\r\n".join((*filter(None, lines), "", "")).encode())
    head = await wire.reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    body = await wire.reader.readexactly(int(length[1]) if length and not lines[0].startswith("HEAD") else 0)
    return re.sub(rb"date: .*\r\n", b"", head), body


@pytest.mark.parametrize("path", READY)
async def test_both_ways_give_the_same_answer(path: str) -> None:
    """Over sockets, to the byte: a connection answers by itself, unless its client wants it closed."""
    sidecar = FakeSidecar(generation())
    api, count = watched(sidecar), 0
    async with serving(sidecar, api=api) as running:
        keep = await Wire.open(running.port)
        for headers, method in itertools.product(HEADERS, ("GET", "HEAD")):
            etag = ""
            for _ in range(2):  # and once more with the tag of the first answer
                lines = (f"{method} {path} HTTP/1.1", "Host: localhost", headers, etag)
                fast = await raw(keep, *lines)
                count += 1
                assert api.answered == count, (method, headers)
                once = await Wire.open(running.port)
                slow = await raw(once, *lines, "Connection: close")
                await once.close()
                assert api.answered == count
                assert slow == (fast[0][:-2] + b"connection: close\r\n\r\n", fast[1])
                assert fast[0].startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 304 Not Modified\r\n"))
                found = re.search(rb"etag: (\S+)", fast[0])
                etag = f'If-None-Match: "x", W/{found[1].decode()}' if found else ""
        await keep.close()


@pytest.mark.parametrize("path", READY)
async def test_where_there_is_something_to_explain_the_routes_do(path: str) -> None:
    sidecar = FakeSidecar(None)
    sidecar.stall = "The renewal loop has not turned for 90 seconds."
    api = watched(sidecar)
    async with serving(sidecar, api=api) as running:
        assert (await ask(running.port, f"GET {path} HTTP/1.1", "Host: localhost")).status == 503
    assert not api.answered


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("GET /certificate HTTP/1.1", "Host: evil.example.org"), 421),
        (("GET /certificate HTTP/1.1", "Host: localhost", "Origin: http://evil.example.org"), 403),
        (("GET /certificate HTTP/1.1",), 400),
        (("POST /certificate HTTP/1.1", "Host: localhost", "Content-Length: 0"), 405),
        (("GET /certificate HTTP/1.1", "Host: localhost", "Accept: text/html"), 406),
        (("GET /certificate HTTP/1.0", "Host: localhost", "Connection: keep-alive"), 200),
        (("GET /certificate?x HTTP/1.1", "Host: localhost"), 200),
        (("GET /certific%61te HTTP/1.1", "Host: localhost"), 200),
        (("GET http://localhost/certificate HTTP/1.1", "Host: localhost"), 200),
    ],
)
async def test_what_is_unusual_goes_through_the_application(lines: tuple[str, ...], status: int) -> None:
    sidecar = FakeSidecar(generation())
    api = watched(sidecar)
    async with serving(sidecar, api=api) as running:
        assert (await ask(running.port, *lines)).status == status
    assert not api.answered


async def test_a_mistake_on_the_fast_path_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    sidecar = FakeSidecar(generation())
    api = watched(sidecar)

    def broken() -> str | None:
        raise RuntimeError("a mistake")

    sidecar.stalled = broken  # type: ignore[method-assign]
    async with serving(sidecar, api=api) as running:
        assert (await ask(running.port, "GET /livez HTTP/1.1", "Host: localhost")).status == 500
    assert "a mistake" in caplog.text


async def test_a_body_is_read_before_its_request_is_answered() -> None:
    sidecar = FakeSidecar(generation())
    async with serving(sidecar, api=watched(sidecar)) as running:
        wire = await Wire.open(running.port)
        for lines, body in (
            (("Content-Length: 3",), b"abc"),
            (("Transfer-Encoding: chunked",), b"3\r\nabc\r\n0\r\n\r\n"),
        ):
            reply = await wire.ask("GET /certificate HTTP/1.1", "Host: localhost", *lines, body=body)
            assert reply.status == 200
        assert (await wire.ask("GET /livez HTTP/1.1", "Host: localhost")).body == b"ok\n"
        await wire.close()


async def test_answers_keep_the_order_of_the_requests_that_came_at_once() -> None:
    sidecar = FakeSidecar(generation())
    async with serving(sidecar, api=watched(sidecar)) as running:
        wire = await Wire.open(running.port)
        order = ["/livez", "/status", "/livez", "/certificate/leaf.pem", "/startupz", "/certificate"]
        wire.write(b"".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in order))
        kinds = [(await wire.reply()).headers["content-type"] for _ in order]
        await wire.close()
    text = "text/plain; charset=utf-8"
    assert kinds == [text, "application/json", text, "application/x-pem-file", text, "application/json"]


async def test_a_client_that_asks_and_never_reads_does_not_fill_our_memory() -> None:
    sidecar = FakeSidecar(generation())
    async with serving(sidecar, api=(api := watched(sidecar))) as running:
        wire = await Wire.open(running.port)
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        request = b"GET /certificate HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with suppress(TimeoutError, ConnectionError):  # it is not read any more, or cut off
            async with asyncio.timeout(2):
                for _ in range(2000):
                    wire.write(request * 100)
                    await wire.writer.drain()
        # Two socket buffers' worth, not the 1.3 GB that were asked for.
        assert api.answered < 20_000
        wire.writer.transport.abort()


def test_every_route_is_described_and_counted_by_its_own_name() -> None:
    sidecar = FakeSidecar()
    described = create_router(sidecar, Served(sidecar), Access()).openapi()["paths"]
    methods = {path: [method.upper() for method in item] for path, item in described.items()}
    assert methods | {"/openapi.json": ["GET"]} == {path: [each.method] for path, each in PATHS.items()}


async def test_every_answer_is_counted_by_route_method_and_status() -> None:
    seen: list[tuple[str, str, int]] = []
    sidecar = FakeSidecar(generation())
    served, access = Served(sidecar), Access()
    router = create_router(sidecar, served, access)
    api = API(Guard(access), FastPath(sidecar, served), router, lambda *labels: seen.append(labels))
    async with serving(sidecar, api=api) as running:
        assert (await ask(running.port, "GET /certificate HTTP/1.1", "Host: localhost")).status == 200
        assert (await ask(running.health_port, "GET /livez HTTP/1.1", "Host: pod")).status == 200
        assert (await ask(running.health_port, "GET /status HTTP/1.1", "Host: pod")).status == 404
    async with client_for(api) as client:
        await client.get("/certificate")
        await client.head("/status")
        await client.get("/certificate/anything")
        await client.request("BREW", "/status")
        await client.get("/status", headers={"Host": "evil.example.org"})
    assert seen == [
        ("/certificate", "GET", 200),
        ("/livez", "GET", 200),
        ("/status", "GET", 404),
        ("/certificate", "GET", 200),
        ("/status", "HEAD", 200),
        ("unmatched", "GET", 404),
        ("/status", "other", 405),
        ("/status", "GET", 421),
    ]
