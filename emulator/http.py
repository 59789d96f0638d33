"""HTTP/1.1: requests in through h11, answers out as bytes; and the answers that the real system gives.

An answer is named after the part of the system that gives it, because that is what a reader of a log has
to find out. It leaves in one write: two small ones meet Nagle and delayed acknowledgements, and cost 44
ms.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import h11

from .clock import Clock, http_date
from .connection import Connection, Wire

JSON = "application/json"
JSON_BY_DEFAULT = "application/json;charset=UTF-8"  # the Connector's own, where gqlgen sets none
TEXT = "text/plain"
BODY_LIMIT = 2_097_152  # the Connector's own; gateway and hydrator allow 5,097,152
_HEAD_LIMIT = 61_440  # Envoy's 60 KiB
_CHUNKED_FROM = 2_049  # Go's server buffers 2 KiB, and chunks whatever is larger
_REQUEST_SECONDS = 30.0  # for one whole request: a silent client does not hold a connection without end
_IDLE_SECONDS = 120.0  # between requests; longer than the five seconds after which httpx lets go


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body, and headers besides `Date`, `Server` and the length."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def with_header(self, name: str, value: str) -> "Answer":
        """The same with one header more."""
        return replace(self, headers=(*self.headers, (name, value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Header names are lower-case; the body is empty if it was too large to keep."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)
    too_large: bool = False

    @property
    def path(self) -> str:
        """The path without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The first value of each query parameter."""
        pairs = parse_qsl(self.target.partition("?")[2], keep_blank_values=True)
        return dict(reversed(pairs))


def as_go_json(content: Any) -> bytes:
    """Compact, UTF-8, and with `<`, `>` and `&` escaped, as Go's encoder writes.

    A byte that was not UTF-8 (a lone surrogate here) becomes an escaped U+FFFD.
    """
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return re.sub("[\ud800-\udfff]", r"\\ufffd", text).encode() + b"\n"


def graphql(data: Any) -> Answer:
    """A success."""
    return Answer(200, as_go_json({"data": data}).rstrip(), JSON)


def graphql_errors(errors: Sequence[dict[str, Any]], *, status: int = 200) -> Answer:
    """gqlgen's shape: errors before data, data null."""
    return Answer(status, as_go_json({"errors": list(errors), "data": None}).rstrip(), JSON)


def transport_error(status: int, message: str) -> Answer:
    """gqlgen before it has an operation: a message and nothing else."""
    return graphql_errors([{"message": message}], status=status)


def text(status: int, body: str) -> Answer:
    """Plain text, as Envoy and Go's own server answer."""
    return Answer(status, body.encode(), TEXT)


def oathkeeper(status: int, reason: str, message: str) -> Answer:
    """Oathkeeper's singular `error` object."""
    error = {"code": status, "status": reason, "message": message}
    return Answer(status, as_go_json({"error": error}), JSON)


def rate_limited(retry_after: str = "") -> Answer:
    """Envoy's local rate limit; without a parameter it names no time, as the chart's does."""
    answer = text(429, "local_rate_limited").with_header("x-local-rate-limit", "true")
    return answer.with_header("Retry-After", retry_after) if retry_after else answer


def busy(retry_after: str) -> Answer:
    """A 503 with Retry-After."""
    return text(503, "upstream connect error or disconnect/reset before headers").with_header(
        "Retry-After", retry_after
    )


def busy_until(moment: datetime) -> Answer:
    """The same with a date."""
    return busy(http_date(moment))


def html(status: int) -> Answer:
    """The answer of a captive portal or a corporate proxy."""
    page = f"<!DOCTYPE html><html><title>{status}</title><body><h1>Please sign in</h1></body></html>"
    return Answer(status, page.encode(), "text/html; charset=utf-8")


def redirect(location: str) -> Answer:
    """A portal again; a client must not take its certificate or token there."""
    return text(307, "Temporary Redirect\n").with_header("Location", location)


HEALTHY = text(200, "ok")
UNAUTHENTICATED = Answer(400, b"", JSON_BY_DEFAULT)  # the standard one: ambiguous and empty
TRANSPORT_NOT_SUPPORTED = replace(
    transport_error(400, "transport not supported"), content_type=JSON_BY_DEFAULT
)
METHODS = Answer(200, b"", JSON_BY_DEFAULT).with_header("Allow", "OPTIONS, GET, POST")
NO_HEAD = Answer(405, b"", JSON_BY_DEFAULT)
PERSISTED_QUERY_NOT_FOUND = graphql_errors(
    [{"message": "PersistedQueryNotFound", "extensions": {"code": "PERSISTED_QUERY_NOT_FOUND"}}]
)
MUTATION_BY_GET = transport_error(406, "GET requests only allow query operations")
PARSE_FAILED = graphql_errors(
    [{"message": "Unexpected <Invalid>", "extensions": {"code": "GRAPHQL_PARSE_FAILED"}}], status=422
)
METHOD_NOT_ALLOWED = Answer(405)
RBAC_DENIED = text(403, "RBAC: access denied")
NO_RULE = oathkeeper(404, "Not Found", "Requested url does not match any rules")
NOT_FOUND = text(404, "404 page not found\n")
TOO_LARGE = text(413, "Payload Too Large")
GAVE_UP = oathkeeper(
    500, "Internal Server Error", "An internal server error occurred, please contact the system administrator"
)
BAD_GATEWAY = Answer(502)
TIMED_OUT = Answer(503, b'{"Message":"operation has timed out"}', JSON)
NO_UPSTREAM = text(503, "no healthy upstream")
CONNECT_ERROR = text(
    503, "upstream connect error or disconnect/reset before headers. reset reason: connection failure"
)
UPSTREAM_TIMEOUT = text(504, "upstream request timeout")
HEAD_TOO_LARGE = text(431, "Request Header Fields Too Large")
BAD_REQUEST = text(400, "Bad Request")


_KNOWN = {status.value for status in HTTPStatus}


class HTTPConversation:
    """Requests and answers in turn."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
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
            await self._refuse(HEAD_TOO_LARGE if error.error_status_hint == 431 else BAD_REQUEST)
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
            data = await self._connection.receive()
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
                    await self._connection.send(self._h11.send(go_on) or b"")
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
            self._h11.receive_data(await self._connection.receive())

    async def _refuse(self, answer: Answer) -> None:
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            wire = self.render(answer.with_header("Connection", "close"), method="GET")
            await self._connection.send(wire.head + wire.body)

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
