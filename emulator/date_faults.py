"""Rows of the fault table: answers whose `Date` header is wrong.

They apply to every answer of the operation, whichever part of the system gives it. Each row takes the
Connector's time, the parameter, and how often the fault happened before.
"""

import re
from datetime import datetime

from .clock import http_date
from .durations import parse_duration
from .fault_kinds import DateHeader

_YEAR_1 = "Mon, 01 Jan 0001 00:00:00 GMT"
_YEAR_9999 = "Fri, 31 Dec 9999 23:59:59 GMT"
_ODD = "yesterday at noon"
_VISIBLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def _ahead(now: datetime, param: str, _before: int) -> str:
    return http_date(now + parse_duration(param))


def _behind(now: datetime, param: str, _before: int) -> str:
    return http_date(now - parse_duration(param))


def _changing(now: datetime, param: str, before: int) -> str | None:
    """Another kind for each answer, in turn."""
    right = http_date(now)
    turns = (_ahead(now, param, 0), _behind(now, param, 0), None, _YEAR_9999, right, _ODD, _YEAR_1)
    return turns[before % len(turns)]


def _text(param: str) -> str:
    if not _VISIBLE.fullmatch(param):
        raise ValueError(f"{param!r} cannot be the value of a header")
    return param


DATES = (
    DateHeader("no-date", "no Date header", lambda _now, _param, _before: None),
    DateHeader(
        "date-ahead",
        "the Date header is ahead by this",
        _ahead,
        default="60d",
        check=parse_duration,
        weight=0,
    ),
    DateHeader(
        "date-behind",
        "the Date header is behind by this",
        _behind,
        default="60d",
        check=parse_duration,
        weight=0,
    ),
    DateHeader(
        "date-year-1", "the Date header names the year 1", lambda _now, _param, _before: _YEAR_1, weight=0
    ),
    DateHeader(
        "date-year-9999",
        "the Date header names the year 9999",
        lambda _now, _param, _before: _YEAR_9999,
        weight=0,
    ),
    DateHeader(
        "date-odd",
        "the Date header is this text",
        lambda _now, param, _before: param,
        default=_ODD,
        check=_text,
        weight=0,
    ),
    DateHeader(
        "date-changing",
        "ahead by this, behind, absent, year 9999, right, odd, year 1: another one for each answer",
        _changing,
        default="60d",
        check=parse_duration,
        weight=0,
    ),
)
