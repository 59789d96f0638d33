"""Logs: one event a line on stderr, as JSON or for people. `docs/logs.md` has the events.

What libraries say is an event too, `library-message`: their words are no names to rely on.
"""

import json
import logging
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ..core.catalogue import Event
from ..core.text import printable, visible
from .stderr import STDERR, Lines

Fields = Mapping[str, object]

_OURS = "compass_sidecar"
_log = logging.getLogger(f"{_OURS}.adapters.logs")
_STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
_EVENT_WIDTH = 20
_SHOWN_OF_FINGERPRINT = 12
_BOLD, _DIM, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_END_LIMIT = timedelta(seconds=1)
_TRACEBACK = 100  # lines
_COLORS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


def configure_logging(*, level: str, formatter: logging.Formatter) -> "StderrHandler":
    """Send what we and the libraries say to stderr, each event through the formatter."""
    handler = StderrHandler(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    # What the interpreter would write to a stream that nobody may read.
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_unraisable
    # httpx writes the URL of each request at INFO, and a URL may carry a secret;
    # uvicorn warns in words of its own of each request that is not HTTP, and anyone can send those.
    quiet = {"httpx": logging.WARNING, "httpcore": logging.WARNING, "uvicorn": logging.ERROR}
    for name, least in quiet.items():
        logging.getLogger(name).setLevel(max(least, logging.getLogger().level))
    return handler


def _log_unraisable(failure: Any) -> None:
    """An exception that nothing can handle, in a thread or a destructor."""
    if failure.exc_value is not None:
        _log.error(
            Event.INTERNAL_ERROR, exc_info=(failure.exc_type, failure.exc_value, failure.exc_traceback)
        )


class StderrHandler(logging.Handler):
    """Neither blocks nor raises. Requests that are refused are one line a minute, with their number."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.addFilter(_OnceAMinute("requests-refused"))
        self._lines = Lines(STDERR, notice=self._notice)

    @property
    def dropped(self) -> int:
        """Lines that were lost."""
        return self._lines.dropped

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - such as MemoryError: there is nowhere to tell it
            self._lines.lose()
        else:
            self._lines.write(line)

    def close(self) -> None:
        self._lines.flush(_END_LIMIT)
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")

    def _notice(self, count: int) -> bytes:
        if not logging.root.isEnabledFor(logging.WARNING):
            return b""
        said = {"name": _log.name, "levelno": logging.WARNING, "levelname": "WARNING", "count": count}
        return self._line(logging.makeLogRecord({**said, "msg": Event.LOG_LINES_DROPPED}))


class _OnceAMinute(logging.Filter):
    """Lets one record of an event through in a minute, with the `count` of those that it stands for."""

    def __init__(self, event: str) -> None:
        super().__init__()
        self._event = event
        self._count = 0
        self._let_through = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg != self._event:
            return True
        self._count += 1
        # The clock may be set back: that must not keep it silent.
        if abs(record.created - self._let_through) < 60:
            return False
        record.count, self._count, self._let_through = self._count, 0, record.created
        return True


class JSONLines(logging.Formatter):
    """`at`, `level`, `event`, then the event's own fields; a traceback is the field `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _event(record)
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "at": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": event,
            **fields,
        }
        if record.exc_info:
            line["exception"] = "\n".join(_traceback(self, record.exc_info))
        return json.dumps(line, default=str)


class ForPeople(logging.Formatter):
    """Time, level if it is worth a word, event, what it says in a sentence, then its other fields.

    A traceback follows on lines of its own; it never shows the values of variables.
    """

    def __init__(self, *, color: bool) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _event(record)
        level = record.levelname.lower() if record.levelno != logging.INFO else ""
        others = " ".join(
            f"{name}={_short(name, value)}" for name, value in fields.items() if name != "detail"
        )
        parts = [
            self._paint(f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%d %H:%M:%SZ}", _DIM),
            self._paint(f"{level:7}", _COLORS.get(record.levelno, "")),
            self._paint(f"{event:{_EVENT_WIDTH}}", _BOLD),
            *([visible(str(fields["detail"]))] if "detail" in fields else []),
            *([self._paint(others, _DIM)] if others else []),
        ]
        traceback = _traceback(self, record.exc_info) if record.exc_info else []
        return "\n    ".join(["  ".join(parts).rstrip(), *traceback])

    def _paint(self, text: str, code: str) -> str:
        return f"{code}{text}{_RESET}" if self._color and code else text


def _traceback(formatter: logging.Formatter, failure: Any) -> list[str]:
    """Its lines, as foreign text: an exception may quote what the Connector sent."""
    lines = formatter.formatException(failure).splitlines()
    return [each[: len(each) - len(each.lstrip())] + printable(each) for each in lines[-_TRACEBACK:]]


def _event(record: logging.LogRecord) -> tuple[str, Fields]:
    """The name of what happened, and its fields."""
    if record.name.partition(".")[0] != _OURS:
        return Event.LIBRARY_MESSAGE, {"logger": record.name, "detail": printable(record.getMessage())}
    return record.getMessage(), {name: each for name, each in vars(record).items() if name not in _STANDARD}


def _short(name: str, value: object) -> str:
    """A value as one word, or in quotes."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if name == "fingerprint":
        return f"{text[:_SHOWN_OF_FINGERPRINT]}…"
    return text if text.isprintable() and text and not set(text) & set(" '\"=") else repr(text)
