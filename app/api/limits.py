"""How much clients may take: time, connections of a listener, and memory of all connections together."""

import socket
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from .problems import Answer

FIELDS = 100  # of one head: fields take far more memory than their bytes
# Requests that wait behind the one that is being answered; more stay unparsed.
AHEAD = 8
# Bytes of unfinished, waiting and unread messages. With 2,000 connections, 1,000 of which wait for a
# certificate, the process stays below 160 MiB.
HELD = 24 * 1024 * 1024
# What an ordinary request takes. A client that makes us hold no more is never ended because of others.
ORDINARY = 4 * 1024
_UNREAD_REFUSALS = 100  # connections that were refused and may still read why


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: for one whole request, in which a client must read on, and between two requests.

    `leaving` is the time for answers to a client that sends no more: whether it still reads cannot be seen.
    """

    request: float = 10
    send: float = 15
    idle: float = 75
    leaving: float = 2


@dataclass(frozen=True, slots=True)
class Share:
    """What the clients of one listener get: connections, and bytes of a request's head."""

    connections: int
    head: int


API_SHARE = Share(2_000, 32 * 1024)
HEALTH_SHARE = Share(100, 16 * 1024)


class ReadyApp(Protocol):
    """An ASGI application that has some answers ready."""

    def ready(self, scope: Scope) -> Answer | None:
        """The answer to this request; None if the application has to be called for it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Client(Protocol):
    """A connection, as far as limits are concerned."""

    def abort(self) -> None:
        """Close it now."""

    def end_slow_request(self) -> None:
        """Release what it holds; the client is answered 408 if it is still possible."""


class Listener:
    """Sockets of one purpose, what answers there, and the clients that are connected.

    Where all connections are in use, the one that has been idle for longest makes longpoll for the next.
    """

    def __init__(self, name: str, app: ReadyApp, sockets: Sequence[socket.socket], share: Share) -> None:
        self.name = name
        self.app = app
        self.sockets = sockets
        self.head = share.head
        self.most = share.connections
        self._open: set[Client] = set()
        self._idle: OrderedDict[Client, None] = OrderedDict()
        self._refused: OrderedDict[Client, None] = OrderedDict()

    @property
    def connections(self) -> int:
        return len(self._open)

    def admit(self, client: Client) -> bool:
        """Count it, as an idle one. False if there is no place, and no idle client to take it from."""
        if len(self._open) >= self.most:
            if not self._idle:
                return False
            longest = next(iter(self._idle))
            self.release(longest)
            longest.abort()
        self._open.add(client)
        self._idle[client] = None
        return True

    def work(self, client: Client) -> None:
        """It has begun a request."""
        self._idle.pop(client, None)

    def rest(self, client: Client) -> None:
        """All its requests are answered."""
        try:
            self._idle.move_to_end(client)
        except KeyError:
            self._idle[client] = None

    def refuse(self, client: Client) -> None:
        """It leaves its place, and may read its last answer."""
        self.release(client)
        self._refused[client] = None
        if len(self._refused) > _UNREAD_REFUSALS:
            self._refused.popitem(last=False)[0].abort()

    def release(self, client: Client) -> None:
        """It is gone."""
        self._open.discard(client)
        self._idle.pop(client, None)
        self._refused.pop(client, None)


class Memory:
    """What the clients of all listeners make us hold, in bytes.

    Beyond `most` the client that has held more than an ordinary request for longest is ended.
    """

    def __init__(self, most: int = HELD) -> None:
        self._most = most
        self._held: dict[Client, int] = {}  # in the order in which they began
        self._total = 0

    def hold(self, client: Client, size: int) -> None:
        """`client` holds `size` bytes now, in all."""
        if size <= ORDINARY:
            self._total -= self._held.pop(client, 0)
            return
        self._total += size - self._held.get(client, 0)
        self._held[client] = size
        while self._total > self._most:
            slowest = next(iter(self._held))
            self._total -= self._held.pop(slowest)
            slowest.end_slow_request()
