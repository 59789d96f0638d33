"""The journal: one JSON line per event, kept beside the credentials. No secrets go in."""

import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..core.catalogue import Event
from . import files

_SIZE_LIMIT = 1024 * 1024
# The status shows 20; the rest is for whoever debugs. At 300 bytes an event this is 60 KiB.
_KEPT = 200

Entry = dict[str, object]


class Journal:
    """`journal.jsonl` and one older file, 1 MiB each. For several threads."""

    def __init__(self, directory: Path, *, warn: files.Warn) -> None:
        """Reads the newest events of a former life; the folder has to exist."""
        self._file = directory / "journal.jsonl"
        self._old = directory / "journal.jsonl.1"
        self._warn = warn
        self._guard = threading.Lock()
        self._tail: deque[Entry] = deque(maxlen=_KEPT)
        # Right after a rotation most of what is new is still in the old file.
        for path in (self._old, self._file):
            self._tail.extend(_events(self._newest(path)))

    def append(self, event: Mapping[str, object]) -> None:
        """Keep the event. A disk that refuses it is a warning: never raises."""
        try:
            line = json.dumps(event, default=str).encode() + b"\n"
            with self._guard:
                self._tail.extend(_events([line]))
                self._write(line)
        except OSError as error:
            self._warn(Event.JOURNAL_WRITE_FAILED, f"{self._file} misses an event: {files.reason(error)}")
        except (TypeError, ValueError, RecursionError) as error:
            self._warn(Event.JOURNAL_WRITE_FAILED, f"an event cannot be written as JSON: {error}")

    def tail(self, count: int) -> list[Entry]:
        """The last `count` events, the newest last; at most 200, and without touching the disk."""
        with self._guard:
            return [dict(event) for event in self._tail][-count:] if count > 0 else []

    def _write(self, line: bytes) -> None:
        descriptor = self._open()
        try:
            size = os.fstat(descriptor).st_size
            if size and size + len(line) > _SIZE_LIMIT:
                files.rename(self._file, self._old)
                fresh = self._open()
                os.close(descriptor)
                descriptor, size = fresh, 0
            # A crash or a full disk may have cut the last line: begin a new one.
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            # No fsync: an event lost with the power is no loss, and a slow disk must not be waited for.
            files.write_all(descriptor, b"\n" + line if torn else line)
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self._file, flags, 0o600)

    def _newest(self, path: Path) -> list[bytes]:
        """The newest lines of a file, from at most 1 MiB at its end; the first may be cut."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._warn(Event.JOURNAL_UNREADABLE, f"{path} cannot be read: {files.reason(error)}")
            return []
        try:
            start = max(0, os.fstat(descriptor).st_size - _SIZE_LIMIT)
            return os.pread(descriptor, _SIZE_LIMIT, start).split(b"\n")[-_KEPT - 1 :]
        except OSError as error:
            self._warn(Event.JOURNAL_UNREADABLE, f"{path} cannot be read: {files.reason(error)}")
            return []
        finally:
            os.close(descriptor)


def _events(lines: Iterable[bytes]) -> list[Entry]:
    """What can be read of them: a torn line, or zeros that a power cut left, is passed over."""
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            events.append(event)
    return events
