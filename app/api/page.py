"""The page for people: what `/status` says, in plain words, in one HTML file that needs nothing else.

`page.html` is the frame; everything that changes is written here, so that the page says the same with
and without its script, which takes the changed parts from a new copy.
"""

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from urllib.parse import quote

from ..core.status import State
from .answers import Answer
from .markup import TO_THE_SECOND, Html, fill, foreign, html_of, joined, moment, span, stamp, time
from .narration import event, lead, notes, what_next
from .schemas import CertificateStatus, StatusAnswer
from .timeline import draw

_SLOT = re.compile(r"\{\{(\w+)\}\}")
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_NEWEST = 6  # events shown at once; the others unfold
_NAMES = {
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


# --- the frame


@dataclass(frozen=True, slots=True)
class _Frame:
    """`page.html`: text and slot names in turn, and the policy that its script and style are named in."""

    parts: tuple[str, ...]
    policy: str


@cache
def _frame() -> _Frame:
    """Read once, when the first person comes."""
    text = (Path(__file__).parent / "page.html").read_text("utf-8")
    hashes = {kind: _sha256(inline) for kind, inline in _INLINE.findall(text)}
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return _Frame(tuple(_SLOT.split(text)), policy)


def _sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page_answer(answer: StatusAnswer, now: datetime, *, host: str, asks_token: bool) -> Answer:
    """The page about `answer` at that moment.

    `host` is where the reader reached us, for the commands; `asks_token` is whether renewing needs one.
    """
    frame = _frame()
    values = _values(answer, now, host=host, asks_token=asks_token)
    parts = [html_of(values[part]) if number % 2 else part for number, part in enumerate(frame.parts)]
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": frame.policy,
    }
    return Answer.of(200, headers, "".join(parts).encode())


def _values(answer: StatusAnswer, now: datetime, *, host: str, asks_token: bool) -> Mapping[str, object]:
    state, certificate = answer.state, answer.certificate
    usable = state in {State.CONNECTED, State.DEGRADED}
    found = notes(answer, now)
    events = [event(entry) for entry in reversed(answer.events)]
    return {
        "state": state.value,
        "name": _NAMES[state],
        "mark": _mark(state),
        "icon": _icon(state),
        "pace": _pace(certificate),
        "now": stamp(now, TO_THE_SECOND),
        "version": answer.version,
        "started": time(answer.started_at),
        "lead": lead(answer, now),
        "next": what_next(answer, now),
        "act": _hidden(not usable),
        "asks": Html(" data-token" if asks_token else ""),
        "line": draw(certificate, answer.renewal.due_at, now) if certificate else "",
        "no_line": _hidden(certificate is None),
        "notes": joined(found),
        "no_notes": _hidden(not found),
        "certificate": _certificate(certificate) if certificate else _row("State", "There is none yet."),
        "renewal": _renewal(answer, now),
        "events": joined(events[:_NEWEST]) or fill("<li><p>Nothing has happened yet.</p></li>"),
        "earlier": joined(events[_NEWEST:]),
        "no_older": _hidden(len(events) <= _NEWEST),
        "commands": _commands(host, usable=usable, asks_token=asks_token),
    }


def _hidden(hidden: object) -> Html:
    return Html(" hidden" if hidden else "")


def _mark(state: State) -> Html:
    return fill(
        '<svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="12" fill="currentColor"/>'
        '<path d="{path}" fill="none" stroke="var(--page)" stroke-width="2.5" stroke-linecap="round" '
        'stroke-linejoin="round"/></svg>',
        path=_MARKS[state],
    )


def _icon(state: State) -> str:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><circle cx="12" cy="12" r="12" '
        f'fill="{_TONES.get(state, "#c11f2a")}"/><path d="{_MARKS[state]}" fill="none" stroke="#fff" '
        'stroke-width="2.5"/></svg>'
    )
    return "data:image/svg+xml," + quote(svg)


def _pace(certificate: CertificateStatus | None) -> int:
    """Seconds after which the marker of the time line is to be seen elsewhere."""
    if certificate is None:
        return 30
    lifetime = certificate.effective_not_after - certificate.not_before
    return min(30, max(1, int(lifetime.total_seconds() / 300)))


# --- tables and lists


def _row(name: str, value: object) -> Html:
    return fill('<tr><th scope="row">{name}</th><td>{value}</td></tr>', name=name, value=value)


def _certificate(certificate: CertificateStatus) -> Html:
    copied = fill(
        '<code id="fingerprint">{fingerprint}</code> {copy}',
        fingerprint=certificate.fingerprint_sha256,
        copy=_copy("fingerprint", "the fingerprint"),
    )
    proven = certificate.proven_at
    begin, end = certificate.not_before, certificate.not_after
    rows = [
        _row("Subject", foreign(certificate.subject)),
        _row("Issuer", foreign(certificate.issuer)),
        _row("Fingerprint (SHA-256)", copied),
        _row("Serial number", certificate.serial_number),
        _row("Valid from", time(begin)),
        _row("Valid until", time(end)),
    ]
    if certificate.effective_not_after < end:
        rows.append(_row("Its CA ends", time(certificate.effective_not_after)))
    length = certificate.chain_length
    return joined(
        [
            *rows,
            _row("Key", certificate.key_algorithm),
            _row("Chain", f"{length} certificates, the leaf included" if length > 1 else "the leaf alone"),
            _row("Accepted by the Connector", time(proven) if proven else "not asked yet"),
        ]
    )


def _renewal(answer: StatusAnswer, now: datetime) -> Html:
    renewal, connector = answer.renewal, answer.connector
    coming = _row("Next attempt", moment(renewal.next_attempt_at, now))
    rows = [
        _row("Due", moment(renewal.due_at, now)),
        *([] if renewal.next_attempt_at == renewal.due_at else [coming]),
        _row("Last attempt", moment(renewal.last_attempt_at, now)),
        _row("Last success", moment(renewal.last_success_at, now)),
        _row("Failures in a row", renewal.consecutive_failures),
        _row("Clock skew", _skew(answer.clock_skew_seconds)),
        _row("Connector", foreign(connector.url) if connector.url else "not known yet"),
    ]
    if connector.announced_url:
        rows.append(_row("It names", foreign(connector.announced_url)))
    return joined([*rows, _row("Director", foreign(connector.director_url or "not known yet"))])


def _skew(seconds: float | None) -> str:
    if seconds is None:
        return "not known yet"
    # A `Date` has whole seconds, and is up to one late.
    if abs(seconds) < 2:
        return "none"
    side = "ahead of" if seconds > 0 else "behind"
    return f"the Connector's clock is {span(timedelta(seconds=abs(seconds)))} {side} ours"


def _commands(host: str, *, usable: bool, asks_token: bool) -> Html:
    bearer = ' -H "Authorization: Bearer $COMPASS_API_TOKEN"'
    base = f"http://{host}"
    renew = f"curl -s -X POST{bearer if asks_token else ''} {shlex.quote(base + '/renew')}"
    body = '{"token": "TOKEN", "connector_url": "https://…/connector/graphql"}'
    connect = (
        f"curl -s{bearer} -H 'Content-Type: application/json' -d '{body}' {shlex.quote(base + '/connect')}"
    )
    chain = f"curl -sO {shlex.quote(base + '/certificate/chain.pem')}"
    lines = {
        "status": f"curl -s {shlex.quote(base + '/status')}",
        **({"renew": renew, "chain": chain} if usable else {"connect": connect}),
    }
    return joined(
        fill(
            '<div><code id="curl-{name}">{line}</code>{copy}</div>',
            name=name,
            line=line,
            copy=_copy(f"curl-{name}", f"the command for {name}"),
        )
        for name, line in lines.items()
    )


def _copy(source: str, what: str) -> Html:
    return fill(
        '<button type="button" class="scripted" id="copy-{source}" data-copies="{source}" '
        'aria-live="polite" aria-description="{what}">Copy</button>',
        source=source,
        what=what,
    )
