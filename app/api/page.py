"""The page for people: what `/status` says, in plain words, in one HTML file that needs nothing else.

The templates hold every sentence, so that the page says the same with and without its script, which takes
the changed parts from a new copy.
"""

import base64
import hashlib
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..core.catalogue import CODES, EVENTS, REASONS
from ..core.status import State
from ..core.text import printable, rfc3339
from .problems import Answer
from .schemas import CertificateStatus, StatusAnswer

_TEMPLATES = Path(__file__).parent / "templates"
_SHOWN = 6  # events shown at once; the others unfold
_TITLES = {
    State.CONNECTED: "Connected",
    State.DEGRADED: "Degraded",
    State.EXPIRED: "Expired",
    State.REVOKED: "Revoked",
    State.UNCONNECTED: "Not connected",
}
_CROSS = "M8 8l8 8M16 8l-8 8"
_MARKS = {
    State.CONNECTED: "M7 12.5l3.5 3.5L17 9",
    State.DEGRADED: "M12 6.5v7M12 17v.1",
    State.EXPIRED: _CROSS,
    State.REVOKED: _CROSS,
    State.UNCONNECTED: "M7.5 12h9",
}
_TONES = {State.CONNECTED: "#1a7f37", State.DEGRADED: "#b57a00", State.UNCONNECTED: "#0860c4"}


def page_answer(status: StatusAnswer, now: datetime, *, host: str, asks_token: bool) -> Answer:
    """The page about `status` at that moment.

    `host` is where the reader reached us, for the commands; `asks_token` is whether renewing needs one.
    """
    usable = status.state in {State.CONNECTED, State.DEGRADED}
    certificate, due_at = status.certificate, status.renewal.due_at
    page = _templates().get_template("page.html")
    body = page.render(
        status=status,
        renewal=status.renewal,
        certificate=certificate,
        now=now,
        usable=usable,
        asks_token=asks_token,
        title=_TITLES[status.state],
        mark=_MARKS[status.state],
        icon=_icon(status.state),
        pace=_pace(certificate),
        coming=_coming(status),
        line=_line(certificate, due_at, now) if certificate else None,
        skew=_skew(status.clock_skew_seconds),
        journal=[_Entry(entry) for entry in reversed(status.events)],
        shown=_SHOWN,
        commands=_commands(host, usable=usable, asks_token=asks_token),
    )
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": _policy(),
    }
    return Answer.of(200, headers, body.encode())


@cache
def _templates() -> Environment:
    """Made when the first person comes."""
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    templates.globals |= {"events": EVENTS, "reasons": REASONS, "codes": CODES}
    filters = (anchor, breakable, instant, printable, rfc3339, sentence, span, stamp, title_of)
    templates.filters |= {each.__name__: each for each in filters}
    return templates


@cache
def _policy() -> str:
    """Only the script and the style of the page itself may be used."""
    script, style = (
        _sha256(f"\n{(_TEMPLATES / name).read_text('utf-8')}") for name in ("page.js", "page.css")
    )
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class _Entry(dict[str, object]):
    """An entry of the journal; a field that it lacks is None."""

    def __init__(self, entry: Mapping[str, object]) -> None:
        super().__init__(entry)

    def __getattr__(self, name: str) -> object:
        return self.get(name)


# --- values ------------------------------------------------------------------------------------


def _icon(state: State) -> str:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><circle cx="12" cy="12" r="12" '
        f'fill="{_TONES.get(state, "#c11f2a")}"/><path d="{_MARKS[state]}" fill="none" stroke="#fff" '
        'stroke-width="2.5"/></svg>'
    )
    return "data:image/svg+xml," + quote(svg)


def _pace(certificate: CertificateStatus | None) -> int:
    """Seconds after which the marker of the time line has visibly moved."""
    if certificate is None:
        return 30
    lifetime = certificate.effective_not_after - certificate.not_before
    return min(30, max(1, int(lifetime.total_seconds() / 300)))


def _coming(status: StatusAnswer) -> str:
    """What happens at `next_attempt_at`."""
    if status.state is State.EXPIRED:
        return "The next attempt is made"
    if status.certificate is None:
        return "The connection is tried again"
    if "proof-pending" in status.reasons or status.renewal.consecutive_failures:
        return "The next attempt is made"
    return "The sidecar renews it"


def _line(certificate: CertificateStatus, due_at: datetime | None, now: datetime) -> Mapping[str, object]:
    """The renewal window goes from `due_at` to the end. Shares are in percent."""
    begin, end = certificate.not_before, certificate.effective_not_after
    due_at = min(due_at or end, end)
    here, due = _share(begin, end, now), _share(begin, end, due_at)
    label = "%H:%M:%S" if end - begin < timedelta(days=3) else "%-d %b %Y"
    # Labels in one row would meet.
    room = "one-row" if 30 <= due <= 70 else "two-rows"
    return {
        "begin": begin, "end": end, "due_at": due_at, "here": here, "due": due, "label": label, "room": room
    }  # fmt: skip


def _share(begin: datetime, end: datetime, at: datetime) -> float:
    lifetime = max(end - begin, timedelta(seconds=1))
    return min(100.0, max(0.0, (at - begin) / lifetime * 100))


def _skew(seconds: float | None) -> str:
    if seconds is None:
        return "not known yet"
    # A `Date` has whole seconds, and is up to one late.
    if abs(seconds) < 2:
        return "none"
    side = "ahead of" if seconds > 0 else "behind"
    return f"the Connector's clock is {span(timedelta(seconds=abs(seconds)))} {side} ours"


def _commands(host: str, *, usable: bool, asks_token: bool) -> Mapping[str, str]:
    bearer = ' -H "Authorization: Bearer $COMPASS_API_TOKEN"'
    base = f"http://{host}"
    status = f"curl -s {shlex.quote(base + '/status')}"
    if not usable:
        body = '{"token": "TOKEN", "connector_url": "https://…/connector/graphql"}'
        json = f"-H 'Content-Type: application/json' -d '{body}'"
        return {"status": status, "connect": f"curl -s{bearer} {json} {shlex.quote(base + '/connect')}"}
    return {
        "status": status,
        "renew": f"curl -s -X POST{bearer if asks_token else ''} {shlex.quote(base + '/renew')}",
        "chain": f"curl -sO {shlex.quote(base + '/certificate/chain.pem')}",
    }


# --- filters -----------------------------------------------------------------------------------


def breakable(text: object) -> Markup:
    """Foreign text, with breaks where a person would break a name or a URL."""
    shown = escape(printable(str(text)))
    return Markup(shown.replace(",", Markup(",<wbr>")).replace("/", Markup("/<wbr>")))  # noqa: S704 - escaped


def sentence(text: object) -> str:
    """Errors begin in lower case and end without a full stop."""
    plain = str(text)
    return plain[:1].upper() + plain[1:] + ("" if plain.endswith((".", "…")) else ".")


def title_of(code: object) -> str:
    """The title of the problem with this code."""
    kind = CODES.get(code) if isinstance(code, str) else None
    return kind.words if kind is not None else printable(str(code))


def stamp(at: datetime, clock: str = "%H:%M") -> str:
    """`at` is aware UTC."""
    return f"{at.day} {at:%b %Y}, {at:{clock}} UTC"


def instant(text: object) -> datetime | None:
    """The time that a journal entry names, None if it names none."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def anchor(share: float) -> str:
    """A label stays inside the picture, at a phone's width too."""
    return "start" if share < 25 else "end" if share > 75 else "middle"


def span(length: timedelta) -> str:
    """In words, as precise as a person wants it; a second at least."""
    seconds = max(1, int(length.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 7:
        return _count(days, "day")
    if days:
        return f"{_count(days, 'day')} and {_count(hours % 24, 'hour')}"
    if hours:
        return f"{_count(hours, 'hour')} and {_count(minutes % 60, 'minute')}"
    return _count(minutes, "minute") if minutes >= 2 else _count(seconds, "second")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
