"""HTML that is safe by default, and times and foreign text as people read them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from html import escape

from ..core.text import printable

TO_THE_MINUTE, TO_THE_SECOND = "%H:%M", "%H:%M:%S"


class Html(str):
    """Text that is HTML already. Everything else is escaped where it is put in."""

    __slots__ = ()


def fill(template: str, **values: object) -> Html:
    """`template` is ours and HTML; the values are whatever they are."""
    return Html(template.format_map({name: html_of(value) for name, value in values.items()}))


def html_of(value: object) -> Html:
    return value if isinstance(value, Html) else Html(escape(str(value)))


def joined(parts: Iterable[Html]) -> Html:
    return Html("".join(parts))


def foreign(text: object) -> Html:
    """What comes from outside: its own direction, nothing invisible, and not too much of it."""
    shown = html_of(printable(str(text)))
    # Names and URLs may be broken where a person would break them.
    return Html(f"<bdi>{shown.replace(',', ',<wbr>').replace('/', '/<wbr>')}</bdi>")


def foreign_sentence(text: object) -> Html:
    """Errors begin in lower case and end without a full stop."""
    plain = str(text)
    return foreign(plain[:1].upper() + plain[1:] + ("" if plain.endswith((".", "…")) else "."))


def stamp(at: datetime, clock: str = TO_THE_MINUTE) -> str:
    """`at` is aware UTC."""
    return f"{at.day} {at:%b %Y}, {at:{clock}} UTC"


def time(at: datetime, clock: str = TO_THE_MINUTE) -> Html:
    return fill('<time datetime="{iso}">{text}</time>', iso=f"{at:%Y-%m-%dT%H:%M:%SZ}", text=stamp(at, clock))


def moment(at: datetime | None, now: datetime) -> Html:
    """How long until or since then, and when that is."""
    if at is None:
        return Html("none")
    relative = f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"
    return fill("{relative}<br>{at}", relative=relative, at=time(at))


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
