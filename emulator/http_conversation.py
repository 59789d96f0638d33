"""HTTP/1.1 on one line: requests in through h11, answers out as bytes that we hold in our hands.

An answer leaves in one write: two small ones meet Nagle and delayed acknowledgements, and cost 44 ms.
"""

import asyncio
from http import HTTPStatus

import h11

from . import answers
from .answers import Answer
from .clock import Clock, http_date
from .deliveries import Wire
from .gateway import Request
from .line import Line

BODY_LIMIT = 2_097_152  # the Connector's own; gateway and hydrator allow 5,097,152
_KNOWN = {status.value for status in HTTPStatus}
_HEAD_LIMIT = 61_440  # Envoy's 60 KiB
_CHUNKED_FROM = 2_049  # Go's server buffers 2 KiB, and chunks whatever is larger
_REQUEST_SECONDS = 30.0  # for one whole request: a silent client does not hold a place for ever
_IDLE_SECONDS = 120.0  # between requests; longer than the five seconds after which httpx lets go


class HTTPConversation:
    """Requests and answers in turn."""

    def __init__(self, line: Line, clock: Clock) -> None:
        self._line = line
        self._clock = clock
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)

    async def next_request(self) -> Request | None:
        """The next request, None when there is none to come; bad ones are answered here."""
        try:
            if not await self._wait():
                return None
            async with asyncio.timeout(_REQUEST_SECONDS):
                return await self._request()
        except h11.RemoteProtocolError as error:
            await self._refuse(
                answers.HEAD_TOO_LARGE if error.error_status_hint == 431 else answers.BAD_REQUEST
            )
        except TimeoutError:
            pass
        return None

    def render(self, answer: Answer, *, method: str) -> Wire:
        """The bytes of an answer; afterwards `keeps_open` says whether another request may come."""
        headers = self._headers(answer)
        head = (
            self._h11.send(
                h11.Response(status_code=answer.status, headers=headers, reason=_reason(answer.status))
            )
            or b""
        )
        body = b""
        if answer.body and method != "HEAD":
            body = self._h11.send(h11.Data(data=answer.body)) or b""
        body += self._h11.send(h11.EndOfMessage()) or b""
        return Wire(head, body)

    def keeps_open(self) -> bool:
        """Ready for another request on the same connection."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def _wait(self) -> bool:
        """Waits for the first byte of a request."""
        if self._h11.trailing_data[0]:
            return True
        async with asyncio.timeout(_IDLE_SECONDS):
            data = await self._line.receive()
        self._h11.receive_data(data)
        return bool(data)

    async def _request(self) -> Request | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = await self._event()
            if isinstance(event, h11.Request):
                head = event
                if self._h11.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._line.send(self._h11.send(go_on) or b"")
            elif isinstance(event, h11.Data):
                body += event.data
                if head is not None and len(body) > BODY_LIMIT:
                    return _as_request(head, b"", too_large=True)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _as_request(head, bytes(body), too_large=False)
            else:
                return None

    async def _event(self) -> object:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._h11.receive_data(await self._line.receive())

    async def _refuse(self, answer: Answer) -> None:
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            wire = self.render(answer.with_header("Connection", "close"), method="GET")
            await self._line.send(wire.head + wire.body)

    def _headers(self, answer: Answer) -> list[tuple[str, str]]:
        headers = [("content-type", answer.content_type)] if answer.content_type else []
        headers += [(name.lower(), value) for name, value in answer.headers]
        if not any(name == "date" for name, _ in headers):
            headers.append(("date", http_date(self._clock.now())))
        headers.append(("server", "istio-envoy"))
        if len(answer.body) < _CHUNKED_FROM:
            headers.append(("content-length", str(len(answer.body))))
        return [(name, value) for name, value in headers if value or name != "date"]


def _reason(status: int) -> str:
    return HTTPStatus(status).phrase if status in _KNOWN else "Unknown"


def _as_request(head: h11.Request, body: bytes, *, too_large: bool) -> Request:
    headers: dict[str, str] = {}
    for name, value in head.headers:
        headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
    return Request(
        method=head.method.decode("ascii"),
        target=head.target.decode("latin-1"),
        headers=headers,
        body=body,
        too_large=too_large,
    )
