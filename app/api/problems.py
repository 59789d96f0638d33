"""Answers as bytes, and failures as RFC 9457 problems. The HTTP status of a failure is chosen here alone."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus

from fastapi import Response
from starlette.types import Send

from ..core.text import rfc3339
from ..errors import SidecarError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table. `posted` is the status for a POST where that differs from reading."""

    status: int
    title: str
    posted: int | None = None


KINDS: Mapping[str, Kind] = {
    "bad-request": Kind(400, "The request cannot be understood"),
    "token-invalid": Kind(401, "The API token is missing or wrong"),
    "cross-origin": Kind(403, "Requests from other sites are refused"),
    "loopback-required": Kind(403, "This is never sent over a network"),
    "token-required": Kind(403, "This needs an API token, and none is configured"),
    "not-found": Kind(404, "There is nothing here"),
    "method-not-allowed": Kind(405, "The method is not allowed here"),
    "not-acceptable": Kind(406, "None of the accepted media types is available"),
    "request-timeout": Kind(408, "The request took too long"),
    "busy": Kind(409, "Another change is under way"),
    "not-current": Kind(409, "This is not the current certificate"),
    "too-large": Kind(413, "The request's body is too large"),
    "unsupported-media-type": Kind(415, "The body must be JSON"),
    "misdirected": Kind(421, "The host name is not one of ours"),
    "renewed-recently": Kind(429, "The last renewal was too short a time ago"),
    "headers-too-large": Kind(431, "The request's header fields are too large"),
    "internal-error": Kind(500, "A mistake in the sidecar"),
    "bad-settings": Kind(500, "The configuration cannot be used"),
    "store-damaged": Kind(500, "What is stored cannot be used"),
    "store-failed": Kind(500, "The store failed"),
    "notification-failed": Kind(500, "A neighbour could not be told"),
    "bad-credential": Kind(502, "The new credential must not be used"),
    "malformed-credential": Kind(502, "The new credential cannot be read"),
    "key-mismatch": Kind(502, "The new certificate is for another key"),
    "untrusted-chain": Kind(502, "The new chain does not hold together"),
    "subject-mismatch": Kind(502, "The new certificate has another subject"),
    "credential-not-yet-valid": Kind(502, "The new certificate is not valid yet"),
    "connector-failed": Kind(502, "The Connector failed"),
    "connector-protocol": Kind(502, "The Connector's answer breaks the contract"),
    "connector-rejected": Kind(502, "The Connector refused"),
    "connector-unauthenticated": Kind(502, "The Connector did not recognise us"),
    "connector-untrusted": Kind(502, "The Connector's server certificate does not verify"),
    "connector-unavailable": Kind(503, "The Connector is not available"),
    "store-locked": Kind(503, "Another sidecar has the store"),
    "stalled": Kind(503, "The sidecar makes no progress"),
    "too-many-connections": Kind(503, "Too many clients are connected"),
    "too-many-waiters": Kind(503, "Too many clients are waiting"),
    "not-connected": Kind(503, "There is no credential yet", posted=409),
    "credential-expired": Kind(503, "The credential has expired", posted=409),
    "credential-revoked": Kind(503, "The credential is revoked", posted=409),
    "connector-timeout": Kind(504, "The Connector took too long"),
    "store-write-failed": Kind(507, "The store cannot be written"),
}


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
    kind = KINDS.get(code, KINDS["internal-error"])
    return kind.posted if method == "POST" and kind.posted else kind.status


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
        "title": KINDS.get(code, KINDS["internal-error"]).title,
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
