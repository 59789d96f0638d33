"""Standard error, which somebody may have stopped to read: nobody waits for that, and lines are lost instead.

`os.write` throughout: a thread that hangs within `sys.stderr` would make the interpreter hang at its end.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from datetime import timedelta

STDERR = 2
# PIPE_BUF: a pipe that poll calls writable takes as much without blocking.
_AT_ONCE = 4096
_QUEUE = 256 * 1024  # bytes: about a thousand lines


class Lines:
    """Writes lines in order; what the stream does not take at once goes through a queue and a thread.

    `dropped` counts the lines that were lost. When the stream takes lines again, `notice(count)` is the line
    that says how many it has missed.
    """

    def __init__(self, descriptor: int, *, notice: Callable[[int], bytes]) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._notice = notice
        # A terminal takes part of a line and blocks for the rest.
        self._at_once = 0 if os.isatty(descriptor) else _AT_ONCE
        self._stream = _writable(descriptor)
        self._unsaid = 0
        self._queue: deque[tuple[bytes, int]] = deque()
        self._size = 0  # of what is in the queue
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> None:
        """Neither raises nor blocks."""
        with self._changed:
            if self._size + len(line) > _QUEUE:
                self.lose()
                return
            self._say_what_is_missing()
            self._send(line)

    def lose(self) -> None:
        """A line is lost: `dropped` counts it."""
        self.dropped += 1
        self._unsaid += 1

    def flush(self, timeout: timedelta) -> bool:
        """Wait until the queue is empty, or the time is over; whether it is empty."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue, timeout.total_seconds())

    def _say_what_is_missing(self) -> None:
        count, self._unsaid = self._unsaid, 0
        if count:
            self._send(self._notice(count), stands_for=count)

    def _send(self, line: bytes, *, stands_for: int = 0) -> None:
        if not self._queue and len(line) <= self._at_once and self._stream.poll(0):
            left = _write(self._descriptor, line)
        else:
            left = line
        if left is None or (left and not self._has_thread()):
            self._give_up(stands_for)
        elif left:
            self._queue.append((left, stands_for))
            self._size += len(left)
            self._changed.notify_all()

    def _give_up(self, stands_for: int) -> None:
        """A notice that is lost is no line, but what it would have said stays to be said."""
        if stands_for:
            self._unsaid += stands_for
        else:
            self.lose()

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="stderr", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):
                return False
            self._thread = thread
        return True

    def _work(self) -> None:
        stream = _writable(self._descriptor)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue))
                line, stands_for = self._queue[0]
            stream.poll()
            left = _write(self._descriptor, line[:_AT_ONCE])
            with self._changed:
                self._queue.popleft()
                self._size -= len(line)
                if left is None:
                    self._give_up(stands_for)
                elif rest := left + line[_AT_ONCE:]:
                    self._queue.appendleft((rest, stands_for))
                    self._size += len(rest)
                elif not self._queue:
                    self._say_what_is_missing()
                self._changed.notify_all()


def say(text: str, *, patience: timedelta = timedelta(seconds=1)) -> None:
    """Write the last words of a process, past any queue; give up when nobody reads them."""
    left: bytes | None = text.encode("utf-8", "backslashreplace")
    stream = _writable(STDERR)
    while left and stream.poll(patience / timedelta(milliseconds=1)):
        rest = left[_AT_ONCE:]
        written = _write(STDERR, left[:_AT_ONCE])
        left = None if written is None else written + rest


def _writable(descriptor: int) -> "select.poll":
    stream = select.poll()
    stream.register(descriptor, select.POLLOUT)
    return stream


def _write(descriptor: int, data: bytes) -> bytes | None:
    """What is left to be written; None if the stream refuses it: closed, full, or broken."""
    try:
        return data[os.write(descriptor, data) :]
    except BlockingIOError:
        return data
    except OSError:
        return None
