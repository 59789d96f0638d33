"""A credential, key and chain, and what can be read off it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..errors import KeyMismatch, MalformedCredential
from .text import printable

MAX_CERTIFICATES = 10
_SERIAL_BITS = 20 * 8  # RFC 5280, 4.1.2.2
# A block ends at the next five hyphens, or is none: what is hostile must not make the search quadratic.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(?:[^-]|-(?!----))*+-----END \1-----")
# What the library raises for certificates of the wrong form; not all of it is a ValueError.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Chain:
    """Certificates in issuing order, the leaf first, and the PEM texts in which they are served.

    `pem` holds exactly `certificates`; `ca_pem` those after the leaf, None if there are none.
    """

    certificates: tuple[x509.Certificate, ...]
    pem: bytes = field(repr=False)
    ca_pem: bytes | None = field(repr=False)
    fingerprint: str = field(init=False)
    not_before: datetime = field(init=False)
    not_after: datetime = field(init=False)
    effective_not_after: datetime = field(init=False)

    def __post_init__(self) -> None:
        leaf = self.certificates[0]
        object.__setattr__(self, "fingerprint", fingerprint(leaf))
        object.__setattr__(self, "not_before", leaf.not_valid_before_utc)
        object.__setattr__(self, "not_after", leaf.not_valid_after_utc)
        # The Connector does not clamp a leaf to its CA's life (contract, section 1).
        ends = [certificate.not_valid_after_utc for certificate in self.certificates]
        object.__setattr__(self, "effective_not_after", min(ends))

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        return self.certificates[1:]

    @classmethod
    def of(cls, certificates: Sequence[x509.Certificate]) -> "Chain":
        """The chain with PEM texts rendered here, for certificates that are in issuing order."""
        return cls(tuple(certificates), render(certificates), render(certificates[1:]) or None)


@dataclass(frozen=True, slots=True)
class Credential:
    """A chain and the PKCS#8 PEM of its private key, which fit each other."""

    chain: Chain
    key_pem: bytes = field(repr=False)


def fingerprint(certificate: x509.Certificate) -> str:
    """Lower-case hex SHA-256 of the DER: the identity, since every serial number is 2."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def render(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def is_plain(pem: bytes, certificates: Sequence[x509.Certificate]) -> bool:
    """Whether the text is what `render` writes of them, but for white space: nothing around the
    blocks, no PEM headers, no repetitions."""
    return pem.split() == render(certificates).split()


def pem_blocks(pem: bytes) -> list[tuple[str, bytes]]:
    """(label, block) of each PEM block, in order; text around the blocks is passed over."""
    return [(match[1].decode("ascii"), match[0]) for match in _BLOCK.finditer(pem)]


def parse_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM text, in its order and without repetitions.

    Blocks of another kind are passed over, so that a file with key and chain can be read.
    Raises MalformedCredential if there is no certificate or one cannot be parsed.
    """
    blocks = [block for label, block in pem_blocks(pem) if label == "CERTIFICATE"]
    if not blocks:
        raise MalformedCredential("has no PEM block CERTIFICATE")
    if len(blocks) > MAX_CERTIFICATES:
        raise MalformedCredential(f"has {len(blocks)} certificates, more than {MAX_CERTIFICATES}")
    return tuple(dict.fromkeys(_parse_certificate(block, place) for place, block in enumerate(blocks, 1)))


def _parse_certificate(block: bytes, place: int) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(block)
        # Parsed lazily otherwise: what is unreadable must show here and not in the middle of a request.
        _ = (certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key())
    except _UNREADABLE as error:
        raise MalformedCredential(f"certificate {place} cannot be parsed") from error
    return certificate


def load_private_key(pem: bytes, *, passphrase: bytes | None = None) -> rsa.RSAPrivateKey:
    """An operator's RSA key in PKCS#1, PKCS#8 or encrypted PKCS#8, fully validated.

    Raises MalformedCredential, with another sentence for each way in which it can be wrong.
    """
    block = _key_block(pem)
    encrypted = b"ENCRYPTED" in block
    if encrypted and passphrase is None:
        raise MalformedCredential("is encrypted and no passphrase is set")
    if passphrase is not None and not encrypted:
        raise MalformedCredential("is not encrypted, but a passphrase is set")
    try:
        key = serialization.load_pem_private_key(block, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "cannot be decrypted: wrong passphrase?" if encrypted else "cannot be parsed"
        raise MalformedCredential(reason) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise MalformedCredential("is not an RSA key; the Connector signs RSA keys only")
    return key


def _key_block(pem: bytes) -> bytes:
    blocks = [block for label, block in pem_blocks(pem) if label.endswith("PRIVATE KEY")]
    if not blocks:
        raise MalformedCredential("has no PEM block PRIVATE KEY")
    if len(blocks) > 1:
        raise MalformedCredential(f"has {len(blocks)} private keys, one is needed")
    return blocks[0]


def render_private_key(key: rsa.RSAPrivateKey) -> bytes:
    """Unencrypted PKCS#8 PEM: what OpenSSL, and so every consumer, reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_public_key(csr_pem: bytes) -> rsa.RSAPublicKey:
    """The public key of a CSR of our own."""
    public_key = x509.load_pem_x509_csr(csr_pem).public_key()
    if not isinstance(public_key, rsa.RSAPublicKey):
        raise MalformedCredential("the CSR is not for an RSA key")
    return public_key


def check_key(key_pem: bytes, leaf: x509.Certificate) -> None:
    """Raise unless the PEM of our own store is the leaf's private key, undamaged.

    Loading validates an RSA-4096 key for 0.3 s, nearly all of it to see that the factors are prime;
    they are, if they are those of the certificate's modulus.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedCredential("the private key cannot be parsed") from error
    public_key = leaf.public_key()
    if not isinstance(key, rsa.RSAPrivateKey) or not isinstance(public_key, rsa.RSAPublicKey):
        raise MalformedCredential("the private key is not an RSA key")
    if key.public_key() != public_key:
        raise KeyMismatch("the certificate is for another key")
    if not _fits_together(key.private_numbers()):
        raise MalformedCredential("the private key is damaged")


def _fits_together(numbers: rsa.RSAPrivateNumbers) -> bool:
    """Whether the parts are one key (RFC 8017, 3.2). A signature would not show it: OpenSSL makes a good
    one from those parts that are intact, and a consumer's library then refuses the key."""
    p, q, d = numbers.p, numbers.q, numbers.d
    public = numbers.public_numbers
    return (
        min(p, q) > 1
        and p * q == public.n
        and public.e * d % (p - 1) == 1
        and public.e * d % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and numbers.iqmp * q % p == 1
    )


def display_name(name: x509.Name) -> str:
    """A subject or an issuer for people, RFC 4514: whoever signs a certificate chooses what is in it."""
    return printable(name.rfc4514_string())


def serial_number(certificate: x509.Certificate) -> str:
    """A decimal number; of one that is longer than RFC 5280 allows, the beginning in hex."""
    number = certificate.serial_number
    return str(number) if number.bit_length() <= _SERIAL_BITS else f"{hex(number)[:40]}…"


def key_algorithm(certificate: x509.Certificate) -> str:
    """For people: `RSA-4096`."""
    public_key = certificate.public_key()
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"RSA-{public_key.key_size}"
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return f"EC-{public_key.curve.name}"
    return type(public_key).__name__.removesuffix("PublicKey")
