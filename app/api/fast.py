"""The paths that are asked for all day, answered with bytes that are ready, before the router is asked.

It only says yes: whatever needs a word of explanation is left to the routes, which answer the same
as this where this answers.
"""

from collections.abc import Callable, Mapping

from starlette.types import Scope

from .answers import Answer
from .negotiation import JSON, choose
from .ports import Sidecar
from .representations import FILES, NEGOTIATED, Shelf

ALIVE = Answer.of(200, {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}, b"ok\n")
# Request targets as they come over a connection: whatever is spelled otherwise is the router's.
TARGETS = {path.encode(): path for path in ("/livez", "/readyz", NEGOTIATED, *FILES)}
_METHODS = frozenset({"GET", "HEAD"})
_Fields = Mapping[bytes, bytes]


class FastPath:
    """`find` looks one request up."""

    def __init__(self, sidecar: Sidecar, shelf: Shelf) -> None:
        self._sidecar = sidecar
        self._shelf = shelf
        self._paths: dict[str, Callable[[str, _Fields], Answer | None]] = {
            "/livez": self._live,
            "/readyz": self._ready,
            NEGOTIATED: self._negotiated,
            **dict.fromkeys(FILES, self._file),
        }

    def find(self, scope: Scope, fields: _Fields) -> Answer | None:
        """The answer to one of TARGETS, or None if this is for the router."""
        if scope["method"] not in _METHODS or fields.get(b"content-length", b"0") != b"0":
            return None
        if b"transfer-encoding" in fields:
            return None
        path = scope["path"]
        return self._paths[path](path, fields)

    def _live(self, _: str, __: _Fields) -> Answer | None:
        return ALIVE if self._sidecar.stalled() is None else None

    def _ready(self, _: str, __: _Fields) -> Answer | None:
        return ALIVE if self._shelf.usable() is not None else None

    def _negotiated(self, _: str, fields: _Fields) -> Answer | None:
        accept = fields.get(b"accept")
        media_type = JSON if accept is None else choose(accept)
        return self._file(media_type, fields) if media_type is not None else None

    def _file(self, form: str, fields: _Fields) -> Answer | None:
        rendered = self._shelf.usable()
        representation = rendered.forms.get(form) if rendered is not None else None
        return representation.answer(fields.get(b"if-none-match")) if representation is not None else None
