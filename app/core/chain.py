"""Verification of what the Connector signed, before any of it is used.

RFC 5280 path validation, cut to what contract section 1 says of these chains: leaves without SAN
and sometimes without AKI, which the library's own client verifier refuses.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..errors import (
    CredentialExpired,
    CredentialNotYetValid,
    KeyMismatch,
    MalformedCredential,
    SubjectMismatch,
    UntrustedChain,
)
from .answer import SignedAnswer
from .credential import Chain, display_name, is_plain, parse_certificates, pem_blocks
from .csr import same_subject

_T = TypeVar("_T", bound=x509.ExtensionType)  # the syntax for this needs Python 3.12

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
    if leaf not in chain:
        raise UntrustedChain("clientCertificate is not part of certificateChain")
    ordered = order(leaf, [*chain, *authorities])
    if len(ordered) < 2:
        raise UntrustedChain("the chain has no CA certificate")
    check_leaf(leaf, expected)
    check_issuers(ordered)
    check_dates(ordered, expected.at)
    return _as_it_came(ordered, chain_pem=answer.chain_pem, ca_pem=answer.ca_pem)


def _strict(pem: bytes, name: str) -> tuple[x509.Certificate, ...]:
    strangers = sorted({label for label, _ in pem_blocks(pem)} - {"CERTIFICATE"})
    if strangers:
        raise MalformedCredential(f"{name} has a PEM block {strangers[0]}; only CERTIFICATE is allowed")
    try:
        return parse_certificates(pem)
    except MalformedCredential as error:
        raise MalformedCredential(f"{name} {error.detail}") from error


def _only(certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    if len(certificates) != 1:
        raise MalformedCredential(f"clientCertificate has {len(certificates)} certificates, not one")
    return certificates[0]


def order(leaf: x509.Certificate, others: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Leaf and others in issuing order: each is signed by the next.

    Raises UntrustedChain when one of the others has no place in the chain.
    """
    ordered = [leaf]
    remaining = [certificate for certificate in dict.fromkeys(others) if certificate != leaf]
    while remaining:
        issuer = next((each for each in remaining if issued_by(ordered[-1], each)), None)
        if issuer is None:
            raise UntrustedChain(
                f"certificate {len(ordered)} of the chain was signed by none of the other {len(remaining)}"
            )
        ordered.append(issuer)
        remaining.remove(issuer)
    return tuple(ordered)


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether names chain and the issuer's key made the signature."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def check_leaf(leaf: x509.Certificate, expected: Expected) -> None:
    """Raise unless the leaf is for our key and subject, and for client authentication."""
    if leaf.public_key() != expected.public_key:
        raise KeyMismatch("the signed certificate is for another key than ours")
    if not same_subject(expected.subject, leaf.subject):
        raise SubjectMismatch(
            f"the signed certificate is for {display_name(leaf.subject)},"
            f" asked for was {display_name(expected.subject)}"
        )
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise UntrustedChain("the signed certificate is a CA certificate")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise UntrustedChain("the signed certificate's key usage lacks digitalSignature")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and not _for_clients(purposes):
        raise UntrustedChain("the signed certificate's extended key usage lacks clientAuth")


def _for_clients(purposes: x509.ExtendedKeyUsage) -> bool:
    return bool({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(purposes))


def check_issuers(ordered: Sequence[x509.Certificate]) -> None:
    """Raise unless every certificate after the leaf may issue (RFC 5280, 6.1.4)."""
    for depth, issuer in enumerate(ordered[1:]):
        constraints = _extension(issuer, x509.BasicConstraints)
        if constraints is None or not constraints.ca:
            raise UntrustedChain(f"certificate {depth + 2} of the chain is not a CA certificate")
        if constraints.path_length is not None and constraints.path_length < depth:
            raise UntrustedChain(f"certificate {depth + 2} of the chain allows no chain this long")
        usage = _extension(issuer, x509.KeyUsage)
        if usage is not None and not usage.key_cert_sign:
            raise UntrustedChain(f"certificate {depth + 2} of the chain must not sign certificates")


def check_dates(ordered: Sequence[x509.Certificate], at: datetime) -> None:
    """Raise unless every certificate is valid at that moment; a little early is tolerated."""
    for place, certificate in enumerate(ordered, 1):
        if certificate.not_valid_after_utc <= at:
            end = certificate.not_valid_after_utc
            raise CredentialExpired(f"certificate {place} of the chain expired at {end:%Y-%m-%dT%H:%M:%SZ}")
        if certificate.not_valid_before_utc > at + EARLY_TOLERANCE:
            start = certificate.not_valid_before_utc
            raise CredentialNotYetValid(
                f"certificate {place} of the chain is not valid before {start:%Y-%m-%dT%H:%M:%SZ}"
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


def _extension(certificate: x509.Certificate, kind: type[_T]) -> _T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _as_it_came(ordered: tuple[x509.Certificate, ...], *, chain_pem: bytes, ca_pem: bytes) -> Chain:
    """Byte for byte what the Connector sent, unless it came in another order or with other text."""
    rendered = Chain.of(ordered)
    return Chain(
        ordered,
        chain_pem if is_plain(chain_pem, ordered) else rendered.pem,
        ca_pem if is_plain(ca_pem, ordered[1:]) else rendered.ca_pem,
    )
