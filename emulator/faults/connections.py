"""Faults of new connections: below TLS, or in the handshake.

Each takes the fresh connection, the TLS context that would be right, and the parameter. A client that keeps a
connection open does not meet them.
"""

import contextlib
import ssl

from ..connection import Connection
from ..tls import ServerTLS
from .plan import ConnectionFault, Situation, TLSFault

_RARELY = 0.1  # in chaos: what costs a client its whole timeout
_FATAL = 2
_ALERTS = range(256)


async def hang_connect(connection: Connection, _context: ssl.SSLContext, _param: str) -> None:
    """Never reads and never writes, as with a full accept queue or a lost firewall state."""
    await connection.until_closed()


async def hang_handshake(connection: Connection, context: ssl.SSLContext, _param: str) -> None:
    """Answers the ClientHello with half of the server's first flight, then silence."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(await connection.receive_raw())
    with contextlib.suppress(ssl.SSLError):  # it wants the client's next flight, which is the point
        tls.do_handshake()
    flight = outgoing.read()
    await connection.send_raw(flight[: len(flight) // 2])
    await connection.until_closed()


async def reset_connect(connection: Connection, _context: ssl.SSLContext, _param: str) -> None:
    """A TCP reset in answer to the ClientHello."""
    await connection.receive_raw()
    connection.reset()


async def close_connect(connection: Connection, _context: ssl.SSLContext, _param: str) -> None:
    """An orderly end in answer to the ClientHello: how a dropped connection looks from Envoy."""
    await connection.receive_raw()
    await connection.finish()


async def alert(connection: Connection, _context: ssl.SSLContext, param: str) -> None:
    """A fatal alert in clear in answer to the ClientHello (RFC 8446 section 6)."""
    await connection.receive_raw()
    await connection.send_raw(bytes([21, 3, 3, 0, 2, _FATAL, alert_number(param)]))
    await connection.finish()


async def plain_http(connection: Connection, _context: ssl.SSLContext, _param: str) -> None:
    """Plain HTTP where TLS was asked for: a port mapped to the wrong listener."""
    await connection.receive_raw()
    await connection.send_raw(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await connection.finish()


def alert_number(text: str) -> int:
    """The alert's code; raises ValueError."""
    if not text.isdecimal() or int(text) not in _ALERTS:
        raise ValueError(f"{text!r} is not the number of a TLS alert (40, 42, 45, 46, 48, 116)")
    return int(text)


def _at_mtls(situation: Situation, _param: str) -> bool:
    return situation.listener == "mtls"


TLS = (
    ConnectionFault("hang-connect", "accepts TCP and stays silent", hang_connect, weight=_RARELY),
    ConnectionFault("hang-handshake", "half a server hello, then silence", hang_handshake, weight=_RARELY),
    ConnectionFault("reset-connect", "a reset in answer to the ClientHello", reset_connect),
    ConnectionFault("close-connect", "an orderly end in answer to the ClientHello", close_connect),
    ConnectionFault("plain-http", "plain HTTP in answer to the ClientHello", plain_http),
    ConnectionFault(
        "alert",
        "this fatal TLS alert (40, 42, 45, 46, 48, 116) in answer to the ClientHello",
        alert,
        default="48",
        check=alert_number,
    ),
    TLSFault("server-cert-unknown-ca", "a server certificate from an unknown CA", ServerTLS.unknown_ca),
    TLSFault("server-cert-expired", "an expired server certificate", ServerTLS.expired),
    TLSFault("server-cert-wrong-name", "a server certificate for another host", ServerTLS.wrong_name),
    TLSFault(
        "require-other-ca",
        "the listener trusts another client CA: genuine alert 48",
        ServerTLS.other_client_ca,
        when=_at_mtls,
    ),
    TLSFault(
        "client-cert-not-yet-valid",
        "to the listener the client's certificate is not valid yet: genuine alert 42",
        ServerTLS.future_client_ca,
        when=_at_mtls,
    ),
    TLSFault(
        "client-cert-expired",
        "to the listener the client's certificate has expired: genuine alert 45",
        ServerTLS.past_client_ca,
        when=_at_mtls,
    ),
    TLSFault(
        "client-cert-unknown",
        "the listener refuses the client's certificate without a reason: genuine alert 46",
        ServerTLS.constrained_client_ca,
        when=_at_mtls,
    ),
)
