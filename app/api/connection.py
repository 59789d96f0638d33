"""One connection: uvicorn's, with an end to everything that a slow or silent client can drag out.

Requests whose answer is ready as bytes are answered right here, without a task and what it needs.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .answers import Answer, render_headers
from .fast import TARGETS
from .problems import problem

_log = logging.getLogger("compass_sidecar.api")
HEAD_LIMIT = 64 * 1024  # bytes of request line and headers
# Bytes around a body: the largest body that is read, sent byte by byte in chunks, has 6 for each.
_FRAMING_LIMIT = 8 * HEAD_LIMIT
# Requests that wait behind one: with a few we read on, to see whether the client leaves; more than the most
# come in one read only to hurt, and take a kilobyte each.
_FEW_WAITING, _MOST_WAITING = 16, 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: for one whole request, in which a client must read on, and between two requests."""

    request: float = 10
    send: float = 15
    idle: float = 75


class ReadyApp(Protocol):
    """An ASGI application that has some answers ready."""

    def ready(self, scope: Scope) -> Answer | None:
        """The answer to this request; None if the application has to be called for it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Connection(HttpToolsProtocol):
    """uvicorn is told that `limits.send` is its keep-alive time; the rest of `limits.idle` is added here."""

    app: ReadyApp  # uvicorn's words for these say less
    scope: Any

    def __init__(self, *args: Any, limits: Limits, health: "HealthListener", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._health = health
        self._complete = False  # all of the request has come, and nothing after it
        self._in_head = False
        self._too_large = self._refused = False
        self._chunk = self._head = self._framing = 0  # bytes
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._answer: Answer | None = None
        self._running: Any = None  # the request that the application is working on

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = self._health.app_for(self.server, self.app)
        if self.server is not None and self.server[1] is None:
            self.app_state = {**self.app_state, "peer": _peer(transport)}
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._stuck):
            if timer is not None:
                timer.cancel()
        self._end_requests()
        super().connection_lost(exc)

    def _end_requests(self) -> None:
        """Tell the request that runs, and forget those behind it: uvicorn knows of the last one only."""
        self.pipeline.clear()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._chunk, self._complete = len(data), False
        if self._in_head:
            self._head += self._chunk
        else:
            self._framing += self._chunk
        super().data_received(data)
        if self._is_framing_too_large():
            self._too_large = True  # even if it is one field, of which the parser has told nothing yet
            self.send_400_response("")
        if not self._complete:
            self._expect_request()
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self.timeout_keep_alive_task is None and self._is_free():
            # The answer came before the end of its request.
            self._idle(self._limits.idle)

    def _is_free(self) -> bool:
        """Whether no request waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.request, self._close)

    def on_message_begin(self) -> None:
        self._in_head, self._head, self._complete = True, 0, False
        # An answer that was ready has set it, in the same read.
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after a chunked body would change the headers behind the guard's back.
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._framing -= len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        if self._is_head_too_large():
            raise ValueError("the head is too large")
        self._in_head, self._framing = False, 0
        path = TARGETS.get(self.url)
        if path is not None and self._can_answer_at_once():
            self.scope |= {"method": self.parser.get_method().decode("ascii"), "path": path}
            self._answer = self.app.ready(self.scope)
            if self._answer is not None:
                return
        super().on_headers_complete()
        if len(self.pipeline) > _MOST_WAITING:
            self.transport.abort()
            raise ValueError("too many requests at once")
        if 0 < len(self.pipeline) <= _FEW_WAITING:
            self.flow.resume_reading()

    def _can_answer_at_once(self) -> bool:
        """Everything unusual goes uvicorn's way: clients that do not read, or want to leave, or to change."""
        parser = self.parser
        return (
            self._is_free()
            and not self.flow.write_paused
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and parser.get_http_version() == "1.1"
        )

    def _is_framing_too_large(self) -> bool:
        if self._in_head:
            return self._head > HEAD_LIMIT or self._is_head_too_large()
        return self._framing > _FRAMING_LIMIT

    def _is_head_too_large(self) -> bool:
        # What came in one small piece is short enough; anything else is counted.
        if self._head + self._chunk > HEAD_LIMIT:
            parsed = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            self._too_large = parsed > HEAD_LIMIT
        return self._too_large

    def on_message_complete(self) -> None:
        self._complete = True
        if self._answer is None:
            super().on_message_complete()
            return
        first = render_headers(self.server_state.default_headers)
        self.transport.write(self._answer.wire(first, self.scope["method"]))
        self._answer = None
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, ours are better
        """The last answer on this connection: what came is not HTTP, or too much of it."""
        if self._refused or self.transport.is_closing():
            return
        code = "headers-too-large" if self._too_large else "bad-request"
        _log.warning("requests-refused", extra={"code": code, "count": 1})
        busy = self._running if self._running is not None and not self._running.response_complete else None
        if busy is not None and (busy.response_started or busy is not self.cycle or not busy.more_body):
            self.transport.abort()  # nothing can be put before another answer, or into it
            return
        limit = f"At most {HEAD_LIMIT} bytes are read."
        answer = problem(code, limit if self._too_large else "This is not HTTP/1.1.")
        first = render_headers([*self.server_state.default_headers, (b"connection", b"close")])
        self.transport.write(answer.wire(first, "GET"))
        # Closing now, with unread bytes on their way, would reset the connection under the answer.
        self.transport.write_eof()
        self._refused = True
        self._expect_request()
        self._end_requests()

    def _unsupported_upgrade_warning(self) -> None:
        """An offer of HTTP/2 or WebSocket need not be taken up, nor be talked about."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    def timeout_keep_alive_handler(self) -> None:
        # An answer that nobody has read by now is a blocked send too.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._idle(self._limits.idle - self._limits.send)

    def _idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        """Closing waits until the client has read everything; this does not."""
        if self._stuck is None:
            self._stuck = self.loop.call_later(self._limits.send, self.transport.abort)


def _peer(transport: asyncio.Transport) -> str:
    """Who is at the other end of a Unix socket, as the kernel says."""
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", credentials)
    return f"pid {pid}, uid {uid}, gid {gid}"


class HealthListener:
    """Which connections belong to the second listener."""

    def __init__(self, app: ReadyApp | None, sockets: Sequence[socket.socket]) -> None:
        self._app = app
        self._ends = {sock.getsockname()[:2] for sock in sockets}

    def app_for(self, server: tuple[str, int | None] | None, otherwise: Any) -> Any:
        if self._app is None or server is None:
            return otherwise
        # Of the same family: the API may have this port in the other one.
        every = "::" if ":" in server[0] else "0.0.0.0"  # noqa: S104 - compared, not bound
        ends = {server, (every, server[1])}
        return self._app if ends & self._ends else otherwise
