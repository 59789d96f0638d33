"""An answer as bytes: rendered once, and sent the same by a connection itself and by a route."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import Response
from starlette.types import Send


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
