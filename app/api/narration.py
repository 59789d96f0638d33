"""What `/status` says, in sentences: how it is, what happens next, what to look at, what happened."""

from collections.abc import Mapping
from datetime import UTC, datetime

from ..core.catalogue import EVENTS, REASONS, REMEDIES, Words
from ..core.status import State
from ..core.text import printable
from .markup import TO_THE_SECOND, Html, fill, foreign, foreign_sentence, span, time
from .problems import KINDS
from .schemas import ErrorNote, StatusAnswer


def lead(answer: StatusAnswer, now: datetime) -> Html:
    certificate = answer.certificate
    if certificate is None:
        return fill("There is no certificate yet, and nothing is served.")
    end = certificate.effective_not_after
    if answer.state is State.REVOKED:
        return fill("The certificate was revoked, and is not served any more.")
    if answer.state is State.EXPIRED:
        ago, at = span(now - end), time(end)
        return fill("The certificate ended {ago} ago, on {at}, and is not served any more.", ago=ago, at=at)
    but = ", but something needs a look" if answer.state is State.DEGRADED else ""
    sentence = "The certificate is good for another {left}, until {at}{but}."
    return fill(sentence, left=span(end - now), at=time(end), but=but)


def what_next(answer: StatusAnswer, now: datetime) -> Html:
    renewal, at = answer.renewal, answer.renewal.next_attempt_at
    if renewal.in_progress:
        return fill("An attempt is running at this moment.")
    if at is None:
        return fill("Nothing happens by itself now: it waits for a one-time token or a certificate.")
    what = "It is renewed by itself"
    if answer.state is State.EXPIRED:
        what = "It is tried all the same, in case it is our clock that is wrong: next"
    elif answer.certificate is None:
        what = "The connection is tried again"
    elif "proof-pending" in answer.reasons or renewal.consecutive_failures:
        what = "The next attempt is made"
    if at <= now:
        return fill("{what} now.", what=what)
    return fill("{what} in {span}, on {at}.", what=what, span=span(at - now), at=time(at))


def notes(answer: StatusAnswer, now: datetime) -> list[Html]:
    """What to look at: each reason, and the last failure, with what helps."""
    found = [_note(REASONS.get(reason, Words(reason, ""))) for reason in answer.reasons]
    error = answer.renewal.last_error
    return found if error is None else [*found, _failure(error, now)]


def _note(words: Words) -> Html:
    return fill(
        "<li><p><strong>{meaning}</strong></p><p>{remedy}</p></li>",
        meaning=words.meaning,
        remedy=words.remedy,
    )


def _failure(error: ErrorNote, now: datetime) -> Html:
    return fill(
        "<li><p><strong>The last attempt failed {ago} ago: {title}.</strong></p><p>{detail}</p>"
        "<p>{remedy}</p></li>",
        ago=span(now - error.at),
        title=_title(error.code),
        detail=foreign_sentence(error.detail),
        remedy=REMEDIES.get(error.code, ""),
    )


def _title(code: object) -> str:
    kind = KINDS.get(code) if isinstance(code, str) else None
    return kind.title if kind is not None else printable(str(code))


def event(entry: Mapping[str, object]) -> Html:
    """One entry of the journal, which is a file: anything may be in it."""
    name = str(entry.get("event", ""))
    what = fill("{what}", what=EVENTS[name]) if name in EVENTS else foreign(name)
    code = entry.get("code")
    if name == "attempt-failed" and code is not None:
        tried = "connect" if entry.get("wanted") == "connected" else "renew"
        what = fill("An attempt to {tried} failed: {title}", tried=tried, title=_title(code))
    return fill(
        "<li>{at}<div><p>{what}</p>{more}</div></li>",
        at=_event_time(entry.get("at")),
        what=what,
        more=_more(entry),
    )


def _more(entry: Mapping[str, object]) -> Html:
    if entry.get("detail"):
        return fill("<p>{detail}</p>", detail=foreign_sentence(entry["detail"]))
    if entry.get("not_after"):
        short, end = printable(str(entry.get("fingerprint"))[:8]), _event_time(entry["not_after"])
        return fill("<p>{short}… is good until {end}</p>", short=short, end=end)
    told = next((entry[name] for name in ("announced", "url", "issuer") if entry.get(name)), None)
    return fill("<p>{told}</p>", told=foreign(told)) if told is not None else Html("")


def _event_time(at: object) -> Html:
    try:
        return time(datetime.fromisoformat(str(at)).astimezone(UTC), TO_THE_SECOND)
    except (ValueError, OverflowError):
        return fill("<span>{at}</span>", at=foreign(at))
