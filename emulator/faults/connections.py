"""Faults of new connections: below TLS, or in the handshake.

Each takes the fresh connection, the TLS context that would be right, and the parameter. A client that keeps a
connection open does not meet them.
"""

import contextlib
import ssl

from ..connection import Line
from ..tls import ServerTLS
from .plan import Circumstance, Disguised, Misconnection

_RARELY = 0.1  # in chaos: what costs a client its whole timeout
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


def _at_mtls(circumstance: Circumstance, _param: str) -> bool:
    return circumstance.door == "mtls"


TLS = (
    Misconnection("hang-connect", "accepts TCP and stays silent", hang_connect, weight=_RARELY),
    Misconnection("hang-handshake", "half a server hello, then silence", hang_handshake, weight=_RARELY),
    Misconnection("reset-connect", "a reset in answer to the ClientHello", reset_connect),
    Misconnection("close-connect", "an orderly end in answer to the ClientHello", close_connect),
    Misconnection("plain-http", "plain HTTP in answer to the ClientHello", plain_http),
    Misconnection(
        "alert",
        "this fatal TLS alert (40, 42, 45, 46, 48, 116) in answer to the ClientHello",
        alert,
        default="48",
        check=alert_number,
    ),
    Disguised("server-cert-stranger", "a server certificate from an unknown CA", ServerTLS.stranger),
    Disguised("server-cert-expired", "an expired server certificate", ServerTLS.expired),
    Disguised("server-cert-wrong-name", "a server certificate for another host", ServerTLS.wrong_name),
    Disguised(
        "require-other-ca",
        "the door trusts another client CA: genuine alert 48",
        ServerTLS.other_client_ca,
        when=_at_mtls,
    ),
    Disguised(
        "client-cert-not-yet-valid",
        "the door finds our certificate too new: genuine alert 42",
        ServerTLS.early_client_ca,
        when=_at_mtls,
    ),
    Disguised(
        "client-cert-expired",
        "the door finds our certificate too old: genuine alert 45",
        ServerTLS.ended_client_ca,
        when=_at_mtls,
    ),
    Disguised(
        "client-cert-unknown",
        "the door refuses our certificate without a reason: genuine alert 46",
        ServerTLS.narrow_client_ca,
        when=_at_mtls,
    ),
)
