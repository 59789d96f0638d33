"""A steady load: `python -m bench.load PORT SECONDS [RATE]` prints latencies as JSON.

Open loop: requests go out by the clock, whatever becomes of the earlier ones; one that finds no free
connection waits for it, and its waiting counts. How late this process itself was is told apart.
"""

import asyncio
import gc
import json
import re
import sys
import time
from collections import deque
from typing import Any

_CONNECTIONS = 32
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
PATHS = ("/livez", "/certificate")


class Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._buffer = b""
        self._asked: tuple[str, float] | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        self._load.lost += self._asked is not None

    def ask(self, path: str, since: float) -> None:
        self._asked = path, since
        self._transport.write(self._load.requests[path])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        length = _LENGTH.search(self._buffer, 0, end + 2) if end >= 0 else None
        if length is None or len(self._buffer) < end + 4 + int(length[1]):
            return
        assert self._buffer.startswith(b"HTTP/1.1 200"), self._buffer[:100]
        assert self._asked is not None
        path, since = self._asked
        self._asked, self._buffer = None, b""
        self._load.answered(self, path, since)


class Load:
    """The requests that wait, the connections that are free, and the times."""

    def __init__(self, port: int) -> None:
        self.requests = {
            path: f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() for path in PATHS
        }
        self.lost = 0
        self.times: dict[str, list[float]] = {path: [] for path in PATHS}
        self.late: list[float] = []
        self._port = port
        self._free: deque[Line] = deque()
        self._waiting: deque[tuple[str, float]] = deque()

    async def run(self, seconds: float, rate: float) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_CONNECTIONS):
            _, line = await loop.create_connection(lambda: Line(self), "127.0.0.1", self._port)
            self._free.append(line)
        start = time.perf_counter()
        for count in range(int(seconds * rate)):
            due = start + count / rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            now = time.perf_counter()
            self.late.append(now - due)
            self._send(PATHS[count % len(PATHS)], now)
        await asyncio.sleep(1)

    def _send(self, path: str, since: float) -> None:
        if self._free:
            self._free.popleft().ask(path, since)
        else:
            self._waiting.append((path, since))

    def answered(self, line: Line, path: str, since: float) -> None:
        self.times[path].append(time.perf_counter() - since)
        if self._waiting:
            line.ask(*self._waiting.popleft())
        else:
            self._free.append(line)


def summary(values: list[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(values)
    at = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    figures = {name: 1000 * ordered[int(share * len(ordered))] for name, share in at.items()}
    return {**figures, "max": 1000 * ordered[-1], "count": len(ordered)}


def main() -> None:
    port, seconds, *rate = sys.argv[1:]
    gc.disable()
    load = Load(int(port))
    asyncio.run(load.run(float(seconds), float(rate[0]) if rate else 500.0))
    figures: dict[str, Any] = {path: summary(times) for path, times in load.times.items()}
    asked = len(load.late)
    answered = sum(len(times) for times in load.times.values())
    print(json.dumps({**figures, "own": summary(load.late), "unanswered": asked - answered}))


if __name__ == "__main__":
    main()
