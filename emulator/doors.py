"""The two doors: TLS on asyncio sockets, HTTP/1.1 by h11, every byte under control.

Not uvicorn, for three reasons. It tells an application nothing about the peer's certificate, which at the
certificate-secured door *is* the identity. Its transport (asyncio's) swallows the TLS alert of a refused
handshake. And half of the faults are things that a correct HTTP server will not do: half an answer, a reset
after acting, one byte a second, half a server hello.
"""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509

from .circumstance import Circumstance, DoorName
from .clock import Clock
from .deliveries import Wire
from .fault_kinds import Disguised, Misconnection
from .fault_plan import FaultPlan, Occasion
from .gateway import PATH, Gateway, Outcome, Request, Visitor
from .http_conversation import HTTPConversation
from .journal import Entry, Journal
from .line import Line
from .server_tls import ServerTLS

_HANDSHAKE_SECONDS = 15.0  # Envoy's own limit for a transport socket to connect


class Door:
    """One of the two; `serve` is called with each accepted connection."""

    def __init__(
        self,
        name: DoorName,
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

    async def serve(self, line: Line) -> None:
        """A whole connection, from the ClientHello to its end."""
        self._journal.events[f"connections_{self._name}"] += 1
        circumstance = Circumstance(operation="connect", door=self._name, now=self._clock.now())
        occasion = self._plan.occasion(circumstance)
        context = self._tls.honest(self._name)
        if broken := occasion.take(Misconnection):
            self._record(occasion, outcome="misconnected")
            await broken.fault.act(line, context, broken.param)
            return
        if disguised := occasion.take(Disguised):
            context = disguised.fault.act(self._tls, self._name)
        if await self._handshake(line, context, occasion):
            await self._converse(line)
        await line.finish()

    async def _handshake(self, line: Line, context: ssl.SSLContext, occasion: Occasion) -> bool:
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await line.start_tls(context)
        except ssl.SSLEOFError:
            self._record(occasion, outcome="left-in-handshake")
            return False
        except ssl.SSLError as error:
            self._journal.events["handshakes_failed"] += 1
            self._record(occasion, outcome=_reason(error))
            return False
        if occasion.names:
            self._record(occasion, outcome="ok")
        return True

    async def _converse(self, line: Line) -> None:
        presented = line.peer_certificate
        certificate = x509.load_der_x509_certificate(presented) if presented else None
        visitor = Visitor(door=self._name, certificate=certificate)
        conversation = HTTPConversation(line, self._clock)
        while (request := await conversation.next_request()) is not None:
            outcome = await self._act(request, visitor)
            if not await _deliver(line, conversation, request, outcome):
                return

    async def _act(self, request: Request, visitor: Visitor) -> Outcome:
        if self._latency and request.path == PATH:
            await asyncio.sleep(self._latency)
        outcome = self._gateway.handle(request, visitor)
        if outcome.delay:
            await asyncio.sleep(outcome.delay)
        return outcome

    def _record(self, occasion: Occasion, *, outcome: str) -> None:
        self._journal.record(
            Entry(
                at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                door=self._name,
                operation="connect",
                outcome=outcome,
                faults=list(occasion.names),
            )
        )


async def _deliver(line: Line, conversation: HTTPConversation, request: Request, outcome: Outcome) -> bool:
    """Sends the answer, or does not; whether another request may come."""
    wire = conversation.render(outcome.answer, method=request.method) if outcome.answer else Wire()
    if outcome.deliver is not None:
        await outcome.deliver(line, wire)
        return False
    await line.send(wire.head + wire.body)
    return conversation.keeps_open()


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's word, and for certificates what was wrong with it."""
    detail = getattr(error, "verify_message", "")
    return f"{error.reason}: {detail}" if detail else str(error.reason)
