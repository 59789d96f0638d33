"""Durations as people write them: `90d`, `24h`, `10m`, `30s`, `500ms`, or a number of seconds.

The same forms as the sidecar's settings, so that one notation serves for both sides of a test.
"""

import re
from datetime import timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FORM = re.compile(r"([+-]?)(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_FORMS = "90d, 24h, 10m, 30s, 500ms or a number of seconds"
_LIMIT_SECONDS = (
    100 * 366 * 86400
)  # a century: beyond it dates stop being representable in X.509's short form


def parse_duration(text: str) -> timedelta:
    """A duration of zero or more; raises ValueError, saying which forms there are."""
    duration = parse_offset(text)
    if duration < timedelta():
        raise ValueError(f"{text!r} is negative; a duration is {_FORMS}")
    return duration


def parse_offset(text: str) -> timedelta:
    """A duration that may be negative; raises ValueError."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration: {_FORMS}")
    sign, number, unit = match.groups()
    seconds = float(number) * _UNITS[unit or "s"]
    if seconds > _LIMIT_SECONDS:
        raise ValueError(f"{text!r} is longer than a century")
    return timedelta(seconds=-seconds if sign == "-" else seconds)


def parse_seconds(text: str) -> float:
    """The same as `parse_duration`, in seconds: what faults take as their parameter."""
    return parse_duration(text).total_seconds()
