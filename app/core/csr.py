"""Subject, key and certificate signing request (RFC 2986)."""

import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from ..errors import SubjectMismatch
from .text import printable

KEY_SIZES = (2048, 3072, 4096)
_ATTRIBUTES: Mapping[str, x509.ObjectIdentifier] = MappingProxyType(
    {
        "O": NameOID.ORGANIZATION_NAME,
        "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
        "L": NameOID.LOCALITY_NAME,
        "ST": NameOID.STATE_OR_PROVINCE_NAME,
        "C": NameOID.COUNTRY_NAME,
        "CN": NameOID.COMMON_NAME,
    }
)
_KEY = "(?:OU|O|L|ST|CN|C)="
# The Connector escapes nothing: only a separator that is followed by a known key separates.
_COMMA_FORM = re.compile(rf",\s*(?={_KEY})")
_SLASH_FORM = re.compile(rf"/(?={_KEY})")
# Lone surrogates too: JSON can bring them, and nothing can encode them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PRINTABLE_STRING = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
_SUBJECT_LIMIT = 2048


def parse_subject(text: str) -> x509.Name:
    """The name in CSR info's `subject`: `O=..,OU=..,L=..,ST=..,C=..,CN=..` or `/O=../CN=..`.

    Attributes in any order, one to an RDN; values may contain commas and equal signs. Raises
    SubjectMismatch for whatever cannot be understood without guessing.
    """
    if len(text) > _SUBJECT_LIMIT or _CONTROL.search(text):
        raise SubjectMismatch("the subject from the Connector is too long or has control characters")
    pairs = [_split(part) for part in _parts(text.strip())]
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1 and key != "OU"]
    if repeated:
        raise SubjectMismatch(f"the subject from the Connector has {repeated[0]} more than once")
    if "CN" not in dict(pairs):
        raise SubjectMismatch("the subject from the Connector has no common name (CN)")
    return x509.Name([_attribute(key, value) for key, value in pairs])


def _parts(text: str) -> list[str]:
    if not text.startswith("/"):
        return _COMMA_FORM.split(text)
    before, *parts = _SLASH_FORM.split(text)
    return parts if not before else [text]


def _split(part: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals or key not in _ATTRIBUTES:
        raise SubjectMismatch(f"the subject from the Connector is not understood at '{printable(part)}'")
    if not value.strip():
        raise SubjectMismatch(f"the subject from the Connector has no value for {key}")
    return key, value


def _attribute(key: str, value: str) -> x509.NameAttribute[str]:
    # Operators configure countries such as `Germany`, which the Connector compares as they are; and
    # `Österreich`, which does not fit the string type that a country normally has.
    string_type = None if _PRINTABLE_STRING.fullmatch(value) else _ASN1Type.UTF8String
    return x509.NameAttribute(_ATTRIBUTES[key], value, string_type, _validate=False)


def attributes(name: x509.Name) -> Counter[tuple[str, str | bytes]]:
    """The attributes of a name, by dotted type. Order, RDN grouping and string types do not count, since
    the Connector encodes the subject anew."""
    return Counter((attribute.oid.dotted_string, attribute.value) for attribute in name)


def make_key(bits: int) -> rsa.RSAPrivateKey:
    """A new RSA key; 4096 bits take 0.2 to 1 s, so never on the event loop."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def make_csr(key: rsa.RSAPrivateKey, subject: x509.Name) -> bytes:
    """The CSR as PEM, signed with SHA-256."""
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM)
