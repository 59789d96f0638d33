"""The Connector's clock, which may be wrong on purpose.

It sets the `Date` header, `not_before` of what is signed, and when tokens expire. The TLS layer stays on the
real clock: OpenSSL asks the operating system, so a certificate signed two days ahead is *refused* at the
listener (alert 42) until the real time reaches it, as behind an ingress with the right time.
"""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FORM = re.compile(r"([+-]?)(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_FORMS = "90d, 24h, 10m, 30s, 500ms or a number of seconds"
_LIMIT_SECONDS = (
    100 * 366 * 86400
)  # a century: beyond it dates stop being representable in X.509's short form


def real_now() -> datetime:
    """The operating system's time, in whole seconds like X.509."""
    return datetime.now(UTC).replace(microsecond=0)


class Clock:
    """Real time plus an offset."""

    def __init__(self, offset: timedelta = timedelta()) -> None:
        self.offset = offset

    def now(self) -> datetime:
        """The Connector's time, in UTC."""
        return datetime.now(UTC) + self.offset


def http_date(moment: datetime) -> str:
    """The moment as a `Date` header says it (RFC 9110, IMF-fixdate)."""
    return format_datetime(moment, usegmt=True)


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
