"""A real TLS server that says exactly what a test wrote down, and a tiny CONNECT proxy.

    tls = server_context(authority, "127.0.0.1", clients=client_authority)
    with ScriptedServer(tls, graphql("ok"), reset) as server:     # the last answer repeats
        ...  # server.url, server.requests, server.connections

An answer is the raw bytes of one, or a function that does with the connection what it likes, after
which the connection is closed. `greet` gets each connection before TLS, `silent` or `alert(42)` say.
Everything runs in threads of its own, so no event loop of a test is shared with it.
"""

import json
import socket
import ssl
import struct
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.authority import Authority, key_pem

DATE = "Tue, 24 Nov 2026 10:00:00 GMT"
_PATIENCE = 10.0  # of the server with a client; no test is meant to reach it

Handler = Callable[[socket.socket], None]
Answer = bytes | Handler


@dataclass(frozen=True)
class Request:
    """One HTTP request as it arrived; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    connection: int = 0
    certificate: bytes | None = field(default=None, repr=False)
    tls_version: str | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def reply(body: bytes = b"", *, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """A raw answer with `Date` and `Content-Length` unless `headers` has others."""
    fields = {"Date": DATE, "Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode("latin-1") + body


def graphql(result: object) -> bytes:
    return reply(json.dumps({"data": {"result": result}}).encode())


def server_context(
    authority: Authority,
    *hosts: str,
    clients: Authority | None = None,
    version: ssl.TLSVersion | None = None,
    **dates: Any,
) -> ssl.SSLContext:
    """TLS for these hosts; with `clients`, certificates by that authority are demanded (mTLS)."""
    certificate, key = authority.server(*hosts, **dates)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(certificate.public_bytes(Encoding.PEM) + key_pem(key))
        context.load_cert_chain(file.name)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class _Listener(ABC):
    """Accepts connections, one thread each, and knows which are still open."""

    def __init__(self) -> None:
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE)

    def idle(self, *, within: float = 2.0) -> bool:
        """Whether all connections are closed by the client, at once or soon."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, within)

    def _start(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(_PATIENCE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        # A duplicate, since TLS takes the connection over: to watch it and to end it from outside.
        with connection.dup() as handle, connection:
            self._note(handle, self._open.add)
            try:
                with suppress(OSError):
                    self._converse(connection, number)
            finally:
                self._note(handle, self._open.discard)

    def _note(self, handle: socket.socket, change: Callable[[socket.socket], None]) -> None:
        with self._changed:
            change(handle)
            self._changed.notify_all()

    @abstractmethod
    def _converse(self, connection: socket.socket, number: int) -> None:
        """Speak with one client until it or we have had enough."""


class ScriptedServer(_Listener):
    def __init__(
        self, tls: ssl.SSLContext | None, *answers: Answer, greet: Handler | None = None, path: str = "/g"
    ) -> None:
        super().__init__()
        self.tls = tls
        self.answers = list(answers)
        self.requests: list[Request] = []
        self._greet = greet
        self._path = path

    @property
    def url(self) -> str:
        return self.url_of("127.0.0.1")

    def url_of(self, host: str) -> str:
        return f"https://{host}:{self.port}{self._path}"

    def _converse(self, connection: socket.socket, number: int) -> None:
        if self._greet:
            self._greet(connection)
        if self.tls:
            secured = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            with secured:
                if _shake_hands(secured):
                    self._answer_all(secured, number)

    def _answer_all(self, secured: ssl.SSLSocket, number: int) -> None:
        while request := _read_request(secured, number):
            self.requests.append(request)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if not isinstance(answer, bytes):
                answer(secured)
                return
            secured.sendall(answer)


def _shake_hands(secured: ssl.SSLSocket) -> bool:
    try:
        secured.do_handshake()
    except ssl.SSLError:
        # Closing with something unread would reset the connection, and the alert be lost with it.
        plain = socket.socket(fileno=secured.detach())
        plain.settimeout(_PATIENCE)
        with plain:
            plain.shutdown(socket.SHUT_WR)
            silent(plain)
        return False
    return True


def _read_request(connection: socket.socket, number: int) -> Request | None:
    head = _read_head(connection)
    if not head:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ")
    body = b""
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    certificate, version = None, None
    if isinstance(connection, ssl.SSLSocket):
        certificate, version = connection.getpeercert(binary_form=True), connection.version()
    return Request(method, target, headers, body, number, certificate, version)


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head[:-4]


def silent(connection: socket.socket) -> None:
    """Say nothing until the client leaves."""
    while connection.recv(65536):
        pass


def hang_up(connection: socket.socket) -> None:
    """Close, without an answer."""


def reset(connection: socket.socket) -> None:
    """Close so that the client sees `connection reset`."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless(connection: socket.socket) -> None:
    """A body that never ends, as fast as it goes."""
    connection.sendall(reply(headers={"Content-Length": "", "Transfer-Encoding": "chunked"}))
    while True:
        connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def dripping(connection: socket.socket) -> None:
    """A body that never ends, a byte every 20 ms: no single read takes long."""
    connection.sendall(reply(headers={"Content-Length": "100000"}))
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def cut_short(connection: socket.socket) -> None:
    """Close in the middle of a body."""
    connection.sendall(reply(b"{", headers={"Content-Length": "100"}))


def alert(code: int) -> Handler:
    """A fatal TLS alert instead of a ServerHello."""

    def greet(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(bytes([0x15, 3, 3, 0, 2, 2, code]))
        silent(connection)

    return greet


class ConnectProxy(_Listener):
    """Tunnels wherever it is asked to, or refuses with `refusal`, a raw answer."""

    def __init__(self, *, refusal: bytes | None = None) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self._refusal = refusal

    def _converse(self, connection: socket.socket, number: int) -> None:
        if request := _read_request(connection, number):
            self.requests.append(request)
            if self._refusal is None:
                self._tunnel(connection, request.target)
            else:
                connection.sendall(self._refusal)
                silent(connection)

    def _tunnel(self, connection: socket.socket, target: str) -> None:
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), _PATIENCE) as upstream:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = self._start(_copy, upstream, connection)
            _copy(connection, upstream)
            back.join(_PATIENCE)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class SilentListener:
    """Takes connections and says nothing; if `full`, not even that: what is sent to it is dropped."""

    def __init__(self, *, full: bool = False) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=0 if full else 10)
        self.port: int = self._socket.getsockname()[1]
        self._fillers = [socket.socket() for _ in range(3 if full else 0)]

    def __enter__(self) -> "SilentListener":
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
        return self

    def __exit__(self, *_: object) -> None:
        for each in (*self._fillers, self._socket):
            each.close()
