"""Answers as bytes, and failures as RFC 9457 problems. The HTTP status of a failure is chosen here alone."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus

from fastapi import Response
from starlette.types import Send

from ..core.catalogue import CODES, Code
from ..core.text import rfc3339
from ..errors import SidecarError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body. `of` adds the headers that every answer has."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = field(repr=False)
    _parts: tuple[bytes, bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        start = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n".encode()
        object.__setattr__(self, "_parts", (start, render_headers(self.headers) + b"\r\n"))

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes = b"") -> "Answer":
        lines = {**headers, "X-Content-Type-Options": "nosniff"}
        if status != 304:
            lines["Content-Length"] = str(len(body))
        encoded = ((name.lower().encode(), value.encode("latin-1")) for name, value in lines.items())
        return cls(status, tuple(encoded), body)

    def wire(self, first: bytes, method: str) -> bytes:
        """All of it as it goes over a connection, with these rendered headers before its own."""
        start, headers = self._parts
        return b"".join((start, first, headers, b"" if method == "HEAD" else self.body))

    async def send(self, send: Send, *, method: str) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else self.body})

    def response(self) -> Response:
        """For a route. The headers are exactly ours."""
        response = Response(self.body, self.status)
        response.raw_headers = list(self.headers)
        return response


def render_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


class Refusal(Exception):
    """The API's own no: a code of the table, a sentence, and headers that belong to it."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}

    def answer(self) -> Answer:
        return problem(self.code, self.detail, headers=self.headers)


def status_of(code: str, *, method: str = "GET") -> int:
    known = CODES.get(code, Code.INTERNAL_ERROR)
    return known.posted if method == "POST" else known.status


def problem(
    code: str,
    detail: str,
    *,
    method: str = "GET",
    retryable: bool = False,
    headers: Mapping[str, str] | None = None,
    **extensions: object,
) -> Answer:
    status = status_of(code, method=method)
    body = {
        "type": f"urn:compass-sidecar:problem:{code}",
        "title": CODES.get(code, Code.INTERNAL_ERROR).words,
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": retryable,
        **extensions,
    }
    fixed = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", **(headers or {})}
    return Answer.of(status, fixed, json.dumps(body, separators=(",", ":")).encode())


def problem_of(
    error: SidecarError, *, method: str, valid_until: datetime | None = None, **extensions: object
) -> Answer:
    """A known failure. `valid_until` is the end of the credential that stays in use."""
    retry_after = getattr(error, "retry_after", None)
    headers = {}
    if isinstance(retry_after, timedelta):
        headers["Retry-After"] = str(math.ceil(retry_after.total_seconds()))
    if valid_until is not None:
        extensions["valid_until"] = rfc3339(valid_until)
    return problem(
        error.code, error.detail, method=method, retryable=error.retryable, headers=headers, **extensions
    )
