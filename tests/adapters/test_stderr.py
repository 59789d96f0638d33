"""Lines on their way to a stream that is read slowly, not at all, or by nobody any more."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import pytest

from compass_sidecar.adapters.stderr import Lines

PATIENCE = timedelta(seconds=30)
A_MOMENT = timedelta(milliseconds=50)


class Stream:
    """A pipe with lines written to it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.lines = Lines(self.writing, notice=lambda count: b"%d lost\n" % count)

    def fill(self) -> int:
        """Lines of 4 KiB until the queue holds some and refuses the next; how many it was."""
        count = 0
        while not self.lines.dropped:
            self.lines.write(b"x" * 4095 + b"\n")
            count += 1
        return count

    def read(self) -> bytes:
        """All that is there, and on its way."""
        os.set_blocking(self.reading, False)
        found = b""
        while True:
            try:
                found += os.read(self.reading, 65536)
            except BlockingIOError:
                if self.lines.flush(A_MOMENT):
                    return found + self._rest()

    def _rest(self) -> bytes:
        with suppress(BlockingIOError):
            return os.read(self.reading, 65536)
        return b""


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.read()
    for end in (made.reading, made.writing):
        os.close(end)


def test_a_line_is_there_at_once_and_needs_no_thread(stream: Stream) -> None:
    before = threading.active_count()
    stream.lines.write(b"one\n")
    assert os.read(stream.reading, 100) == b"one\n"
    assert threading.active_count() == before


def test_what_is_lost_is_counted_and_said_in_its_place(stream: Stream) -> None:
    written = stream.fill()
    for _ in range(4):
        stream.lines.write(b"y" * 4095 + b"\n")
    assert stream.lines.dropped == 5
    lines = stream.read().splitlines()
    assert len(lines) == written
    assert lines[-1] == b"5 lost"
    stream.lines.write(b"and on\n")
    assert stream.read() == b"and on\n"
    assert stream.lines.dropped == 5


def test_a_long_line_comes_whole_and_in_order(stream: Stream) -> None:
    lines = [b"short\n", b"z" * 100_000 + b"\n", b"short\n"]
    for line in lines:
        stream.lines.write(line)
    assert stream.read() == b"".join(lines)


def test_a_line_that_is_too_long_for_the_queue_is_lost_alone(stream: Stream) -> None:
    stream.lines.write(b"z" * 1_000_000 + b"\n")
    stream.lines.write(b"next\n")
    assert stream.read() == b"1 lost\nnext\n"


def test_without_a_thread_lines_are_lost_and_nothing_else(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", starved)
        assert stream.fill() < 20  # the pipe alone
        stream.lines.write(b"lost too\n")
        assert stream.lines.dropped == 2
    os.read(stream.reading, 65536)
    stream.lines.write(b"next\n")
    assert stream.read().endswith(b"2 lost\nnext\n")


def test_a_stream_that_is_broken_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = Lines(writing, notice=lambda _: b"lost\n")
    for _ in range(10):
        lines.write(b"line\n")
    lines.flush(PATIENCE)
    assert lines.dropped == 10
    os.close(writing)
    lines.write(b"line\n")
    assert lines.dropped == 11


def test_a_stream_that_does_not_block_loses_nothing_that_fits() -> None:
    """Another process may have set it so: it is the stream's, not ours."""
    stream = Stream()
    os.set_blocking(stream.writing, False)
    sent = [b"%06d" % number + b"x" * 700 + b"\n" for number in range(300)]
    for line in sent:
        stream.lines.write(line)
    assert stream.lines.dropped == 0
    assert stream.read() == b"".join(sent)
    os.close(stream.reading)
    os.close(stream.writing)
