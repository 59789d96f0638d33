"""Header fields in which a client says what it wants: `Accept`, `If-None-Match`, `Prefer`.

What cannot be understood is passed over, as RFC 9110 and 7240 ask of servers. Clients repeat
themselves, so that results are remembered: a bounded number, and of short fields only.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

from starlette.types import Scope

JSON = "application/json"
PEM_CHAIN = "application/pem-certificate-chain"
PEM_FILE = "application/x-pem-file"
MEDIA_TYPES = (JSON, PEM_CHAIN, PEM_FILE)  # the server's preference among equals

_READ = frozenset(
    {
        b"accept",
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"if-none-match",
        b"origin",
        b"prefer",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"transfer-encoding",
    }
)
_ENTITY_TAG = re.compile(rb'(?:W/)?("[^"]*")')
_QUALITY = re.compile(rb"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
_SECONDS = re.compile(rb"[0-9]{1,9}")
_PATIENCE = timedelta(seconds=60)
_LONGEST = 300  # seconds
_REMEMBERED = 256  # results for each header, and bytes of a header
_ANY = frozenset({b"*"})
T = TypeVar("T")


def gather(scope: Scope) -> dict[bytes, bytes]:
    """The header fields that this API reads; those that come twice are joined by a comma."""
    fields: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def remembered(parse: Callable[[bytes], T]) -> Callable[[bytes], T]:
    cached = lru_cache(maxsize=_REMEMBERED)(parse)
    return lambda value: cached(value) if len(value) <= _REMEMBERED else parse(value)


@remembered
def choose(accept: bytes) -> str | None:
    """The media type to answer with, None if the client accepts none of them."""
    ranges: dict[bytes, float] = {}
    for item in accept.split(b","):
        name, *parameters = (part.strip().lower() for part in item.split(b";"))
        if name and (quality := _quality(parameters)) is not None:
            ranges[name] = max(quality, ranges.get(name, 0.0))
    if not accept.strip():
        return JSON
    # max() keeps the first of equals.
    best = max(MEDIA_TYPES, key=lambda media_type: _wanted(media_type.encode(), ranges))
    return best if _wanted(best.encode(), ranges) > 0 else None


def _quality(parameters: list[bytes]) -> float | None:
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            return float(value) if _QUALITY.fullmatch(value.strip()) else None
    return 1.0


def _wanted(media_type: bytes, ranges: dict[bytes, float]) -> float:
    """The most specific range decides."""
    for candidate in (media_type, media_type.partition(b"/")[0] + b"/*", b"*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0


@remembered
def entity_tags(if_none_match: bytes) -> frozenset[bytes]:
    """The tags without their weakness, which If-None-Match does not look at."""
    if if_none_match.strip() == b"*":
        return _ANY
    return frozenset(_ENTITY_TAG.findall(if_none_match))


def matches(etag: bytes, if_none_match: bytes | None) -> bool:
    if if_none_match is None:
        return False
    tags = entity_tags(if_none_match)
    return tags is _ANY or etag in tags


@dataclass(frozen=True, slots=True)
class Preference:
    """How long a caller wants to be kept waiting; `applied` is what to say of it, empty if nothing."""

    patience: timedelta
    applied: str


def parse_prefer(prefer: bytes) -> Preference:
    """`respond-async` does not wait at all, unless it comes with `wait=N` (RFC 7240, section 4.3)."""
    asked: dict[bytes, bytes] = {}
    for item in prefer.split(b","):
        name, _, value = item.partition(b";")[0].partition(b"=")
        asked.setdefault(name.strip().lower(), value.strip().strip(b'"'))
    applied = ["respond-async"] if asked.get(b"respond-async") == b"" else []
    patience = timedelta(0) if applied else _PATIENCE
    if _SECONDS.fullmatch(asked.get(b"wait", b"")):
        seconds = min(int(asked[b"wait"]), _LONGEST)
        patience = timedelta(seconds=seconds)
        applied.append(f"wait={seconds}")
    return Preference(patience, ", ".join(applied))
