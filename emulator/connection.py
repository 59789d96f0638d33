"""One accepted connection: a socket, with TLS or without, and every way to end it.

TLS is pumped through memory BIOs by hand. asyncio's own TLS transport closes the socket when a handshake
fails without sending the alert that OpenSSL has ready, and it is the genuine alert (45, 48, 116) that a
client has to be tested with; and faults need the raw socket before, during and after the handshake.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass

_CHUNK = 65_536
LINGER_SECONDS = 1.0  # how long a closed connection is drained, so that no reset overtakes the last bytes
PATIENCE_SECONDS = 600.0  # the longest that a fault holds a connection: everything ends


@dataclass(frozen=True, slots=True)
class Wire:
    """An answer as bytes; both are empty if nothing was done."""

    head: bytes = b""
    body: bytes = b""


class Connection:
    """Bytes to and from one peer. Not for concurrent use, like the HTTP/1.1 conversation above it."""

    def __init__(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        with contextlib.suppress(OSError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = accepted
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()

    @property
    def peer_certificate(self) -> bytes | None:
        """The DER of what the peer presented."""
        return self._tls.getpeercert(binary_form=True) if self._tls else None

    @property
    def tls_version(self) -> str | None:
        """Such as `TLSv1.3`; None without TLS."""
        return self._tls.version() if self._tls else None

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """The server's handshake; raises ssl.SSLError after the alert has been sent."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()
                raise
            else:
                break
        await self._flush()
        self._tls = tls

    async def receive(self) -> bytes:
        """Some decrypted bytes; empty when the peer has finished."""
        if self._tls is None:
            return await self.receive_raw()
        while True:
            try:
                return self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError:
                return b""  # a ragged end; such a peer reads no answer anyway

    async def send(self, data: bytes) -> None:
        """All of it, in one write."""
        if self._tls is None:
            await self.send_raw(data)
            return
        if data:
            self._tls.write(data)
        await self._flush()

    async def receive_raw(self) -> bytes:
        """Some bytes below TLS."""
        try:
            return await self._loop.sock_recv(self._socket, _CHUNK)
        except ConnectionError:
            return b""

    async def send_raw(self, data: bytes) -> None:
        """All of it, below TLS."""
        await self._loop.sock_sendall(self._socket, data)

    async def until_closed(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until the peer closes, ignoring what it sends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.receive_raw():
                    pass

    async def finish(self) -> None:
        """A graceful end: close_notify, FIN, then a moment of draining.

        Closing with unread bytes in the buffer makes the kernel send a reset, which can destroy an answer or
        an alert that the peer has not read yet. A TLS 1.3 client that is refused has sent its request.
        """
        with contextlib.suppress(OSError, ssl.SSLError):
            if self._tls is not None:
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
                await self._flush()
            self._socket.shutdown(socket.SHUT_WR)
            await self.until_closed(LINGER_SECONDS)
        self.close()

    def reset(self) -> None:
        """Ends it with a TCP reset."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Ends it now; closing twice is fine."""
        self._socket.close()

    async def _fill(self) -> None:
        data = await self.receive_raw()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self.send_raw(self._outgoing.read())
