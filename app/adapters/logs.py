"""Logs: one event a line on stderr, as JSON or for people. `docs/logs.md` has the events.

What libraries say is an event too, `library-message`: their words are no names to rely on.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from ..core.text import visible

Fields = Mapping[str, object]

_OURS = "compass_sidecar"
_STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
_EVENT_WIDTH = 20
_SHOWN_OF_FINGERPRINT = 12
_BOLD, _DIM, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_COLORS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


def configure_logging(*, level: str, formatter: logging.Formatter) -> None:
    """Send what we and the libraries say to stderr, each event through the formatter."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    # httpx writes the URL of each request at INFO, and a URL may carry what is nobody's business;
    # uvicorn says in words of its own what our events say.
    for name in ("httpx", "httpcore", "uvicorn"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


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
            line["exception"] = self.formatException(record.exc_info)
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
        text = self.formatException(record.exc_info).replace("\n", "\n    ") if record.exc_info else ""
        return "  ".join(parts).rstrip() + (f"\n    {text}" if text else "")

    def _paint(self, text: str, code: str) -> str:
        return f"{code}{text}{_RESET}" if self._color and code else text


def _event(record: logging.LogRecord) -> tuple[str, Fields]:
    """The name of what happened, and its fields."""
    if record.name.partition(".")[0] != _OURS:
        return "library-message", {"logger": record.name, "detail": record.getMessage()}
    return record.getMessage(), {name: each for name, each in vars(record).items() if name not in _STANDARD}


def _short(name: str, value: object) -> str:
    """A value as one word, or in quotes."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if name == "fingerprint":
        return f"{text[:_SHOWN_OF_FINGERPRINT]}…"
    return text if text.isprintable() and text and not set(text) & set(" '\"=") else repr(text)
