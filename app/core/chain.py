"""Verification of what the Connector signed, before any of it is used.

RFC 5280 path validation, cut to what contract section 1 says of these chains: leaves without SAN
and sometimes without AKI, which the library's own client verifier refuses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from ..errors import (
    CredentialExpired,
    CredentialNotYetValid,
    KeyMismatch,
    MalformedCredential,
    SubjectMismatch,
    UntrustedChain,
)
from .answer import SignedAnswer
from .certificate import (
    CanonicalName,
    begins,
    ends,
    is_ca,
    is_for_clients,
    is_self_signed,
    is_weak,
    issued_by,
    issuer_key,
    issuer_text,
    may_sign,
    may_sign_certificates,
    path_length,
    subject_key,
    subject_text,
    subject_values,
)
from .credential import Chain, Found, find_certificates, is_plain
from .csr import attributes
from .pem import blocks
from .text import printable, rfc3339

_LONGEST_PATH = 10
_MOST_PATHS = 100
_LEFT_OUT_SHOWN = 5
# The Connector does not back-date, and the `Date` header that we judge by is rounded and made by
# its ingress: a leaf that is this little early is left to the probe.
EARLY_TOLERANCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the signed chain has to fit: our key, the subject asked for, and valid at that moment."""

    public_key: rsa.RSAPublicKey = field(repr=False)
    subject: x509.Name
    at: datetime


def verify(answer: SignedAnswer, expected: Expected) -> Chain:
    """The answer's chain in issuing order, with the Connector's own bytes where it came so.

    Raises MalformedCredential, KeyMismatch, SubjectMismatch, UntrustedChain, CredentialExpired or
    CredentialNotYetValid, each with a sentence that names the certificate.
    """
    leaf = _only(_strict(answer.leaf_pem, "clientCertificate"))
    chain = _strict(answer.chain_pem, "certificateChain")
    authorities = _strict(answer.ca_pem, "caCertificate")
    if leaf not in chain.certificates:
        if chain.unreadable:
            raise MalformedCredential(chain.unreadable[0])
        raise UntrustedChain("clientCertificate is not part of certificateChain")
    found = Found(chain.certificates + authorities.certificates, chain.unreadable + authorities.unreadable)
    path = find_path(leaf, found, expected.at)
    if len(path) < 2:
        raise UntrustedChain("the chain has no CA certificate")
    check_leaf(leaf, expected)
    check_issuers(path)
    check_dates(path, expected.at)
    return replace(
        _as_it_came(path, chain_pem=answer.chain_pem, ca_pem=answer.ca_pem), left_out=left_out(path, found)
    )


def _strict(pem: bytes, name: str) -> Found:
    others = sorted({block.label for block in blocks(pem)} - {"CERTIFICATE"})
    if others:
        label = printable(others[0])
        raise MalformedCredential(f"{name} has a PEM block {label}; only CERTIFICATE is allowed")
    try:
        found = find_certificates(pem)
    except MalformedCredential as error:
        raise MalformedCredential(f"{name} {error.detail}") from error
    return replace(found, unreadable=tuple(f"{name} {sentence}" for sentence in found.unreadable))


def _only(found: Found) -> x509.Certificate:
    if found.unreadable:
        raise MalformedCredential(found.unreadable[0])
    if len(found.certificates) != 1:
        raise MalformedCredential(f"clientCertificate has {len(found.certificates)} certificates, not one")
    return found.certificates[0]


def find_path(leaf: x509.Certificate, found: Found, at: datetime) -> tuple[x509.Certificate, ...]:
    """The best path from the leaf to a CA that is valid at that moment. What is not on it is not needed.

    Where no valid CA issued the leaf, the path goes over what did: a check can then say what is wrong
    with it. It is the leaf alone if no other certificate could be its CA. Raises MalformedCredential or
    UntrustedChain if one could be and none is.
    """
    given = [each for each in found.certificates if each != leaf]
    valid = [each for each in given if _may_issue(each) and _is_valid(each, at)]
    for candidates in (valid, given):
        # Cross-signing among many CAs makes more paths than need to be looked at.
        path = max(islice(_paths((leaf,), _Issuers(candidates)), _MOST_PATHS), key=_merit)
        if len(path) > 1:
            return path
    if found.unreadable:
        raise MalformedCredential(found.unreadable[0])
    if any(map(is_ca, given)):
        raise UntrustedChain(
            f"the client certificate was signed by none of the other {len(given)}; its issuer is"
            f" '{issuer_text(leaf)}'"
        )
    return (leaf,)


def left_out(path: Sequence[x509.Certificate], found: Found) -> str | None:
    """A sentence about the certificates that are not on the path; None if there are none."""
    others = [*map(_described, set(found.certificates).difference(path)), *found.unreadable]
    if not others:
        return None
    count = "1 certificate is" if len(others) == 1 else f"{len(others)} certificates are"
    return f"{count} not needed for the chain and left out: {'; '.join(sorted(others)[:_LEFT_OUT_SHOWN])}"


def _described(certificate: x509.Certificate) -> str:
    issuer = "itself" if is_self_signed(certificate) else issuer_text(certificate)
    return f"{subject_text(certificate)}, issued by {issuer}, valid until {rfc3339(ends(certificate))}"


def _may_issue(certificate: x509.Certificate) -> bool:
    return is_ca(certificate) and may_sign_certificates(certificate)


def _is_valid(certificate: x509.Certificate, at: datetime) -> bool:
    return ends(certificate) > at and begins(certificate) - at <= EARLY_TOLERANCE


class _Issuers:
    """Finds the issuers of a certificate; each signature is verified once."""

    def __init__(self, candidates: Sequence[x509.Certificate]) -> None:
        self._by_subject: dict[CanonicalName, list[x509.Certificate]] = {}
        for each in candidates:
            self._by_subject.setdefault(subject_key(each), []).append(each)
        self._found: dict[x509.Certificate, list[x509.Certificate]] = {}

    def of(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        if certificate not in self._found:
            named = self._by_subject.get(issuer_key(certificate), [])
            self._found[certificate] = [each for each in named if issued_by(certificate, each)]
        return self._found[certificate]


def _paths(path: tuple[x509.Certificate, ...], issuers: _Issuers) -> Iterator[tuple[x509.Certificate, ...]]:
    """Every way on from the end of the path, to where nothing issued the last certificate but itself."""
    above = [each for each in issuers.of(path[-1]) if each not in path]
    if not above or len(path) == _LONGEST_PATH or path[-1] in issuers.of(path[-1]):
        yield path
        return
    for issuer in above:
        yield from _paths((*path, issuer), issuers)


def _merit(path: Sequence[x509.Certificate]) -> tuple[bool, bool, datetime, bool, int]:
    """Better is what OpenSSL loads, then what may issue, then what lasts longer, then what has its root."""
    return (
        not any(map(is_weak, path[1:])),
        _issuer_fault(path) is None,
        min(map(ends, path)),
        is_self_signed(path[-1]),
        -len(path),
    )


def check_leaf(leaf: x509.Certificate, expected: Expected) -> None:
    """Raise unless the leaf is for our key and subject, and for client authentication."""
    if leaf.public_key() != expected.public_key:
        raise KeyMismatch("the signed certificate is for another key than ours")
    if attributes(expected.subject) != subject_values(leaf):
        raise SubjectMismatch(
            f"the signed certificate is for {subject_text(leaf)},"
            f" asked for was {printable(expected.subject.rfc4514_string())}"
        )
    if is_ca(leaf):
        raise UntrustedChain("the signed certificate is a CA certificate")
    if not may_sign(leaf):
        raise UntrustedChain("the signed certificate's key usage lacks digitalSignature")
    if not is_for_clients(leaf):
        raise UntrustedChain("the signed certificate's extended key usage lacks clientAuth")


def check_issuers(path: Sequence[x509.Certificate]) -> None:
    """Raise unless every certificate after the leaf may issue (RFC 5280, 6.1.4)."""
    if fault := _issuer_fault(path):
        raise UntrustedChain(fault)


def _issuer_fault(path: Sequence[x509.Certificate]) -> str | None:
    below = 0  # CAs between this one and the leaf, without those that issued themselves
    for place, issuer in enumerate(path[1:], 2):
        limit = path_length(issuer)
        if not is_ca(issuer):
            return f"certificate {place} of the chain is not a CA certificate"
        if limit is not None and limit < below:
            return f"certificate {place} of the chain allows no chain this long"
        if not may_sign_certificates(issuer):
            return f"certificate {place} of the chain must not sign certificates"
        below += subject_key(issuer) != issuer_key(issuer)
    return None


def check_dates(path: Sequence[x509.Certificate], at: datetime) -> None:
    """Raise unless every certificate is valid at that moment; a little early is tolerated."""
    for place, certificate in enumerate(path, 1):
        start, end = begins(certificate), ends(certificate)
        if end <= at:
            raise CredentialExpired(f"certificate {place} of the chain expired at {rfc3339(end)}")
        if start - at > EARLY_TOLERANCE:
            raise CredentialNotYetValid(
                f"certificate {place} of the chain is not valid before {rfc3339(start)}"
            )


def anchored(chain: Chain, anchors: Sequence[x509.Certificate]) -> bool:
    """Whether the chain ends in, or was issued by, a CA that we hold already.

    The same CA key under a renewed certificate counts as held. Without any anchor there is
    nothing to compare with, and the first CA is taken as it is.
    """
    if not anchors:
        return True
    return any(
        certificate in anchors or any(issued_by(certificate, anchor) for anchor in anchors)
        for certificate in chain.certificates
    )


def anchor_text(chain: Chain) -> str:
    """The CA at the end of the chain, for people. Its successor often has the same name: hence the digest."""
    last = chain.certificates[-1]
    digest = last.fingerprint(hashes.SHA256()).hex()
    return f"{subject_text(last)} (SHA-256 {digest[:16]})"


def _as_it_came(ordered: tuple[x509.Certificate, ...], *, chain_pem: bytes, ca_pem: bytes) -> Chain:
    """Byte for byte what the Connector sent, unless it came in another order or with other text."""
    rendered = Chain.of(ordered)
    return Chain(
        ordered,
        chain_pem if is_plain(chain_pem, ordered) else rendered.pem,
        ca_pem if is_plain(ca_pem, ordered[1:]) else rendered.ca_pem,
    )
