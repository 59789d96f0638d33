"""A credential, key and chain, and what can be read off it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..errors import KeyMismatch, MalformedCredential
from .certificate import UNREADABLE, begins, ends, issuer_text, load, subject_text
from .pem import certificate_blocks

# A whole bundle of a distribution has about 150, of which all but a few are left out.
MAX_CERTIFICATES = 500
_SERIAL_BITS = 20 * 8  # RFC 5280, 4.1.2.2


@dataclass(frozen=True, slots=True)
class Chain:
    """Certificates in issuing order, the leaf first, and the PEM texts in which they are served.

    `pem` holds exactly `certificates`; `ca_pem` those after the leaf, None if there are none. `left_out`
    is a sentence about certificates that were given besides.
    """

    certificates: tuple[x509.Certificate, ...]
    pem: bytes = field(repr=False)
    ca_pem: bytes | None = field(repr=False)
    left_out: str | None = field(default=None, compare=False)
    fingerprint: str = field(init=False)
    subject: str = field(init=False)
    issuer: str = field(init=False)
    not_before: datetime = field(init=False)
    not_after: datetime = field(init=False)
    effective_not_after: datetime = field(init=False)

    def __post_init__(self) -> None:
        leaf = self.certificates[0]
        object.__setattr__(self, "fingerprint", fingerprint(leaf))
        object.__setattr__(self, "subject", subject_text(leaf))
        object.__setattr__(self, "issuer", issuer_text(leaf))
        object.__setattr__(self, "not_before", begins(leaf))
        object.__setattr__(self, "not_after", ends(leaf))
        # The Connector does not clamp a leaf to its CA's life (contract, section 1).
        object.__setattr__(self, "effective_not_after", min(map(ends, self.certificates)))

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


@dataclass(frozen=True, slots=True)
class Found:
    """The certificates in a text, in its order, and a sentence for each that cannot be read."""

    certificates: tuple[x509.Certificate, ...]
    unreadable: tuple[str, ...] = ()


def find_certificates(text: bytes) -> Found:
    """The certificates in PEM, or one in DER, without repetitions; blocks of another kind are passed over.

    Raises MalformedCredential if there is none, or too many.
    """
    blocks = certificate_blocks(text)
    if len(blocks) > MAX_CERTIFICATES:
        raise MalformedCredential(f"has {len(blocks)} certificates, more than {MAX_CERTIFICATES}")
    found, unreadable = [], []
    for place, block in enumerate(blocks, 1):
        try:
            found.append(load(block.der))
        except MalformedCredential as error:
            unreadable.append(f"certificate {place} {error.detail}")
    return Found(tuple(dict.fromkeys(found)), tuple(unreadable))


def parse_certificates(text: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a text in which every one can be read. Raises MalformedCredential."""
    found = find_certificates(text)
    if found.unreadable:
        raise MalformedCredential(found.unreadable[0])
    return found.certificates


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


def serial_number(certificate: x509.Certificate) -> str:
    """A decimal number; of one that is longer than RFC 5280 allows, the beginning in hex."""
    number = certificate.serial_number
    return str(number) if number.bit_length() <= _SERIAL_BITS else f"{hex(number)[:40]}…"


def key_algorithm(certificate: x509.Certificate) -> str:
    """For people: `RSA-4096`."""
    try:
        public_key = certificate.public_key()
    except UNREADABLE:
        return "unknown"
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"RSA-{public_key.key_size}"
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return f"EC-{public_key.curve.name}"
    return type(public_key).__name__.removesuffix("PublicKey")
