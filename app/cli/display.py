"""What the command line shows: for people on a terminal a panel in colours, else plain lines to grep in.

Every text is shown without what could move the cursor: what answers may not be the sidecar.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..core.catalogue import REASONS
from ..core.text import format_duration, visible

STATES = {
    "connected": ("green", "the credential is valid, and is renewed in time"),
    "degraded": ("yellow", "the credential is valid, but something needs attention"),
    "unconnected": ("red", "there is no credential yet"),
    "expired": ("red", "the credential has expired"),
    "revoked": ("red", "the credential was revoked"),
}
_MARKS = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "failed": ("✗", "red"),
    "not-checked": ("-", "dim"),
}
_EVENTS = 5
_WIDEST = 100
_LONGEST_EVENT = 120


@dataclass(frozen=True, slots=True)
class Row:
    """A line with its name; `style` is rich's, for terminals."""

    name: str
    text: str
    style: str = ""


def out() -> Console:
    return _console(sys.stdout)


def _console(stream: Any) -> Console:
    # What says `colours, please` in the environment of a CI job must not end up in a file.
    return Console(
        file=stream, force_terminal=stream.isatty(), highlight=False, soft_wrap=not stream.isatty()
    )


def plain(text: object) -> str:
    """Without control characters, line breaks and what turns the direction of writing."""
    return visible(str(text))


# --- status ------------------------------------------------------------------------------------


def show_status(content: Mapping[str, Any], *, where: str, now: datetime | None) -> None:
    """The answer of `/status`. KeyError, TypeError or ValueError if it is something else."""
    rows, console = status_rows(content, now=now), out()
    if not console.is_terminal:
        for row in rows:
            print(f"{row.name:<12} {row.text}")  # noqa: T201 - it is the answer
        return
    style = STATES.get(content["state"], ("red", ""))[0]
    parts: list[Any] = [_table(rows)]
    if content["certificate"] is not None and now is not None:
        parts.insert(0, _life(content, now, width=_width(console) - 4))
    title = Text.assemble(" compass-sidecar ", (plain(content["state"]), f"bold {style}"), " ")
    subtitle = Text(plain(where))
    panel = Panel(Group(*parts), title=title, subtitle=subtitle, border_style=style, width=_width(console))
    console.print(panel)


def status_rows(content: Mapping[str, Any], *, now: datetime | None) -> list[Row]:
    """What is to be said of an answer of `/status`, without control characters."""
    state, skew = content["state"], content["clock_skew_seconds"]
    style, meaning = STATES.get(state, ("red", ""))
    reasons = [_reason(each) for each in content["reasons"]]
    rows = [Row("state", f"{state} ({meaning})", f"bold {style}")]
    rows += [Row("reasons", reason, style) for reason in reasons] or [Row("reasons", "-")]
    rows += _certificate_rows(content["certificate"], now)
    rows += _renewal_rows(content["renewal"], now)
    rows.append(Row("connector", content["connector"]["url"] or "-"))
    if skew is not None:
        # Two minutes are where `degraded` begins.
        text = format_duration(timedelta(seconds=round(skew)))
        rows.append(Row("clock skew", text, "yellow" if abs(skew) > 120 else ""))
    rows += [Row("event", _event(each), "dim") for each in content["events"][-_EVENTS:]]
    return [Row(row.name, plain(row.text), row.style) for row in rows]


def _reason(name: str) -> str:
    words = REASONS.get(name)
    return name if words is None else f"{name}: {words.meaning} {words.remedy}"


def _certificate_rows(held: Mapping[str, Any] | None, now: datetime | None) -> list[Row]:
    if held is None:
        return []
    return [
        Row("subject", held["subject"]),
        Row("fingerprint", held["fingerprint_sha256"]),
        Row("valid from", _moment(held["not_before"], now)),
        Row("valid until", _moment(held["effective_not_after"], now)),
    ]


def _renewal_rows(renewal: Mapping[str, Any], now: datetime | None) -> list[Row]:
    next_attempt = "under way" if renewal["in_progress"] else _moment(renewal["next_attempt_at"], now)
    rows = [
        Row("due", _moment(renewal["due_at"], now)),
        Row("next attempt", next_attempt),
        Row("last success", _moment(renewal["last_success_at"], now)),
    ]
    if (error := renewal["last_error"]) is not None:
        failures = renewal["consecutive_failures"]
        rows.append(Row("last error", f"{error['code']}: {error['detail']}", "red"))
        rows.append(Row("failed", f"{_moment(error['at'], now)}; {failures} in a row"))
    return rows


def _moment(text: str | None, now: datetime | None) -> str:
    if text is None:
        return "-"
    if now is None:
        return text
    distance = datetime.fromisoformat(text) - now
    words = format_duration(abs(distance))
    return f"{text} ({f'in {words}' if distance > timedelta(0) else f'{words} ago'})"


def _event(event: Mapping[str, Any]) -> str:
    detail = event.get("detail") or str(event.get("fingerprint") or "")[:12]
    shown = f"{event['at']} {event['event']} {detail}".rstrip()
    return shown if len(shown) <= _LONGEST_EVENT else f"{shown[: _LONGEST_EVENT - 1]}…"


def _life(content: Mapping[str, Any], now: datetime, *, width: int) -> Text:
    """The certificate's life as a line: what is over, what is left, and where renewal is due."""
    held = content["certificate"]
    begin, end = (datetime.fromisoformat(held[name]) for name in ("not_before", "effective_not_after"))
    whole = max(end - begin, timedelta(seconds=1))

    def place(moment: datetime) -> int:
        return round(min(max((moment - begin) / whole, 0.0), 1.0) * (width - 1))

    style = STATES.get(content["state"], ("red", ""))[0]
    line = Text("━" * place(now), style=style) + Text("●", style=f"bold {style}")
    line += Text("─" * (width - len(line)), style="dim")
    due = content["renewal"]["due_at"]
    if due is None:
        return line
    at, label = place(datetime.fromisoformat(due)), "▲ renewal due"
    fits = at + len(label) <= width
    line.append("\n" + (" " * at + label if fits else "renewal due ▲".rjust(at + 1)), style="dim")
    return line


def _table(rows: Sequence[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    last = None
    for row in rows:
        table.add_row("" if row.name == last else row.name, Text(row.text, style=row.style))
        last = row.name
    return table


def _width(console: Console) -> int:
    return min(console.width, _WIDEST)


# --- check -------------------------------------------------------------------------------------


def show_finding(name: str, outcome: str, detail: str, *, console: Console) -> None:
    """A line of `check`."""
    if not console.is_terminal:
        print(f"{outcome:<11} {name:<15} {plain(detail)}")  # noqa: T201
        return
    mark, style = _MARKS[outcome]
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, width=15)
    table.add_column(overflow="fold")
    table.add_row(
        Text(mark, style=f"bold {style}"),
        Text(name, style="bold"),
        Text(plain(detail), style=style if outcome != "ok" else ""),
    )
    console.print(table, width=_width(console))


# --- progress ----------------------------------------------------------------------------------


@contextmanager
def progress(text: str, *, console: Console | None = None) -> Iterator[Any]:
    """A sign of life while something takes its time, on a terminal only; on stderr unless told.

    What it gives replaces the text.
    """
    console = console or _console(sys.stderr)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda _text: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(text, total=None)
        yield lambda text: shown.update(task, description=plain(text))
