"""Text for people: what others send, made fit to show, and durations as people write them."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate

_SHOWN = 256  # characters of one foreign text in a log, an answer or a page
# What must not be shown even in parts: a run of base64 may be shorter than the limit below.
_SECRET_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*(PRIVATE KEY|CERTIFICATE REQUEST)-----"
    r".*?(?:-----END [A-Z0-9 ]*(?:PRIVATE KEY|CERTIFICATE REQUEST)-----|\Z)",
    re.DOTALL,
)
# The URL-safe alphabet too, in which tokens come; a backslash, as in `\/` and `\n` of raw JSON, breaks
# no run. The lookbehind keeps the search linear.
_BASE64 = re.compile(r"(?<![\w+/=\\-])[\w+/=\\-]{60,}", re.ASCII)

# Of these nothing is removed: they identify what is public.
_IDENTIFIER = re.compile(r"[0-9a-f]{64}|[0-9a-f-]{36}")

# Largest first: `format_duration` counts them down in this order.
_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(d|h|m|s|ms)?")

# A century: longer than anything meant, and a date plus this is still a date.
_LONGEST = timedelta(days=36_500)


def printable(text: str) -> str:
    """Foreign text made fit for a log, an answer, a metric, a terminal or a page.

    At most 256 characters, each of them visible (others as `\\u202e`), without private keys and CSRs, and
    without runs of 60 or more base64 characters.
    """
    text = _SECRET_BLOCK.sub(lambda block: f"[{block[1].lower()} removed]", text.strip())
    text = _BASE64.sub("[base64 removed]", text)
    shown = [_visible(character) for character in text[: _SHOWN + 1]]
    ends = list(accumulate(map(len, shown)))
    if not ends or ends[-1] <= _SHOWN:
        return "".join(shown)
    return "".join(shown[: sum(end < _SHOWN for end in ends)]) + "…"


def visible(text: str) -> str:
    """The text without control characters, line breaks and marks of direction, which are escaped."""
    return text if text.isprintable() else "".join(map(_visible, text))


def printable_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields of an event, fit to be shown; those that are None are left out.

    `detail` is a sentence of ours whose foreign parts are printable already: it is not shortened.
    """
    return {
        name: visible(value) if name == "detail" and isinstance(value, str) else _printable_value(value)
        for name, value in fields.items()
        if value is not None
    }


def _printable_value(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    text = str(value)
    return text if _IDENTIFIER.fullmatch(text) else printable(text)


def rfc3339(moment: datetime) -> str:
    """A moment in UTC, to the second."""
    # strftime does not pad a year before 1000, which a certificate may begin in.
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def parse_duration(text: str) -> timedelta:
    """Read one duration, never negative and at most 36500 days; ValueError does not repeat the text."""
    written = _WRITTEN.fullmatch(text.strip())
    if written is None:
        raise ValueError(
            "is not a duration: write 90d, 24h, 10m, 30s, 500ms or a number of seconds, not negative"
        )
    number, unit = written.groups()
    try:
        duration = float(number) * _UNITS[unit or "s"]
    except OverflowError:
        duration = timedelta.max
    if duration > _LONGEST:
        raise ValueError(f"is too long: the longest duration is {_LONGEST.days}d")
    return duration


def format_duration(duration: timedelta) -> str:
    """The two largest units, rounded towards zero: `2d 3h`, `10m`, `1s 500ms`, `0s`."""
    rest = abs(duration)
    counts: list[tuple[int, str]] = []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count or counts:
            counts.append((count, unit))
    text = " ".join(f"{count}{unit}" for count, unit in counts[:2] if count) or "0s"
    return f"-{text}" if counts and duration < timedelta(0) else text
