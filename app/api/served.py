"""What is ready to be served: the current certificate in each form, rendered once per generation, and probes.

`FastPath` answers the paths that are requested most from these bytes. It only gives answers that need no
explanation; the routes give the same answers, and explain.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from starlette.types import Scope

from ..core.credential import render
from ..core.generation import Generation
from ..core.text import rfc3339
from ..engine.ports import Sidecar
from ..errors import CredentialExpired, CredentialRevoked, NoCredential
from .negotiation import JSON, PEM_CHAIN, PEM_FILE, choose, matches
from .paths import CA_FILE, CERTIFICATE, CHAIN_FILE, LEAF_FILE, LIVEZ, READYZ
from .problems import Answer
from .schemas import CertificateChain

_FILES = (CHAIN_FILE.path, LEAF_FILE.path, CA_FILE.path)
ALIVE = Answer.of(200, {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}, b"ok\n")
_Fields = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Representation:
    """One form: the whole, and what says that it has not changed."""

    etag: bytes
    whole: Answer
    unchanged: Answer

    @classmethod
    def of(cls, media_type: str, body: bytes, **headers: str) -> "Representation":
        etag = f'"{sha256(media_type.encode() + body).hexdigest()[:32]}"'
        shared = {"ETag": etag, "Cache-Control": "no-cache", **headers}
        whole = Answer.of(200, {"Content-Type": media_type, **shared}, body)
        return cls(etag.encode(), whole, Answer.of(304, shared))

    def answer(self, if_none_match: bytes | None) -> Answer:
        return self.unchanged if matches(self.etag, if_none_match) else self.whole


@dataclass(frozen=True, slots=True)
class Rendered:
    """A generation's forms, by media type and by path. There is no CA_FILE for a leaf alone."""

    generation: Generation
    forms: Mapping[str, Representation] = field(repr=False)

    @property
    def expires(self) -> datetime:
        return self.generation.chain.effective_not_after


def render_all(generation: Generation) -> Rendered:
    chain = generation.chain
    negotiated = {
        JSON: CertificateChain.of(chain).model_dump_json().encode(),
        PEM_CHAIN: chain.pem,
        PEM_FILE: chain.pem,
    }
    files = {
        CHAIN_FILE.path: (PEM_CHAIN, chain.pem),
        LEAF_FILE.path: (PEM_FILE, render([chain.leaf])),
        CA_FILE.path: (PEM_FILE, chain.ca_pem),
    }
    forms = {name: Representation.of(name, body, Vary="Accept") for name, body in negotiated.items()}
    forms |= {path: Representation.of(kind, body) for path, (kind, body) in files.items() if body is not None}
    return Rendered(generation, forms)


class Served:
    """What can be served at this moment. It asks the sidecar each time, so that it cannot be behind."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._rendered: Rendered | None = None

    def usable(self) -> Rendered | None:
        """The current generation's forms; None without one, or if nobody would accept it any more."""
        generation = self._sidecar.status.generation
        if generation is None or generation.facts.revoked_at is not None:
            return None
        if self._rendered is None or self._rendered.generation is not generation:
            self._rendered = render_all(generation)
        return self._rendered if self._sidecar.now() < self._rendered.expires else None

    def current(self) -> Rendered:
        """The same, or NoCredential, CredentialRevoked or CredentialExpired."""
        rendered = self.usable()
        if rendered is not None:
            return rendered
        generation = self._sidecar.status.generation
        if generation is None:
            raise NoCredential("There is no credential yet: import one, or connect with a one-time token.")
        if generation.facts.revoked_at is not None:
            raise CredentialRevoked(
                "The credential is revoked: connect with a one-time token, or import one."
            )
        end = rfc3339(generation.chain.effective_not_after)
        raise CredentialExpired(
            f"The credential expired at {end}: connect with a one-time token, or import one."
        )


class FastPath:
    """`find` looks one request up."""

    def __init__(self, sidecar: Sidecar, served: Served) -> None:
        self._sidecar = sidecar
        self._served = served
        self._paths: dict[str, Callable[[str, _Fields], Answer | None]] = {
            LIVEZ.path: self._live,
            READYZ.path: self._ready,
            CERTIFICATE.path: self._negotiated,
            **dict.fromkeys(_FILES, self._file),
        }

    def find(self, scope: Scope, fields: _Fields) -> Answer | None:
        """The answer to one of TARGETS, or None if this is for the router."""
        if scope["method"] not in {"GET", "HEAD"} or fields.get(b"content-length", b"0") != b"0":
            return None
        if b"transfer-encoding" in fields:
            return None
        path = scope["path"]
        return self._paths[path](path, fields)

    def _live(self, _: str, __: _Fields) -> Answer | None:
        return ALIVE if self._sidecar.stalled() is None else None

    def _ready(self, _: str, __: _Fields) -> Answer | None:
        return ALIVE if self._served.usable() is not None else None

    def _negotiated(self, _: str, fields: _Fields) -> Answer | None:
        accept = fields.get(b"accept")
        media_type = JSON if accept is None else choose(accept)
        return self._file(media_type, fields) if media_type is not None else None

    def _file(self, form: str, fields: _Fields) -> Answer | None:
        rendered = self._served.usable()
        representation = rendered.forms.get(form) if rendered is not None else None
        return representation.answer(fields.get(b"if-none-match")) if representation is not None else None
