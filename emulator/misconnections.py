"""Ways of refusing a client before a request: below TLS, or in the handshake.

Each takes the fresh line, the TLS context that an honest door would use, and the parameter.
"""

import contextlib
import ssl

from .line import Line

_FATAL = 2
_ALERTS = range(256)


async def hang_connect(line: Line, _context: ssl.SSLContext, _param: str) -> None:
    """Never reads, never says anything: what a full accept queue or a lost firewall state looks like."""
    await line.until_left()


async def hang_handshake(line: Line, context: ssl.SSLContext, _param: str) -> None:
    """Answers the ClientHello with half of the server's first flight, then silence."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(await line.receive_raw())
    with contextlib.suppress(ssl.SSLError):  # it wants the client's next flight, which is the point
        tls.do_handshake()
    flight = outgoing.read()
    await line.send_raw(flight[: len(flight) // 2])
    await line.until_left()


async def reset_connect(line: Line, _context: ssl.SSLContext, _param: str) -> None:
    """A TCP reset in answer to the ClientHello."""
    await line.receive_raw()
    line.reset()


async def close_connect(line: Line, _context: ssl.SSLContext, _param: str) -> None:
    """An orderly end in answer to the ClientHello: how a dropped connection looks from Envoy."""
    await line.receive_raw()
    await line.finish()


async def alert(line: Line, _context: ssl.SSLContext, param: str) -> None:
    """A fatal alert in clear in answer to the ClientHello (RFC 8446 section 6)."""
    await line.receive_raw()
    await line.send_raw(bytes([21, 3, 3, 0, 2, _FATAL, alert_number(param)]))
    await line.finish()


async def plain_http(line: Line, _context: ssl.SSLContext, _param: str) -> None:
    """Plain HTTP where TLS was asked for: a port mapped to the wrong listener."""
    await line.receive_raw()
    await line.send_raw(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await line.finish()


def alert_number(text: str) -> int:
    """The alert's code; raises ValueError."""
    if not text.isdecimal() or int(text) not in _ALERTS:
        raise ValueError(f"{text!r} is not the number of a TLS alert (40, 42, 45, 46, 48, 116)")
    return int(text)
