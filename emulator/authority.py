"""Certificate authorities: the client CA that signs leaves, and the server CA of the listeners.

They are two different ones, as in production, where `caCertificate` says nothing about the ingress's server
certificate (contract section 1). CAs carry key usage and key identifiers: Python 3.13 verifies strictly.
"""

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PSS, PKCS1v15
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from . import der
from .clock import real_now

CERTIFICATE_SERIAL_NUMBER = 2  # of every leaf: a constant in the real Connector
_BACKDATED = timedelta(hours=1)  # CAs and server certificates: a client's clock may lag
_ROOT_LIFETIME = timedelta(days=3650)
_OTHER_LIFETIME = timedelta(days=3650)
_SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")
_SHA1_WITH_RSA = bytes.fromhex("06092a864886f70d010105")
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key; the key stays out of `repr`."""

    certificate: x509.Certificate
    key: PrivateKey

    def __repr__(self) -> str:
        return f"Pair({self.certificate.subject.rfc4514_string()})"


@dataclass(frozen=True, slots=True)
class ClientAuthority:
    """The CA that signs client certificates, below a root if the operator attached one."""

    issuer: Pair
    root: Pair | None = None

    @classmethod
    def create(
        cls,
        *,
        chain: int,
        lifetime: timedelta,
        now: datetime,
        key_size: int = 2048,
        name: str = "Compass Connector CA",
    ) -> "ClientAuthority":
        """A new CA: `chain` 2 is a self-signed one, 3 puts a root above it (attachRootCAToChain)."""
        if chain == 2:
            return cls(_certificate_authority(name, rsa_key(key_size), lifetime=lifetime, now=now))
        root = _certificate_authority(
            "Compass Connector Root CA", rsa_key(), lifetime=_ROOT_LIFETIME, now=now
        )
        issuer = _certificate_authority(
            name, rsa_key(key_size), lifetime=lifetime, now=now, signer=root, path_length=0
        )
        return cls(issuer, root)

    @property
    def certificates(self) -> list[x509.Certificate]:
        """What `caCertificate` holds: the signing CA, then the root if it is attached."""
        return [pair.certificate for pair in (self.issuer, self.root) if pair is not None]

    @property
    def anchor(self) -> x509.Certificate:
        """What the mTLS listener trusts: the top. A client that leaves out its intermediate is refused."""
        return self.certificates[-1]

    def valid_at(self, moment: datetime) -> bool:
        """Whether no certificate of it has expired."""
        return all(certificate.not_valid_after_utc > moment for certificate in self.certificates)


@lru_cache(maxsize=2)
def other_authority(chain: int) -> ClientAuthority:
    """A CA of the same name that no listener trusts; one per process, since its RSA key takes a while."""
    return ClientAuthority.create(chain=chain, lifetime=_OTHER_LIFETIME, now=real_now())


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafRequest:
    """What to certify; the defaults are the Connector's."""

    subject: x509.Name
    public_key: Any
    not_before: datetime
    not_after: datetime
    hash_algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512
    pss: PSS | None = None
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH


def issue_leaf(
    issuer: Pair, request: LeafRequest, *, signing_key: PrivateKey | None = None
) -> x509.Certificate:
    """A client certificate exactly as the Connector's (contract section 1).

    Serial number 2, no back-dating, no clamping to the CA's own end, three extensions (two if the CA has no
    key identifier), no SAN, basic constraints or SKI. With `signing_key` another key signs under
    the same issuer's name.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(request.public_key)
        .serial_number(CERTIFICATE_SERIAL_NUMBER)
        .not_valid_before(request.not_before)
        .not_valid_after(request.not_after)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([request.usage]), critical=False)
    )
    for one in issuer.certificate.extensions:
        if isinstance(one.value, x509.SubjectKeyIdentifier):
            identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(one.value)
            builder = builder.add_extension(identifier, critical=False)
    return builder.sign(signing_key or issuer.key, request.hash_algorithm, rsa_padding=request.pss)


def create_server_authority(*, now: datetime, name: str = "Compass ingress CA") -> Pair:
    """The CA of server certificates: EC, because nothing depends on its kind and it is quick to make."""
    return _certificate_authority(name, ec_key(), lifetime=_ROOT_LIFETIME, now=now)


def issue_server(authority: Pair, names: list[str], *, not_before: datetime, not_after: datetime) -> Pair:
    """A server certificate for these DNS names and addresses."""
    key = ec_key()
    builder = _builder(
        _named(names[0]),
        authority.certificate.subject,
        key,
        not_before=not_before - _BACKDATED,
        not_after=not_after,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
    )
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """2048 bits: a tenth of a second here, against four for 4096."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    """P-256: a millisecond."""
    return ec.generate_private_key(ec.SECP256R1())


def certificates_pem(certificates: list[x509.Certificate]) -> bytes:
    """Go-style PEM: 64 columns, LF, one trailing newline, nothing between the blocks."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def helm_extensions(key: PrivateKey) -> list[tuple[x509.ExtensionType, bool]]:
    """Those of a CA that Helm's `genCA` makes, as the Connector's chart does."""
    usage = _key_usage(digital_signature=True, key_encipherment=True, key_cert_sign=True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return [
        (usage, True),
        (purposes, False),
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]


def key_pem(key: PrivateKey) -> bytes:
    """Unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """Lower-case hex SHA-256 of the DER, the only identity there is: every serial number is 2."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def sign_with_sha1(certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> x509.Certificate:
    """The same certificate (which SHA-256 with RSA signed) with a SHA-1 signature.

    pyca signs no certificate so. The identifiers of both algorithms are equally long, and so the signed part
    needs no new lengths.
    """
    signed = certificate.tbs_certificate_bytes.replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA, 1)
    signature = key.sign(signed, PKCS1v15(), hashes.SHA1())  # noqa: S303 (what clients must refuse)
    algorithm = der.write(der.SEQUENCE, _SHA1_WITH_RSA + b"\x05\x00")
    content = signed + algorithm + der.write(der.BIT_STRING, b"\x00" + signature)
    return x509.load_der_x509_certificate(der.write(der.SEQUENCE, content))


def _certificate_authority(
    name: str,
    key: PrivateKey,
    *,
    lifetime: timedelta,
    now: datetime,
    signer: Pair | None = None,
    path_length: int | None = None,
) -> Pair:
    issuer = signer.certificate.subject if signer else _named(name)
    signing_key = signer.key if signer else key
    builder = _builder(_named(name), issuer, key, not_before=now - _BACKDATED, not_after=now + lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
    )
    return Pair(builder.sign(signing_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, *, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Compass Connector emulator"),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def twin(
    anchor: x509.Certificate,
    signer: PrivateKey,
    *,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    permitted: x509.Name | None = None,
    issuer: x509.Name | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] | None = None,
) -> x509.Certificate:
    """The same name and key with other dates, below another CA, or for subjects below `permitted` alone.

    `extensions` replace the certificate's own. As a trust anchor it may be signed by any RSA key: nothing but
    the algorithm of that signature is looked at.
    """
    if extensions is None:
        extensions = [(one.value, one.critical) for one in anchor.extensions]
    builder = (
        x509.CertificateBuilder()
        .subject_name(anchor.subject)
        .issuer_name(issuer or anchor.issuer)
        .public_key(anchor.public_key())
        .serial_number(anchor.serial_number)
        .not_valid_before(not_before or anchor.not_valid_before_utc)
        .not_valid_after(not_after or anchor.not_valid_after_utc)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    if permitted is not None:
        constraint = x509.NameConstraints([x509.DirectoryName(permitted)], None)
        builder = builder.add_extension(constraint, critical=True)
    return builder.sign(signer, hashes.SHA256())


def certification_result(leaf: x509.Certificate, above: Sequence[x509.Certificate]) -> dict[str, str]:
    """What the Connector answers: the chain is exactly the leaf plus `caCertificate`."""
    leaf_pem, ca_pem = certificates_pem([leaf]), certificates_pem(list(above))
    return encoded(leaf=leaf_pem, ca=ca_pem, chain=leaf_pem + ca_pem)


def encoded(*, leaf: bytes, ca: bytes, chain: bytes) -> dict[str, str]:
    """Any three PEM texts in the fields of a CertificationResult."""
    return {
        "certificateChain": base64.b64encode(chain).decode(),
        "caCertificate": base64.b64encode(ca).decode(),
        "clientCertificate": base64.b64encode(leaf).decode(),
    }
