"""The listeners of the Connector, and what happens on a connection, from TLS to the last answer.

Not uvicorn, for three reasons. Its applications do not see the peer's certificate, which at the mTLS
listener is the identity. Its transport (asyncio's) swallows the TLS alert of a refused handshake. And
half of the faults are things that a correct HTTP server will not do: half an answer, a reset after
acting, one byte a second.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509

from .clock import Clock
from .connection import Connection, Wire
from .faults.plan import ConnectionFault, FaultPlan, RequestFaults, Situation, TLSFault
from .gateway import DIRECTOR_PATH, PATH, Gateway, Outcome, Peer
from .http import HTTPConversation, Request
from .journal import Entry, Journal
from .options import ListenerName
from .tls import ServerTLS

_BACKLOG = 512
_CONNECTIONS = 512  # at once; more are closed at once, rather than starving the process of descriptors
_PAUSE_SECONDS = 0.05  # after a failed accept (no descriptors left): others need a chance to close theirs
_HANDSHAKE_SECONDS = 15.0  # Envoy's own limit for a transport socket to connect

Handler = Callable[[Connection], Awaitable[None]]


class Listener:
    """Opened once; `suspend` and `resume` may follow; closed at the end."""

    def __init__(self, host: str, port: int, handler: Handler) -> None:
        self.host = host
        self._handler = handler
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = port

    def open(self) -> None:
        """Binds and accepts; raises OSError. Port 0 becomes the one that was given."""
        self._socket = self._bind()
        self.port = self._socket.getsockname()[1]
        self._listen()

    async def close(self) -> None:
        """Refuses from now on, and ends every connection."""
        await self._stop()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def suspend(self) -> None:
        """Like `close`, keeping the port."""
        await self._stop()
        if self._socket is not None:
            self._socket.close()
            self._socket = self._bind()

    def resume(self) -> None:
        """Accepts again on the same port."""
        if self._accepting is None:
            self._listen()

    async def drop(self) -> None:
        """Ends every connection; new ones are welcome."""
        await _cancel(self._connections)

    def _bind(self) -> socket.socket:
        family, kind, protocol, _, address = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
        return bound

    def _listen(self) -> None:
        if self._socket is None:
            return
        self._socket.listen(_BACKLOG)
        self._accepting = asyncio.create_task(self._accept(self._socket))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if len(self._connections) >= _CONNECTIONS:
                accepted.close()
                continue
            task = asyncio.create_task(self._serve(accepted))
            self._connections.add(task)
            task.add_done_callback(self._finished)

    async def _serve(self, accepted: socket.socket) -> None:
        connection = Connection(accepted)
        try:
            await self._handler(connection)
        except (OSError, TimeoutError):
            pass  # the peer left, or was kept for long enough
        finally:
            connection.close()

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Anything but a lost peer is a bug of the emulator, and is logged with its traceback."""
        self._connections.discard(task)
        if not task.cancelled() and (error := task.exception()):
            context = {"message": "a connection failed", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _stop(self) -> None:
        if self._accepting is not None:
            await _cancel({self._accepting})
            self._accepting = None
        await _cancel(self._connections)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in (pending := list(tasks)):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*pending, return_exceptions=True)


class Server:
    """The token-secured or the certificate-secured endpoint: serves each accepted connection."""

    def __init__(
        self,
        name: ListenerName,
        *,
        tls: ServerTLS,
        gateway: Gateway,
        plan: FaultPlan,
        journal: Journal,
        clock: Clock,
        latency: timedelta,
    ) -> None:
        self._name = name
        self._tls = tls
        self._gateway = gateway
        self._plan = plan
        self._journal = journal
        self._clock = clock
        self._latency = latency.total_seconds()

    async def serve(self, connection: Connection) -> None:
        """A whole connection, from the ClientHello to its end."""
        self._journal.events[f"connections_{self._name}"] += 1
        situation = Situation(operation="connect", listener=self._name, now=self._clock.now())
        faults = self._plan.faults_for(situation)
        context = self._tls.right(self._name)
        if broken := faults.take(ConnectionFault):
            self._record(faults, outcome="connection-fault")
            await broken.fault.act(connection, context, broken.param)
            return
        if other := faults.take(TLSFault):
            context = other.fault.act(self._tls, self._name)
        if await self._handshake(connection, context, faults):
            await self._converse(connection)
        await connection.finish()

    async def _handshake(
        self, connection: Connection, context: ssl.SSLContext, faults: RequestFaults
    ) -> bool:
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await connection.start_tls(context)
        except ssl.SSLEOFError:
            self._record(faults, outcome="left-in-handshake")
            return False
        except ssl.SSLError as error:
            self._journal.events["handshakes_failed"] += 1
            self._record(faults, outcome=_reason(error))
            return False
        if faults.names:
            self._record(faults, outcome="ok")
        return True

    async def _converse(self, connection: Connection) -> None:
        presented = connection.peer_certificate
        certificate = x509.load_der_x509_certificate(presented) if presented else None
        peer = Peer(listener=self._name, certificate=certificate)
        conversation = HTTPConversation(connection, self._clock)
        while (request := await conversation.next_request()) is not None:
            outcome = await self._act(request, peer)
            if not await _deliver(connection, conversation, request, outcome):
                return

    async def _act(self, request: Request, peer: Peer) -> Outcome:
        if self._latency and request.path in (PATH, DIRECTOR_PATH):
            await asyncio.sleep(self._latency)
        outcome = self._gateway.handle(request, peer)
        if outcome.delay:
            await asyncio.sleep(outcome.delay)
        return outcome

    def _record(self, faults: RequestFaults, *, outcome: str) -> None:
        self._journal.record(
            Entry(
                at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                listener=self._name,
                operation="connect",
                outcome=outcome,
                faults=list(faults.names),
            )
        )


async def _deliver(
    connection: Connection, conversation: HTTPConversation, request: Request, outcome: Outcome
) -> bool:
    """Sends the answer, or does not; whether another request may come."""
    wire = conversation.render(outcome.answer, method=request.method) if outcome.answer else Wire()
    if outcome.deliver is not None:
        await outcome.deliver(connection, wire)
        return False
    await connection.send(wire.head + wire.body)
    return conversation.keeps_open()


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's word, and for certificates what was wrong with it."""
    detail = getattr(error, "verify_message", "")
    return f"{error.reason}: {detail}" if detail else str(error.reason)
