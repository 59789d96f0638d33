"""The validity as a picture: what is over, now, the renewal window, and the end."""

from datetime import datetime, timedelta

from .markup import Html, fill, stamp
from .schemas import CertificateStatus

# Attributes instead of inline styles, which the page's policy forbids.
_PICTURE = """<svg role="img" aria-label="{told}" class="{room}">
<defs>
<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<path class="hatch" d="M0 0v7"/></pattern>
<clipPath id="round"><rect width="100%" y="24" height="14" rx="7"/></clipPath>
</defs>
<g clip-path="url(#round)">
<rect class="track" y="24" width="100%" height="14"/>
<rect class="window" x="{due}%" y="24" width="{window}%" height="14"/>
<rect class="past" y="24" width="{here}%" height="14"/>
</g>
<line class="tick" x1="{due}%" x2="{due}%" y1="20" y2="43"/>
<circle class="knob" cx="{here}%" cy="31" r="9"/>
<text class="now" x="{here}%" y="12" text-anchor="{here_anchor}">now</text>
<text x="{due}%" y="60" text-anchor="{due_anchor}">renewal due {due_at}</text>
<g class="ends">
<text y="60">from {begin}</text>
<text x="100%" y="60" text-anchor="end">until {end}</text>
</g>
</svg>
<p class="key">Filled: the time that is over. Hatched: the renewal window, from when renewal is due.</p>"""


def draw(certificate: CertificateStatus, due_at: datetime | None, now: datetime) -> Html:
    """The renewal window goes from `due_at` to the end."""
    begin, end = certificate.not_before, certificate.effective_not_after
    due_at = min(due_at or end, end)
    here, due = _share(begin, end, now), _share(begin, end, due_at)
    told = (
        f"Valid from {stamp(begin)} until {stamp(end)}. {here:.0f} % of that time is over. "
        f"Renewal is due on {stamp(due_at)}."
    )
    label = "%H:%M:%S" if end - begin < timedelta(days=3) else "%-d %b %Y"
    return fill(
        _PICTURE,
        told=told,
        here=f"{here:.2f}",
        due=f"{due:.2f}",
        window=f"{100 - due:.2f}",
        here_anchor=_anchor(here),
        due_anchor=_anchor(due),
        due_at=f"{due_at:{label}}",
        begin=f"{begin:{label}}",
        end=f"{end:{label}}",
        # Labels in one row would meet.
        room="one-row" if 30 <= due <= 70 else "two-rows",
    )


def _share(begin: datetime, end: datetime, at: datetime) -> float:
    lifetime = max(end - begin, timedelta(seconds=1))
    return min(100.0, max(0.0, (at - begin) / lifetime * 100))


def _anchor(share: float) -> str:
    """A label stays inside the picture, at a phone's width too."""
    return "start" if share < 25 else "end" if share > 75 else "middle"
