"""Ways to reach the API: over real sockets, or as an ASGI application where sockets do not matter."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from compass_sidecar.api.application import API, Health, create_api
from compass_sidecar.api.guard import Access
from compass_sidecar.api.limits import API_SHARE, HEALTH_SHARE, Limits, Listener, Share
from compass_sidecar.api.server import listen_tcp, serve
from tests.api.fakes import FakeSidecar

TOKEN = "0123456789abcdef-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NO_LIMITS = Limits()


def client_for(
    app: Any, *, peer: str = "127.0.0.1", base_url: str = "http://localhost:8080"
) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, client=(peer, 4711), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=base_url)


def on_this_machine(app: Any) -> Any:
    """httpx says that our end is called `localhost`; a server says its address."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "server": ("127.0.0.1", 8080)}, receive, send)

    return wrapped


def local_client(sidecar: FakeSidecar, access: Access | None = None, **options: Any) -> httpx.AsyncClient:
    return client_for(on_this_machine(create_api(sidecar, access or Access(), **options)))


@dataclass(frozen=True)
class Running:
    """A server on ephemeral ports."""

    port: int
    health_port: int
    stop: asyncio.Event
    task: "asyncio.Task[None]" = field(repr=False)


@asynccontextmanager
async def serving(
    sidecar: FakeSidecar,
    access: Access | None = None,
    *,
    limits: Limits = NO_LIMITS,
    api: API | None = None,
    share: Share = API_SHARE,
    **options: Any,
) -> AsyncIterator[Running]:
    """`api` in place of the one that is made of `access` and `options`; `share` is that of its clients."""
    api, stop = api or create_api(sidecar, access or Access(hostname="box"), **options), asyncio.Event()
    with listen_tcp(("127.0.0.1",), 0) as sockets, listen_tcp(("127.0.0.1",), 0) as health_sockets:
        listeners = [
            Listener("api", api, sockets, share),
            Listener("health", Health(api), health_sockets, HEALTH_SHARE),
        ]
        running = serve(listeners, on_stop=sidecar.begin_stop, stop=stop, limits=limits)
        ports = [each[0].getsockname()[1] for each in (sockets, health_sockets)]
        task = asyncio.create_task(running)
        try:
            yield Running(ports[0], ports[1], stop, task)
        finally:
            stop.set()
            await task


@dataclass(frozen=True)
class Reply:
    """What came back on a raw connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection on which a test writes bytes as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1") -> "Wire":
        return cls(*await asyncio.open_connection(host, port, limit=2**20))

    async def ask(self, *lines: str, body: bytes = b"", head: bool = False) -> Reply:
        self.write("\r\n".join((*lines, "", "")).encode("latin-1") + body)
        return await self.reply(head=head)

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, head: bool = False) -> Reply:
        start, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines if line)
        headers = {name.lower(): value for name, _, value in pairs}
        length = 0 if head else int(headers.get("content-length", 0))
        return Reply(int(start.split()[1]), headers, await self.reader.readexactly(length))

    async def closed(self) -> bool:
        """Wait for the other end to close."""
        with suppress(ConnectionError):
            while await self.reader.read(2**16):
                pass
        return True

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@asynccontextmanager
async def serving_on(
    sockets: Sequence[socket.socket], sidecar: FakeSidecar, access: Access
) -> AsyncIterator[None]:
    """The API on these sockets."""
    stop, listener = asyncio.Event(), Listener("api", create_api(sidecar, access), sockets, API_SHARE)
    task = asyncio.create_task(serve([listener], on_stop=sidecar.begin_stop, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def ask(port: int, *lines: str, body: bytes = b"", host: str = "127.0.0.1") -> Reply:
    """One request on a connection of its own. `lines` are the request line and the headers."""
    wire = await Wire.open(port, host)
    try:
        return await wire.ask(*lines, body=body, head=lines[0].startswith("HEAD"))
    finally:
        await wire.close()


def without_date(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name != b"date"]
