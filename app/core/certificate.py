"""What is needed of one certificate, read no more strictly than OpenSSL reads it.

The library reads all names or all extensions of a certificate, or none: one odd byte in a policy notice
would hide whether it is a CA. Here each name and each extension is read for itself, from the library's
own DER reader.
"""

import re
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from ..errors import MalformedCredential
from .der import elements
from .text import printable

# What the library raises for what it does not understand; not all of it is a ValueError.
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
# Python has no year 0, which X.509 has. It is before everything.
_YEAR_ZERO = datetime.min.replace(tzinfo=UTC)
_DIGITAL_SIGNATURE, _KEY_CERT_SIGN = 0x80, 0x04
_CLIENT_PURPOSES = frozenset(
    map(asn1.encode_der, (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))
)
_SMALLEST_KEY = 2048
_REMEMBERED = 64  # certificates: a search for a path asks for the same names again and again
_BOOLEAN, _INTEGER = 0x01, 0x02
# The string types that OpenSSL compares by their text (ASN1_MASK_CANON), and how it reads them.
_TEXT = {0x0C: "utf-8", 0x13: "latin-1", 0x14: "latin-1", 0x16: "latin-1", 0x1A: "latin-1"}
_TEXT |= {0x1C: "utf-32-be", 0x1E: "utf-16-be"}
_TELETEX = 0x14  # its character set is whatever the issuer had in mind: only ASCII is shown as text
_SPACES = re.compile(r"[ \t\n\v\f\r]+")
_CAPITALS = re.compile("[A-Z]+")

CanonicalName = tuple[frozenset[tuple[str, str | bytes]], ...]


@asn1.sequence
class _Attribute:
    type: x509.ObjectIdentifier
    value: asn1.TLV


@asn1.sequence
class _Extension:
    type: x509.ObjectIdentifier
    critical: bool | None
    value: bytes


_Name = list[asn1.SetOf[_Attribute]]


@asn1.sequence
class _ToBeSigned:
    version: Annotated[int | None, asn1.Explicit(0)]
    serial_number: int
    signature: asn1.TLV
    issuer: _Name
    validity: asn1.TLV
    subject: _Name
    public_key: asn1.TLV
    issuer_id: Annotated[asn1.BitString | None, asn1.Implicit(1)]
    subject_id: Annotated[asn1.BitString | None, asn1.Implicit(2)]
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(3)]


def load(der: bytes) -> x509.Certificate:
    """A certificate in which everything can be read that is needed here, but for its public key.

    Raises MalformedCredential with the library's reason.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = (is_ca(certificate), path_length(certificate), may_sign(certificate), is_for_clients(certificate))
    except UNREADABLE as error:
        raise MalformedCredential(f"cannot be parsed: {printable(str(error))}") from error
    return certificate


@lru_cache(maxsize=_REMEMBERED)
def _read(certificate: x509.Certificate) -> _ToBeSigned:
    return asn1.decode_der(_ToBeSigned, certificate.tbs_certificate_bytes)


# --- dates


def begins(certificate: x509.Certificate) -> datetime:
    with suppress(ValueError):
        return certificate.not_valid_before_utc
    return _YEAR_ZERO


def ends(certificate: x509.Certificate) -> datetime:
    with suppress(ValueError):
        return certificate.not_valid_after_utc
    return _YEAR_ZERO


# --- names


def subject_text(certificate: x509.Certificate) -> str:
    """RFC 4514, fit to be shown. A value that is not text is shown in hex."""
    with suppress(*UNREADABLE):
        return printable(certificate.subject.rfc4514_string())
    return _name_text(_read(certificate).subject)


def issuer_text(certificate: x509.Certificate) -> str:
    """RFC 4514, fit to be shown. A value that is not text is shown in hex."""
    with suppress(*UNREADABLE):
        return printable(certificate.issuer.rfc4514_string())
    return _name_text(_read(certificate).issuer)


def _name_text(name: _Name) -> str:
    return printable(",".join("+".join(map(_attribute_text, part.as_list())) for part in reversed(name)))


def _attribute_text(attribute: _Attribute) -> str:
    text = _text(attribute.value)
    shown = x509.NameAttribute(attribute.type, text if isinstance(text, str) else "-", _validate=False)
    teletex = attribute.value.tag_bytes[0] == _TELETEX and not bytes(attribute.value.data).isascii()
    if isinstance(text, str) and not teletex:
        return shown.rfc4514_string()
    return f"{shown.rfc4514_attribute_name}=#{asn1.encode_der(attribute.value).hex()}"


def _text(value: asn1.TLV) -> str | bytes:
    content = bytes(value.data)
    encoding = _TEXT.get(value.tag_bytes[0])
    with suppress(ValueError):
        return content.decode(encoding) if encoding else value.tag_bytes + content
    return value.tag_bytes + content


def subject_values(certificate: x509.Certificate) -> Counter[tuple[str, str | bytes]]:
    """The attributes of the subject, by dotted type: their order and their grouping do not matter."""
    return Counter(
        (attribute.type.dotted_string, _text(attribute.value))
        for part in _read(certificate).subject
        for attribute in part.as_list()
    )


@lru_cache(maxsize=_REMEMBERED)
def subject_key(certificate: x509.Certificate) -> CanonicalName:
    """The subject as OpenSSL compares it: without string types, capitals and repeated spaces."""
    return _canonical(_read(certificate).subject)


@lru_cache(maxsize=_REMEMBERED)
def issuer_key(certificate: x509.Certificate) -> CanonicalName:
    return _canonical(_read(certificate).issuer)


def _canonical(name: _Name) -> CanonicalName:
    return tuple(
        frozenset((each.type.dotted_string, _folded(_text(each.value))) for each in part.as_list())
        for part in name
    )


def _folded(text: str | bytes) -> str | bytes:
    if isinstance(text, bytes):
        return text
    return _CAPITALS.sub(lambda match: match[0].lower(), _SPACES.sub(" ", text).strip(" "))


# --- extensions


def path_length(certificate: x509.Certificate) -> int | None:
    """How many CAs may stand below this one; None without a limit."""
    found = _constraints(certificate)
    return found[1] if found else None


def is_ca(certificate: x509.Certificate) -> bool:
    """As OpenSSL decides it: without basicConstraints by the key usage, or if it is a root of version 1."""
    found, usage = _constraints(certificate), _usage(certificate)
    if found is not None:
        return found[0]
    if usage is not None:
        return bool(usage & _KEY_CERT_SIGN)
    return certificate.version is x509.Version.v1 and is_self_signed(certificate)


def may_sign_certificates(certificate: x509.Certificate) -> bool:
    usage = _usage(certificate)
    return usage is None or bool(usage & _KEY_CERT_SIGN)


def may_sign(certificate: x509.Certificate) -> bool:
    usage = _usage(certificate)
    return usage is None or bool(usage & _DIGITAL_SIGNATURE)


def is_for_clients(certificate: x509.Certificate) -> bool:
    content = _extension(certificate, ExtensionOID.EXTENDED_KEY_USAGE)
    return content is None or not _CLIENT_PURPOSES.isdisjoint(map(asn1.encode_der, elements(content)))


def _constraints(certificate: x509.Certificate) -> tuple[bool, int | None] | None:
    """Whether it is a CA, and its path length. A FALSE that is written out, and any TRUE, are accepted."""
    content = _extension(certificate, ExtensionOID.BASIC_CONSTRAINTS)
    if content is None:
        return None
    values = {each.tag_bytes[0]: bytes(each.data) for each in elements(content)}
    length = values.get(_INTEGER)
    return any(values.get(_BOOLEAN, b"")), None if length is None else int.from_bytes(length)


def _usage(certificate: x509.Certificate) -> int | None:
    """The first eight bits of its key usage."""
    content = _extension(certificate, ExtensionOID.KEY_USAGE)
    if content is None:
        return None
    unused_and_bits = bytes(asn1.decode_der(asn1.TLV, content).data)
    return int.from_bytes(unused_and_bits[1:2])


def _extension(certificate: x509.Certificate, wanted: x509.ObjectIdentifier) -> bytes | None:
    found = [each.value for each in _read(certificate).extensions or () if each.type == wanted]
    if len(found) > 1:
        raise ValueError("an extension stands there twice")
    return found[0] if found else None


# --- keys and signatures


def has_key(certificate: x509.Certificate, key: CertificatePublicKeyTypes) -> bool:
    with suppress(*UNREADABLE):
        return certificate.public_key() == key
    return False


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the names chain, as OpenSSL compares them, and the issuer's key made the signature."""
    if issuer_key(certificate) != subject_key(issuer):
        return False
    try:
        _verify(certificate, issuer.public_key())
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def is_self_signed(certificate: x509.Certificate) -> bool:
    return issued_by(certificate, certificate)


def is_weak(certificate: x509.Certificate) -> bool:
    """Whether OpenSSL would not load this CA certificate at its security level 2."""
    with suppress(*UNREADABLE):
        key, algorithm = certificate.public_key(), certificate.signature_hash_algorithm
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _SMALLEST_KEY:
            return True
        return isinstance(algorithm, hashes.SHA1 | hashes.MD5) and not is_self_signed(certificate)
    return False


def _verify(certificate: x509.Certificate, key: CertificatePublicKeyTypes) -> None:
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    announced = elements(certificate.public_bytes(serialization.Encoding.DER))[1]
    if asn1.encode_der(announced) != asn1.encode_der(_read(certificate).signature):
        raise ValueError("the algorithm of the signature is not the one that was signed")
    algorithm, scheme = certificate.signature_hash_algorithm, certificate.signature_algorithm_parameters
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(scheme, ec.ECDSA):
        key.verify(signature, signed, scheme)
    elif isinstance(key, rsa.RSAPublicKey) and algorithm and not isinstance(scheme, ec.ECDSA | None):
        key.verify(signature, signed, scheme, algorithm)
    else:
        raise UnsupportedAlgorithm("the issuer's key is of another kind than the signature")
