"""One connection: uvicorn's, with bounds on what a client can send and on how long it may take.

The parser gets whole heads, and a body as it comes. So the size of a head is known before anything is made
of it, and requests that are sent ahead stay bytes until their turn comes. Requests whose answer is ready as
bytes are answered right here, without a task and what it needs.
"""

import asyncio
import logging
import os
import re
import socket
import struct
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..core.catalogue import Event
from .limits import AHEAD, FIELDS, ORDINARY, Limits, Listener, Memory, ReadyApp
from .paths import TARGETS
from .problems import Answer, problem, render_headers

_log = logging.getLogger("compass_sidecar.api")
_END = b"\r\n\r\n"  # of a head, and of a body in chunks: the parser knows no other
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
# Bytes around a body: the largest body that is read, sent byte by byte in chunks, has 6 for each.
_FRAMING = 512 * 1024
_UNREAD = 128 * 1024  # bytes of a request that the application does not take yet
# Measured: the memory of a request that waits, without its head, and that of a field, without its bytes.
_REQUEST, _FIELD = 2_400, 150
_BEGINNINGS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n"  # of a request, and what may stand before it
_TURN = 16  # heads and pieces of bodies that are parsed before other connections have their turn


class _UpgradeOffered(Exception):
    """The parser takes what follows this head for another protocol."""


class Connection(HttpToolsProtocol):
    """uvicorn is told that `limits.send` is its keep-alive time; the rest of `limits.idle` is added here."""

    app: ReadyApp  # uvicorn's words for these say less
    scope: Any
    parser: Any

    def __init__(self, *args: Any, listener: Listener, limits: Limits, memory: Memory, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = listener.app
        self._listener = listener
        self._limits = limits
        self._memory = memory
        self._input = b""  # not parsed yet
        self._in_head, self._complete = False, True
        self._head = 0  # bytes
        self._body: int | None = 0  # bytes still to come; None for a body in chunks
        self._framing = 0  # bytes around the chunks so far
        self._unanswered: list[int] = []  # the sizes of requests, the oldest first
        self._running: Any = None  # the oldest one, on which the application works
        self._ready: Answer | None = None
        self._last: Answer | None = None  # sent after the answers to earlier requests; it ends the connection
        self._ended = self._left = self._holds = False
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    # --- beginning and end ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=ORDINARY)
        if self.server is not None and self.server[1] is None:
            self.app_state = {**self.app_state, "peer": _peer(transport)}
        if self._listener.admit(self):
            self._set_deadline(self._limits.request)
        else:
            self._refuse("too-many-connections", "All connections are in use; try again later.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        if self._stuck is not None:
            self._stuck.cancel()
        self._drop_requests()
        self._listener.release(self)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open: the client may have closed its sending half only."""
        self._left = bool(self._unanswered or self._is_behind()) and not self._ended
        if self._left:
            self._cancel_deadline()
            self._set_deadline(self._limits.leaving)
        return self._left

    def _drop_requests(self) -> None:
        """Tell the request that runs, and forget everything that came."""
        self.pipeline.clear()
        self._unanswered.clear()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        self._running = self.cycle = self.scope = self.parser = None  # type: ignore[assignment]
        self.headers, self._input = [], b""
        self._memory.hold(self, 0)

    def _close(self) -> None:
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        """Closing waits until the client has read everything; this does not."""
        if self._stuck is None:
            self._stuck = self.loop.call_later(self._limits.send, self.abort)

    def abort(self) -> None:
        self.transport.abort()

    # --- time ----------------------------------------------------------------------------------------

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(seconds, self._give_up)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        begun = self._input.strip() if self._complete else self._unanswered
        if begun and not (self._ended or self._left):
            self._refuse("request-timeout", "The request took too long to arrive.")
        else:
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        # An answer that nobody has read by now is a blocked send too.
        if self.transport.get_write_buffer_size():
            self.abort()
        else:
            rest = self._limits.idle - self._limits.send
            self.timeout_keep_alive_task = self.loop.call_later(rest, self._close)

    # --- what comes ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._last is None:
            self._unset_keepalive_if_required()
            self._input = self._input + data if self._input else data
            self._parse()

    def _parse(self) -> None:
        """Parse as much of what has come as one turn allows."""
        if self.parser is None:
            return  # the connection was lost before this turn
        data, start = self._input, 0
        for _ in range(_TURN):
            end = self._find_end(data, start)
            if end <= start or self._last is not None:
                break
            self._feed(data[start:end])
            start = end
            if start == len(data):
                break
        if self._last is None:
            self._input = data[start:]
            self._settle()

    def _find_end(self, data: bytes, start: int) -> int:
        """The end of the next piece for the parser; `start` or less if there is none yet."""
        if not self._complete:
            return self._find_end_of_body(data, start)
        if start == len(data) or len(self._unanswered) > AHEAD:
            return start
        found = data.find(_END, start)
        end = found + len(_END) if found >= 0 else len(data)
        self._head = end - start
        # The shortest line has two bytes.
        if self._head > FIELDS and (
            self._head > self._listener.head or data.count(b"\n", start, end) > FIELDS + 2
        ):
            text = f"At most {self._listener.head} bytes of a head and {FIELDS} fields are read."
            self._refuse("headers-too-large", text)
        # What does not begin like a request will not become one.
        return end if found >= 0 or data[start] not in _BEGINNINGS else start

    def _find_end_of_body(self, data: bytes, start: int) -> int:
        if self._body is not None:
            end = min(start + self._body, len(data))
            self._body -= end - start
            return end
        found = data.find(_END, start)
        # What may be the beginning of the end stays, so that nothing of the next head is in this piece.
        end = found + len(_END) if found >= 0 else max(len(data) - len(_END) + 1, start)
        self._framing += end - start
        if self._framing > _FRAMING:
            self._refuse("headers-too-large", f"At most {_FRAMING} bytes around a body are read.")
        return end

    def _feed(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserError as error:
            offer = isinstance(error.__context__, _UpgradeOffered) and _UPGRADE.search(piece)
            if not offer:
                self._refuse("bad-request", "This is not HTTP/1.1.")
                return
            # It need not be taken up. The parser cannot be told so: this one has not seen the offer.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._feed(_UPGRADE.sub(b"\r\nx-upgrade:", piece))

    def on_message_begin(self) -> None:
        self._in_head, self._complete = True, False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after a chunked body would change the headers behind the guard's back.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            raise _UpgradeOffered
        path = TARGETS.get(self.url)
        if path is not None and self._can_answer_at_once():
            self.scope |= {"method": self.parser.get_method().decode("ascii"), "path": path}
            self._ready = self.app.ready(self.scope)
        if self._ready is None:
            super().on_headers_complete()
            self._unanswered.append(_REQUEST + self._head + _FIELD * len(self.headers))
            lengths = (value for name, value in self.headers if name == b"content-length")
            self._body, self._framing = next(map(int, lengths), None), 0
        self._in_head = False

    def _can_answer_at_once(self) -> bool:
        """Everything unusual goes uvicorn's way: clients that do not read, or want to leave."""
        return (
            not self._unanswered
            and not self.flow.write_paused
            and self.parser.should_keep_alive()
            and self.parser.get_http_version() == "1.1"
        )

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            self._framing -= len(body)
        if not self.cycle.response_complete:
            self._unanswered[-1] += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._complete, self._framing = True, 0
        if self._ready is None:
            super().on_message_complete()
            return
        first = render_headers(self.server_state.default_headers)
        self.transport.write(self._ready.wire(first, self.scope["method"]))
        self._ready = None

    # --- what follows --------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        self._running.body = bytearray()  # the application may have answered without reading it
        self._running = None
        del self._unanswered[0]
        super().on_response_complete()  # which starts the next one
        if self.transport.is_closing():
            self._abort_later()
        elif self._last is None:
            self._settle()
        elif not self._unanswered:
            self._end()

    def _is_behind(self) -> bool:
        """Whether what is not parsed waits for us, and not for the client."""
        return self._complete and (
            (bool(self._input) and len(self._unanswered) > AHEAD) or _END in self._input
        )

    def _settle(self) -> None:
        """What follows from what is parsed and answered by now."""
        if self._complete and not self._input and not self._unanswered:
            self._rest()
            return
        self._unset_keepalive_if_required()
        behind = self._is_behind()
        if behind or (self._unanswered and self._unanswered[-1] > _UNREAD):
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()
        if behind and len(self._unanswered) <= AHEAD:
            self.loop.call_soon(self._parse)
        self._await_client(not behind and (bool(self._input) or not self._complete))
        self._listener.work(self)
        self._hold()

    def _await_client(self, awaited: bool) -> None:
        if self._left:
            return
        if awaited:
            self._set_deadline(self._limits.request)
        else:
            self._cancel_deadline()

    def _rest(self) -> None:
        """Nothing is under way: keep nothing of the last request, whose head may be large."""
        self.cycle = self.scope = None  # type: ignore[assignment]
        self.headers, self.url = [], b""
        if self._holds:
            self._hold()
        if self._left:
            self._close()
            return
        if self._deadline is not None:
            self._cancel_deadline()
        self._listener.rest(self)
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self._limits.send, self.timeout_keep_alive_handler
            )

    def _hold(self) -> None:
        """Say how much this client makes us hold."""
        unread = self.transport.get_write_buffer_size()
        size = len(self._input) + self._framing + sum(self._unanswered) + unread
        self._holds = size > 0
        self._memory.hold(self, size)

    def end_slow_request(self) -> None:
        started = self._running is not None and self._running.response_started
        if started or self._ended or self.transport.get_write_buffer_size():
            self.abort()
            return
        if self._running is not None:
            # The application ends it later: much more can come before it does.
            self._running.body = bytearray()
            self._running.scope["headers"].clear()
        self._answer_last("request-timeout", "The memory that this request takes is needed.")
        self._end()

    def _refuse(self, code: str, detail: str) -> None:
        """What came cannot be read: this is the last answer, after those to earlier requests."""
        if self._last is not None or self.transport.is_closing():
            return
        self._input = b""
        self._answer_last(code, detail)
        in_body = bool(self._unanswered) and not (self._complete or self._in_head)
        earlier = len(self._unanswered) - in_body
        if in_body and (earlier or self._running.response_started):
            self.abort()  # nothing can be put before another answer, or into it
        elif not earlier:
            self._end()

    def _answer_last(self, code: str, detail: str) -> None:
        _log.warning(Event.REQUESTS_REFUSED, extra={"code": code, "count": 1})
        self._last = problem(code, detail)

    def _end(self) -> None:
        """Send the last answer, and read no more."""
        assert self._last is not None  # noqa: S101 - both callers have set it
        first = render_headers([*self.server_state.default_headers, (b"connection", b"close")])
        self._drop_requests()
        self._ended = True
        self._listener.refuse(self)
        self._unset_keepalive_if_required()
        self._cancel_deadline()
        self._set_deadline(self._limits.request)
        self.transport.write(self._last.wire(first, "GET"))
        # Closing now, with unread bytes on their way, would reset the connection under the answer.
        self.transport.write_eof()
        self.flow.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_later()
        self._hold()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._hold()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def _peer(transport: asyncio.Transport) -> str:
    """Who is at the other end of a Unix socket, as the kernel says."""
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", credentials)
    return f"pid {pid}, uid {uid}, gid {gid}"
