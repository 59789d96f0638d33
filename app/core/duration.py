"""Durations as people write them: `90d`, `24h`, `10m`, `30s`, `500ms`, or a number of seconds."""

import re
from datetime import timedelta

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
