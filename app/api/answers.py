"""An answer as bytes: rendered once, and sent the same by the fast path and by a route."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import Response
from starlette.types import Message, Send


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body. `of` adds the headers that every answer has."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = field(repr=False)
    _start: Message = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # uvicorn copies the list, so that one message serves every request.
        start = {"type": "http.response.start", "status": self.status, "headers": list(self.headers)}
        object.__setattr__(self, "_start", start)

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes = b"") -> "Answer":
        lines = {**headers, "X-Content-Type-Options": "nosniff"}
        if status != 304:
            lines["Content-Length"] = str(len(body))
        encoded = ((name.lower().encode(), value.encode("latin-1")) for name, value in lines.items())
        return cls(status, tuple(encoded), body)

    async def send(self, send: Send, *, method: str) -> None:
        await send(self._start)
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else self.body})

    def response(self) -> Response:
        """For a route. The headers are exactly ours."""
        response = Response(self.body, self.status)
        response.raw_headers = list(self.headers)
        return response
