"""Whether what is logged is what the catalogue of events, and so docs/logs.md, says."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from compass_sidecar.core.catalogue import Event

LEVELS = ("debug", "info", "warning", "error")
# Of every line, or of every line of an attempt.
IN_GENERAL = {"at", "level", "event", "correlation_id"}
_BUILT_IN = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}


def fault_of(event: str, level: str, fields: Collection[str]) -> str | None:
    """What the catalogue does not say of this line."""
    if event not in set(Event):
        return f"{event} is not in the catalogue"
    entry = Event.__members__[event.upper().replace("-", "_")]
    if entry.level != "any" and LEVELS.index(level) > LEVELS.index(entry.level):
        return f"{event} is logged at level {level}"
    unknown = set(fields) - IN_GENERAL - set(entry.fields.split())
    return f"{event} has the fields {sorted(unknown)}" if unknown else None


def faults_of(lines: Collection[Mapping[str, object]]) -> list[str]:
    """The faults of the JSON lines of a log."""
    found = (fault_of(str(line["event"]), str(line["level"]), line.keys()) for line in lines)
    return [fault for fault in found if fault is not None]


def logged(file: Path) -> list[dict[str, object]]:
    """The lines of a log that are JSON; a console's and those of a crash are not."""
    text = file.read_text(errors="replace") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]


class Catalogued(logging.Handler):
    """Keeps the faults of what is logged in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        fault = fault_of(record.getMessage(), record.levelname.lower(), vars(record).keys() - _BUILT_IN)
        if fault is not None:
            self.faults.append(fault)
