"""The Connector's clock, which may be wrong on purpose.

It sets the `Date` header, `not_before` of what is signed, and when tokens expire. The TLS layer stays on the
real clock: OpenSSL asks the operating system, so a certificate signed two days ahead is *refused* at the
door (alert 42) until the real time reaches it, as happens with a skewed Connector behind an honest ingress.
"""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime


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
