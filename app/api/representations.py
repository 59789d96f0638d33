"""The current certificate in every form in which it is served, rendered once per generation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from ..core.credential import render
from ..core.generation import Generation
from ..core.text import rfc3339
from ..errors import CredentialExpired, CredentialRevoked, NoCredential
from .answers import Answer
from .negotiation import JSON, PEM_CHAIN, PEM_FILE, matches
from .ports import Sidecar
from .schemas import CertificateChain

NEGOTIATED = "/certificate"
CHAIN_FILE = "/certificate/chain.pem"
LEAF_FILE = "/certificate/leaf.pem"
CA_FILE = "/certificate/ca.pem"
FILES = (CHAIN_FILE, LEAF_FILE, CA_FILE)


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
    """A generation's forms, by media type and by path. There is no `CA_FILE` for a leaf alone."""

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
        CHAIN_FILE: (PEM_CHAIN, chain.pem),
        LEAF_FILE: (PEM_FILE, render([chain.leaf])),
        CA_FILE: (PEM_FILE, chain.ca_pem),
    }
    forms = {name: Representation.of(name, body, Vary="Accept") for name, body in negotiated.items()}
    forms |= {path: Representation.of(kind, body) for path, (kind, body) in files.items() if body is not None}
    return Rendered(generation, forms)


class Shelf:
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
