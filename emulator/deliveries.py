"""Ways of not delivering an answer: silence, resets, and bodies that never end.

Each takes the line, the answer's bytes (head and body apart) and the parameter, and ends the connection.
"""

import asyncio
from dataclasses import dataclass

from .durations import parse_seconds
from .line import PATIENCE_SECONDS, Line

_FILLER = b" " * 65_536
_CHUNKED_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    b"server: istio-envoy\r\ntransfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Wire:
    """An answer as bytes; both empty if nobody acted."""

    head: bytes = b""
    body: bytes = b""


async def reset(line: Line, _wire: Wire, _param: str) -> None:
    """A TCP reset instead of the answer."""
    line.reset()


async def close(line: Line, _wire: Wire, _param: str) -> None:
    """An orderly end instead of the answer."""
    await line.finish()


async def hang_headers(line: Line, _wire: Wire, _param: str) -> None:
    """Silence instead of the answer."""
    await line.until_left()


async def hang_body(line: Line, wire: Wire, _param: str) -> None:
    """Head and half of the body, then silence."""
    await line.send(wire.head + wire.body[: len(wire.body) // 2])
    await line.until_left()


async def half_answer(line: Line, wire: Wire, _param: str) -> None:
    """Head and half of the body, then an orderly end."""
    await line.send(wire.head + wire.body[: len(wire.body) // 2])
    await line.finish()


async def half_head(line: Line, wire: Wire, _param: str) -> None:
    """Half of the head, then an orderly end."""
    await line.send(wire.head[: len(wire.head) // 2])
    await line.finish()


async def drip(line: Line, wire: Wire, param: str) -> None:
    """One byte at a time: a read timeout never fires, only a limit for the whole call does."""
    pause = parse_seconds(param)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for byte in wire.head + wire.body:
            await line.send(bytes([byte]))
            await asyncio.sleep(pause)
    await line.finish()


async def endless_body(line: Line, _wire: Wire, _param: str) -> None:
    """A chunked body of spaces, until the client has enough."""
    chunk = b"%x\r\n%s\r\n" % (len(_FILLER), _FILLER)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await line.send(_CHUNKED_HEAD + b"2\r\n{ \r\n")
        while True:
            await line.send(chunk)
            await asyncio.sleep(0)  # a fast reader must not keep the other connections waiting


async def endless_headers(line: Line, _wire: Wire, _param: str) -> None:
    """Header after header, until the client has enough."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await line.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await line.send(b"x-filler: " + _FILLER[:1000].replace(b" ", b"x") + b"\r\n")
            await asyncio.sleep(0)


async def not_http(line: Line, _wire: Wire, _param: str) -> None:
    """The greeting of another protocol."""
    await line.send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    await line.finish()
