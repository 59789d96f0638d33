"""One event a line, for programs and for people."""

import json
import logging
import re
import subprocess
import sys
from typing import Any

import pytest

from compass_sidecar.adapters.logs import ForPeople, JSONLines

HOSTILE = 'a\nb\r\x1b[31m\u202e"c" {"event": "renewed"}'


def record(
    event: str = "renewed", *, logger: str = "compass_sidecar.engine.events", **fields: object
) -> logging.LogRecord:
    made = logging.getLogger(logger).makeRecord(
        logger, logging.WARNING, __file__, 1, event, (), None, extra=fields
    )
    made.created = 1_795_522_325.347_9
    return made


def failing(secret: str) -> logging.LogRecord:
    try:
        raise ValueError("the reason")
    except ValueError:
        made = record("internal-error")
        made.exc_info = sys.exc_info()
    assert secret  # a local variable, which a careless traceback would show
    return made


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    line = JSONLines().format(made)
    assert len(line.splitlines()) == 1
    content: dict[str, Any] = json.loads(line)
    return content


def test_json_begins_with_time_level_and_event() -> None:
    content = as_json(record(code="connector-timeout", duration_seconds=0.4))
    assert list(content.items()) == [
        ("at", "2026-11-24T12:12:05.347Z"),
        ("level", "warning"),
        ("event", "renewed"),
        ("code", "connector-timeout"),
        ("duration_seconds", 0.4),
    ]


@pytest.mark.parametrize("field", ["detail", "path"])
def test_what_comes_from_elsewhere_stays_in_its_line(field: str) -> None:
    made = record(**{field: HOSTILE})
    assert as_json(made)[field] == HOSTILE
    line = ForPeople(color=False).format(made)
    assert line.isprintable()
    assert "\n" not in line


def test_a_traceback_is_a_field_and_shows_no_values() -> None:
    made = failing("hunter2")
    told = as_json(made)["exception"]
    assert told.startswith("Traceback")
    assert told.endswith("ValueError: the reason")
    for shown in (told, ForPeople(color=True).format(made)):
        assert "hunter2" not in shown


def test_people_read_time_level_event_sentence_and_then_the_rest() -> None:
    made = record("attempt-failed", fingerprint="ab" * 32, detail="it said no", code="x", names=["a", "b"])
    assert ForPeople(color=False).format(made) == (
        "2026-11-24 12:12:05Z  warning  attempt-failed        it said no  "
        "fingerprint=abababababab… code=x names=a,b"
    )


def test_color_is_for_terminals() -> None:
    made = record(detail="it said no", code="x")
    plain, painted = (ForPeople(color=color).format(made) for color in (False, True))
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d+m", "", painted) == plain


def test_an_everyday_level_is_not_worth_a_word() -> None:
    made = record()
    made.levelno, made.levelname = logging.INFO, "INFO"
    assert ForPeople(color=False).format(made) == "2026-11-24 12:12:05Z           renewed"


@pytest.mark.parametrize("logger", ["asyncio", "uvicorn.error", "py.warnings", "application"])
def test_what_a_library_says_is_a_detail(logger: str) -> None:
    content = as_json(record("Task exception\nwas never retrieved", logger=logger, color_message="x"))
    assert (content["event"], content["logger"]) == ("library-message", logger)
    assert content["detail"] == r"Task exception\u000awas never retrieved"
    assert "color_message" not in content


def logged_by(code: str) -> list[dict[str, Any]]:
    """By a process of its own: what is set up here is set up for the whole process."""
    setup = (
        "import logging, warnings\n"
        "from compass_sidecar.adapters.logs import JSONLines, configure_logging\n"
        "configure_logging(level='debug', formatter=JSONLines())\n"
    )
    done = subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_warnings_of_python_follow_the_format() -> None:
    (said,) = logged_by("warnings.warn('old')")
    assert (said["event"], said["logger"]) == ("library-message", "py.warnings")
    assert "UserWarning: old" in said["detail"]


def test_libraries_that_name_urls_are_quiet_even_at_debug() -> None:
    (said,) = logged_by(
        "for name in ('httpx', 'httpcore.connection', 'uvicorn.access'):\n"
        "    logging.getLogger(name).info('https://somebody:secret@example.org/?token=secret')\n"
        "logging.getLogger('compass_sidecar.main').debug('connector-called')\n"
    )
    assert (said["event"], said["level"]) == ("connector-called", "debug")
