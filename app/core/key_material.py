"""Private keys and PKCS#12 files as operators have them; the text comes from `pem.unwrap`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import pkcs12

from ..errors import MalformedCredential
from . import credential, pem
from .credential import Found

_ENCRYPTED = "is encrypted and no passphrase is set"
_WRONG = "cannot be decrypted: wrong passphrase?"
_ENCRYPT_ANEW = "encrypt it again with `openssl pkcs8 -topk8 -v2 aes-256-cbc`"
# The library panics on an initialization vector that is shorter than a block of the cipher.
_CUT_OFF = re.compile(rb"AES-[0-9]+-CBC(?!,[0-9A-Fa-f]{32}$)|DES-EDE3-CBC(?!,[0-9A-Fa-f]{16}$)")
_KEYS = frozenset({"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})


@dataclass(frozen=True, slots=True)
class Pkcs12:
    """What a PKCS#12 file holds; no key and no certificate is possible too."""

    key: PrivateKeyTypes | None = field(repr=False)
    certificates: tuple[x509.Certificate, ...]


def open_pkcs12(content: bytes, passphrase: bytes | None) -> Pkcs12:
    """Raises MalformedCredential."""
    try:
        found = pkcs12.load_pkcs12(content, passphrase or b"")
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if "password" not in str(error):
            raise MalformedCredential(f"is PKCS#12 that cannot be read: {error}") from error
        raise MalformedCredential(_WRONG if passphrase else _ENCRYPTED) from error
    certificates = [found.cert] if found.cert else []
    return Pkcs12(found.key, tuple(each.certificate for each in (*certificates, *found.additional_certs)))


def find_certificates(text: bytes, passphrase: bytes | None) -> Found:
    """The certificates in PEM, DER or PKCS#12. Raises MalformedCredential if there is none."""
    if pem.is_pkcs12(text):
        certificates = open_pkcs12(text, passphrase).certificates
        if not certificates:
            raise MalformedCredential("is PKCS#12 without a certificate")
        text = credential.render(certificates)
    return credential.find_certificates(text)


def load_private_key(text: bytes, *, passphrase: bytes | None = None) -> rsa.RSAPrivateKey:
    """An RSA key in PKCS#1, PKCS#8, encrypted PKCS#8 or PKCS#12, as PEM or DER, fully validated.

    Raises MalformedCredential, with another sentence for each way in which it can be wrong.
    """
    if pem.is_pkcs12(text):
        key = open_pkcs12(text, passphrase).key
    else:
        key = _load(text, passphrase) if pem.is_der(text) else _load_block(_only_key(text), passphrase)
    if key is None:
        raise MalformedCredential("is PKCS#12 without a private key")
    if not isinstance(key, rsa.RSAPrivateKey):
        raise MalformedCredential("is not an RSA key; the Connector signs RSA keys only")
    return key


def _only_key(text: bytes) -> pem.Block:
    blocks = [block for block in pem.blocks(text) if block.label in _KEYS]
    if not blocks:
        raise MalformedCredential(pem.lack("PRIVATE KEY", text))
    if len(blocks) > 1:
        raise MalformedCredential(f"has {len(blocks)} private keys, one is needed")
    return blocks[0]


def _load_block(block: pem.Block, passphrase: bytes | None) -> PrivateKeyTypes:
    """The label does not decide about the form, as with OpenSSL; the headers decide about the cipher."""
    cipher = block.headers.get(b"DEK-Info")
    if cipher is None:
        return _load(block.der, passphrase)
    if _CUT_OFF.match(cipher):
        raise MalformedCredential("has a damaged header DEK-Info")
    return _load(block.render(), passphrase, serialization.load_pem_private_key)


def _load(
    content: bytes,
    passphrase: bytes | None,
    load: Callable[[bytes, bytes | None], PrivateKeyTypes] = serialization.load_der_private_key,
) -> PrivateKeyTypes:
    try:
        return load(content, passphrase)
    except TypeError as error:
        if "not given" in str(error):
            raise MalformedCredential(_ENCRYPTED) from error
        return _load(content, None, load)  # a passphrase that is not needed does no harm, as with OpenSSL
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedCredential(_reason(error, passphrase)) from error


def _reason(error: Exception, passphrase: bytes | None) -> str:
    if passphrase is None:
        return "cannot be parsed"
    if isinstance(error, UnsupportedAlgorithm) or "nknown" in str(error):
        reason = str(error).rstrip(".")
        return f"is encrypted with an algorithm that is not supported ({reason}); {_ENCRYPT_ANEW}"
    return _WRONG
