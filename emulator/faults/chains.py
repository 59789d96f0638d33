"""Faults of signing: chains that a client must not take for its own, and odd ones that it has to take.

Each takes a `ChainBuilder` and the right leaf, and returns the three fields.
"""

import base64
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .. import messages
from ..authority import (
    ClientAuthority,
    LeafRequest,
    Pair,
    PrivateKey,
    certificates_pem,
    certification_result,
    ec_key,
    encoded,
    helm_extensions,
    issue_leaf,
    key_pem,
    other_authority,
    rsa_key,
    sign_with_sha1,
    twin,
)
from ..clock import parse_duration, parse_seconds, real_now
from ..journal import Registry
from ..subjects import with_title
from .plan import SignResult

_LIFETIME = timedelta(days=3650)


Fields = dict[str, str]
_DAY = timedelta(days=1)
_ROOT_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root CA that is not attached")])
_TOKEN_LIKE = base64.urlsafe_b64encode(secrets.token_bytes(64)).decode()


@dataclass(frozen=True, slots=True)
class ChainBuilder:
    """What a wrong chain is made of: the real CA, what was asked for, and other CAs."""

    authority: ClientAuthority
    request: LeafRequest
    registry: Registry

    def leaf(self, *, signing_key: PrivateKey | None = None, **changes: Any) -> x509.Certificate:
        """Another leaf from the real issuer, recorded like every issued certificate."""
        leaf = issue_leaf(self.authority.issuer, replace(self.request, **changes), signing_key=signing_key)
        self.registry.record(leaf)
        return leaf

    def from_other(self, authority: ClientAuthority) -> Fields:
        """What this other CA would have answered."""
        leaf = issue_leaf(authority.issuer, self.request)
        self.registry.record(leaf)
        return certification_result(leaf, authority.certificates)

    def twin(self, signer: PrivateKey | None = None, **changes: Any) -> ClientAuthority:
        """The real CA with another certificate of its name and key: the listener accepts what it signs."""
        issuer, root = self.authority.issuer, self.authority.root
        made = twin(issuer.certificate, signer or (root or issuer).key, **changes)
        return ClientAuthority(Pair(made, issuer.key), root)

    def answer(self, leaf: x509.Certificate) -> Fields:
        """The fields around this leaf, as if it were the right one."""
        return certification_result(leaf, self.authority.certificates)

    def pem(self, leaf: x509.Certificate) -> tuple[bytes, bytes]:
        """The leaf and what is above it, as PEM."""
        return certificates_pem([leaf]), certificates_pem(self.authority.certificates)


WrongChain = Callable[[ChainBuilder, x509.Certificate, str], Fields]


@lru_cache(maxsize=1)
def _small_authority() -> ClientAuthority:
    return ClientAuthority.create(chain=2, lifetime=_LIFETIME, now=real_now(), key_size=1024)


@lru_cache(maxsize=1)
def _sha1_authority() -> ClientAuthority:
    other = other_authority(3)
    assert other.root is not None  # noqa: S101 (a chain of three has one)
    assert isinstance(other.root.key, rsa.RSAPrivateKey)  # noqa: S101
    weak = sign_with_sha1(other.issuer.certificate, other.root.key)
    return replace(other, issuer=Pair(weak, other.issuer.key))


@lru_cache(maxsize=8)
def _named_authority(name: str) -> ClientAuthority:
    return ClientAuthority.create(chain=2, lifetime=_LIFETIME, now=real_now(), name=name)


@lru_cache(maxsize=1)
def _stray_rsa_key() -> PrivateKey:
    return rsa_key()


def wrong_key(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """For another key than the request's."""
    return chains.answer(chains.leaf(public_key=_stray_rsa_key().public_key()))


def wrong_subject(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """With another client's CN."""
    other = x509.NameAttribute(NameOID.COMMON_NAME, str(uuid.uuid4()))
    others = [one for one in chains.request.subject if one.oid != NameOID.COMMON_NAME]
    return chains.answer(chains.leaf(subject=x509.Name([*others, other])))


def expired(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """Ended an hour ago, by the Connector's clock."""
    now = chains.request.not_before
    return chains.answer(chains.leaf(not_before=now - _DAY, not_after=now - timedelta(hours=1)))


def not_yet_valid(chains: ChainBuilder, _leaf: x509.Certificate, param: str) -> Fields:
    """Begins later, by the Connector's clock."""
    begins = chains.request.not_before + parse_duration(param)
    return chains.answer(chains.leaf(not_before=begins, not_after=begins + _DAY))


def short_lived(chains: ChainBuilder, _leaf: x509.Certificate, param: str) -> Fields:
    """A good one for this long."""
    return chains.answer(chains.leaf(not_after=chains.request.not_before + parse_duration(param)))


def forged_signature(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """Signed by an unknown key, announcing the known CA in every field."""
    key = other_authority(2).issuer.key
    return chains.answer(chains.leaf(signing_key=key))


def new_ca(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """A chain that holds together, from a CA that the listener does not accept."""
    return chains.from_other(other_authority(len(chains.authority.certificates) + 1))


def root_not_attached(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """Legal: the issuing CA is not self-signed, and the root above it is not in the chain."""
    if chains.authority.root is not None:
        return certification_result(leaf, chains.authority.certificates[:1])
    return chains.from_other(chains.twin(other_authority(2).issuer.key, issuer=_ROOT_NAME))


def ca_without_ski(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """Legal: the CA has no subject key identifier, and so the leaf has no authority key identifier."""
    kept = [
        (one.value, one.critical)
        for one in chains.authority.issuer.certificate.extensions
        if not isinstance(one.value, x509.SubjectKeyIdentifier | x509.AuthorityKeyIdentifier)
    ]
    return chains.from_other(chains.twin(extensions=kept))


def ca_of_helm(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """Legal: the CA as Helm's `genCA` makes it."""
    return chains.from_other(chains.twin(extensions=helm_extensions(chains.authority.issuer.key)))


def ca_of_1024_bits(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """From a CA whose key is too short for OpenSSL's security level 2, the default since 3.0."""
    return chains.from_other(_small_authority())


def ca_signed_with_sha1(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """From an issuing CA whose own signature OpenSSL refuses; a root's own signature it would not look at."""
    return chains.from_other(_sha1_authority())


def leaf_signed_with_sha1(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """The right leaf with a SHA-1 signature of the right CA."""
    key = chains.authority.issuer.key
    assert isinstance(key, rsa.RSAPrivateKey)  # noqa: S101 (client CAs are RSA)
    weak = sign_with_sha1(leaf, key)
    chains.registry.record(weak)
    return chains.answer(weak)


def titled(text: str) -> WrongChain:
    """With one attribute more in the subject."""
    return lambda chains, leaf, _param: with_this_title(chains, leaf, text)


def with_this_title(chains: ChainBuilder, _leaf: x509.Certificate, param: str) -> Fields:
    """With this text as one attribute more in the subject."""
    return chains.answer(chains.leaf(subject=with_title(chains.request.subject, param)))


def ca_of_this_name(chains: ChainBuilder, _leaf: x509.Certificate, param: str) -> Fields:
    """From a CA whose name is this text."""
    return chains.from_other(_named_authority(param))


def ca_named(text: str) -> WrongChain:
    """From a CA of a fixed name."""
    return lambda chains, leaf, _param: ca_of_this_name(chains, leaf, text)


def shuffled(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """The chain in reverse: the leaf comes last."""
    chain = certificates_pem([leaf, *chains.authority.certificates][::-1])
    leaf_pem, ca_pem = chains.pem(leaf)
    return encoded(leaf=leaf_pem, ca=ca_pem, chain=chain)


def leaf_mismatch(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """`clientCertificate` is another certificate than the first of the chain, for the same key."""
    other = chains.leaf(not_after=chains.request.not_after - timedelta(seconds=1))
    leaf_pem, ca_pem = chains.pem(leaf)
    return encoded(leaf=certificates_pem([other]), ca=ca_pem, chain=leaf_pem + ca_pem)


def leaf_only(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """The chain ends after the leaf, and no CA is given."""
    leaf_pem, _ = chains.pem(leaf)
    return encoded(leaf=leaf_pem, ca=b"", chain=leaf_pem)


def ca_only(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """The chain lacks its leaf."""
    leaf_pem, ca_pem = chains.pem(leaf)
    return encoded(leaf=leaf_pem, ca=ca_pem, chain=ca_pem)


def empty_chain(_chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """Three empty strings."""
    return encoded(leaf=b"", ca=b"", chain=b"")


def no_certificate(_chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """Good PEM of something else: the public key."""
    key = leaf.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded(leaf=key, ca=key, chain=key)


def private_key_in_pem(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """A private key (of no certificate) among the certificates."""
    leaf_pem, ca_pem = chains.pem(leaf)
    return encoded(leaf=leaf_pem, ca=ca_pem, chain=leaf_pem + key_pem(ec_key()) + ca_pem)


def broken_base64(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """A character in each field that is in no alphabet."""
    return {name: value[:40] + "!" + value[41:] for name, value in chains.answer(leaf).items()}


def broken_pem(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """Good base64 of PEM whose own content is damaged."""
    damaged = [text.replace(b"\nMII", b"\nMIJ") for text in chains.pem(leaf)]
    return encoded(leaf=damaged[0], ca=damaged[1], chain=damaged[0] + damaged[1])


def der(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """DER where PEM belongs."""
    raw = leaf.public_bytes(serialization.Encoding.DER)
    above = chains.authority.issuer.certificate.public_bytes(serialization.Encoding.DER)
    return encoded(leaf=raw, ca=above, chain=raw + above)


def line_broken_base64(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """Legal: base64 in lines of 76, as a Connector in another language would send it."""
    return {
        name: base64.encodebytes(base64.b64decode(value)).decode().replace("\n", "\r\n")
        for name, value in chains.answer(leaf).items()
    }


def crlf_pem(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """Legal: PEM with CRLF line ends."""
    leaf_pem, ca_pem = (text.replace(b"\n", b"\r\n") for text in chains.pem(leaf))
    return encoded(leaf=leaf_pem, ca=ca_pem, chain=leaf_pem + ca_pem)


def wrapped_in_text(chains: ChainBuilder, leaf: x509.Certificate, _param: str) -> Fields:
    """Text before, between and after the blocks, as `openssl x509 -text` leaves it."""
    leaf_pem, ca_pem = chains.pem(leaf)
    leaf_pem, ca_pem = (
        b"Bag Attributes\n    friendlyName: leaf\n" + leaf_pem,
        b"subject=CN = CA\n\n" + ca_pem + b"# end\n",
    )
    return encoded(leaf=leaf_pem, ca=ca_pem, chain=leaf_pem + ca_pem)


def server_usage(chains: ChainBuilder, _leaf: x509.Certificate, _param: str) -> Fields:
    """With the extended key usage of a server; the listener refuses it (alert 43)."""
    return chains.answer(chains.leaf(usage=ExtendedKeyUsageOID.SERVER_AUTH))


CHAINS = (
    SignResult("wrong-key", "for another key than the request's", wrong_key),
    SignResult("wrong-subject", "with another client's CN", wrong_subject),
    SignResult("expired", "ended an hour ago", expired),
    SignResult("not-yet-valid", "begins so much later", not_yet_valid, default="1d", check=parse_seconds),
    SignResult("short-lived", "legal: good for this long", short_lived, default="60s", check=parse_seconds),
    SignResult("forged-signature", "signed by another key than that of the CA it names", forged_signature),
    SignResult("new-ca", "consistent, from a CA that the listener does not accept", new_ca),
    SignResult("shuffled", "the chain in reverse order", shuffled),
    SignResult("leaf-mismatch", "clientCertificate differs from the chain's first", leaf_mismatch),
    SignResult("leaf-only", "nothing above the leaf", leaf_only),
    SignResult("ca-only", "the chain lacks its leaf", ca_only),
    SignResult("empty-chain", "three empty texts", empty_chain),
    SignResult("no-certificate", "PEM of a public key", no_certificate),
    SignResult("private-key-in-pem", "a private key among the certificates", private_key_in_pem),
    SignResult("broken-base64", "a character outside the alphabet", broken_base64),
    SignResult("broken-pem", "certificates that do not parse", broken_pem),
    SignResult("der", "DER where PEM belongs", der),
    SignResult("line-broken-base64", "legal: base64 in lines", line_broken_base64),
    SignResult("crlf-pem", "legal: PEM with CRLF", crlf_pem),
    SignResult("wrapped-in-text", "legal: text around the blocks", wrapped_in_text),
    SignResult("server-auth-eku", "for servers only", server_usage),
    SignResult(
        "root-not-attached",
        "legal: from an issuing CA whose root is not in the chain",
        root_not_attached,
    ),
    SignResult(
        "ca-without-ski",
        "legal: a CA without a key identifier, and so a leaf without the authority's",
        ca_without_ski,
    ),
    SignResult("ca-of-helm", "legal: a CA with the extensions that Helm's genCA gives it", ca_of_helm),
    SignResult("ca-1024-bits", "from a CA with a key that OpenSSL refuses", ca_of_1024_bits),
    SignResult(
        "ca-sha1",
        "from an issuing CA that its root signed with SHA-1",
        ca_signed_with_sha1,
    ),
    SignResult("leaf-sha1", "the leaf is signed with SHA-1", leaf_signed_with_sha1),
    SignResult(
        "leaf-subject",
        "the leaf's subject has this text as one attribute more",
        with_this_title,
        default="unexpected",
    ),
    SignResult(
        "leaf-subject-control-characters",
        "the same with terminal escapes and forged log lines",
        titled(messages.CONTROL_CHARACTERS),
    ),
    SignResult("leaf-subject-bidi", "the same with bidirectional overrides", titled(messages.BIDI)),
    SignResult("leaf-subject-base64", "the same with what looks like a token", titled(_TOKEN_LIKE)),
    SignResult("leaf-subject-very-long", "the same with 60,000 characters", titled("x" * 60_000)),
    SignResult("ca-name", "from a CA with this name", ca_of_this_name, default="Another CA"),
    SignResult(
        "ca-name-control-characters",
        "from a CA with terminal escapes in its name",
        ca_named(messages.CONTROL_CHARACTERS),
    ),
    SignResult(
        "ca-name-bidi",
        "from a CA with bidirectional overrides in its name",
        ca_named(messages.BIDI),
    ),
)
