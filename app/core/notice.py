"""What consumers are notified of, and the record of how far that has come.

    {"command": [NOTICE], "webhook": [NOTICE, ...]}

The record survives a kill, so that a change of the credential is delivered at least once. The newest
change stays in it after its delivery: a start that finds another credential in use has one to deliver.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from .generation import Generation, Origin

# A try that was cut off is made again: so many in all, and the next one so long after the last.
TRIES = 3
PAUSE = timedelta(seconds=10)

_BY_ORIGIN = {Origin.CONNECT: "connected", Origin.RENEW: "renewed", Origin.IMPORT: "imported"}
NEW_CREDENTIAL = frozenset(_BY_ORIGIN.values())
# Every other event is sent once.
AT_LEAST_ONCE = NEW_CREDENTIAL | {"revoked"}
_TIMES = frozenset({"at", "not_before", "not_after", "tried_at"})


@dataclass(frozen=True, slots=True)
class Notice:
    """One event on its way to one consumer. `id` lets a receiver drop what it got twice.

    `tries` counts those begun, `tried_at` is when the last one began; `told` notices are delivered or
    given up. `others` is what a later version has written beside them.
    """

    id: str
    event: str
    at: datetime
    fingerprint: str | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    detail: str | None = None
    tries: int = 0
    tried_at: datetime | None = None
    told: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def change(self) -> tuple[str, str | None, datetime]:
        """Equal for two notices of one change of the credential."""
        return self.event, self.fingerprint, self.at

    def wait(self, now: datetime) -> timedelta:
        """How long its next try has to wait; a clock that was set back makes that no longer."""
        if self.tried_at is None:
            return timedelta(0)
        return min(max(self.tried_at + PAUSE - now, timedelta(0)), PAUSE)


def notice_of(
    event: str, generation: Generation | None, *, new_id: str, at: datetime, detail: str | None = None
) -> Notice:
    """An event, with the dates of the credential in use."""
    if generation is None:
        return Notice(new_id, event, at, detail=detail)
    chain = generation.chain
    return Notice(new_id, event, at, chain.fingerprint, chain.not_before, chain.effective_not_after, detail)


def newest_change(generation: Generation, *, new_id: str) -> Notice:
    """How this credential came into use, or that it was revoked."""
    facts = generation.facts
    if facts.revoked_at is not None:
        return notice_of("revoked", generation, new_id=new_id, at=facts.revoked_at)
    return notice_of(_BY_ORIGIN[facts.origin], generation, new_id=new_id, at=facts.activated_at)


def to_record(notice: Notice) -> dict[str, Any]:
    """As JSON."""
    known = {each.name: getattr(notice, each.name) for each in fields(notice) if each.name != "others"}
    times = {name: known[name].isoformat() for name in _TIMES if known[name] is not None}
    return {**notice.others, **known, **times}


def from_record(record: Mapping[str, Any]) -> Notice:
    """TypeError or ValueError for what is no notice."""
    names = {each.name for each in fields(Notice)} - {"others"}
    known = {name: value for name, value in record.items() if name in names}
    times = {name: datetime.fromisoformat(known[name]) for name in _TIMES if known.get(name) is not None}
    others = {name: value for name, value in record.items() if name not in names}
    return Notice(**{**known, **times}, others=others)
