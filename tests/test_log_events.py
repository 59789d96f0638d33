"""The table in docs/logs.md has the events that the code has: names, levels and fields."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass_sidecar.engine.events import _WARNINGS

ROOT = Path(__file__).parents[1]
LOGGING = {"debug": "debug", "info": "info", "warning": "warning", "exception": "error", "error": "error"}
# What hands a name on to `record`, and the fields that it adds.
JOURNALED = {
    "record": set(),
    "tell": {"detail"},
    "succeed": {"fingerprint", "not_after"},
    "_make": {"fingerprint", "not_after", "duration_seconds"},
    "_attempt": {"fingerprint", "not_after", "duration_seconds"},
    "_try": {"code", "detail"},
}
# Where a name is handed on: the callers of these say which.
HANDED_ON = {
    ("app/engine/events.py", "event"),
    ("app/engine/attempts.py", "event"),
    ("app/engine/sidecar.py", "reason"),
    ("app/main.py", "code"),
}
# Every event of an attempt has it, so the table says so once.
IN_GENERAL = {"correlation_id"}
# What the functions above take besides fields.
NO_FIELDS = {"check"}
Event = tuple[str, str, frozenset[str]]


def events_of(path: str, tree: ast.AST) -> Iterator[Event]:
    """(name, level, fields) of each call that says something; or fail at one whose name is not known."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and (found := said_by(path, node)) is not None:
            level, fields = found
            match name_of(node):
                case ast.Constant(value=str(name)):
                    default = "warning" if name in _WARNINGS else "info"
                    yield name, level or default, frozenset(fields - IN_GENERAL)
                case ast.Name(id=name) if (path, name) in HANDED_ON:
                    pass
                case _:
                    pytest.fail(f"{path}, line {node.lineno}: the name of an event must be a plain string")


def name_of(call: ast.Call) -> ast.expr:
    leveled = isinstance(call.func, ast.Attribute) and call.func.attr == "log"
    return call.args[1] if leveled else call.args[0]


def said_by(path: str, call: ast.Call) -> tuple[str | None, set[str]] | None:
    """The level, None if the journal decides, and the fields; None for a call that says nothing."""
    match call.func:
        case ast.Attribute(value=ast.Name(id="_log"), attr="log"):
            # At either of two levels: the table has the more severe one, and says when it is the other.
            return None if path == "app/engine/events.py" else ("warning", extra_of(call))
        case ast.Attribute(value=ast.Name(id="_log"), attr=method):
            return LOGGING[method], extra_of(call)
        case ast.Attribute(attr=method) if method in JOURNALED:
            return None, JOURNALED[method] | {each.arg for each in call.keywords if each.arg} - NO_FIELDS
        case ast.Attribute(attr="_warn") | ast.Name(id="warn"):
            if path == "app/engine/sidecar.py":
                return None, {"code", "detail"}
            return "warning", {"detail"}
    return None


def extra_of(call: ast.Call) -> set[str]:
    for keyword in call.keywords:
        if keyword.arg == "extra":
            assert isinstance(keyword.value, ast.Dict), "the fields of an event must be written where it is"
            return {str(ast.literal_eval(key)) for key in keyword.value.keys if key is not None}
    return set()


def in_code() -> dict[str, tuple[str, frozenset[str]]]:
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for path in sorted((ROOT / "app").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for event, level, fields in events_of(name, ast.parse(path.read_text())):
            known = found.get(event, (level, frozenset()))
            assert known[0] == level, f"{event} has two levels"
            found[event] = level, known[1] | fields
    return found


def in_table() -> dict[str, tuple[str, frozenset[str]]]:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (\w+) \| .+? \|(?: (.*) )?\|$",
        (ROOT / "docs" / "logs.md").read_text().replace("| |\n", "||\n"),
        re.MULTILINE,
    )
    assert len({name for name, _, _ in rows}) == len(rows)
    return {
        name: (level, frozenset(re.findall(r"`(\w+)`", fields)) - IN_GENERAL) for name, level, fields in rows
    }


def test_the_table_has_every_event_and_no_other() -> None:
    table = in_table()
    for name in ("library-message", "log-lines-dropped"):  # said by no logger of ours
        table.pop(name)
    assert table == in_code()


def test_every_warning_is_an_event() -> None:
    assert in_code().keys() >= _WARNINGS


@pytest.mark.parametrize(
    "source",
    ["_log.info('two words' + x)", "self._journal.record(name)", "self._warn(f'{a}', 'b')"],
)
def test_a_name_that_is_put_together_is_found(source: str) -> None:
    with pytest.raises(pytest.fail.Exception):
        list(events_of("app/engine/renewal.py", ast.parse(source)))
