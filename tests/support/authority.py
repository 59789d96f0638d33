"""A tiny certificate authority, so that tests have real certificates of any age, subject and key.

    authority = Authority.create()                      # self-signed, EC: issues in 0.1 ms
    below = authority.intermediate()                    # its chain: itself, then authority
    below.credential(number=1)                          # compass_sidecar.core.credential.Credential, RSA-2048
    below.credential(subject=..., not_before=..., lifetime=timedelta(minutes=5))
    below.issue(key=rsa_key(7).public_key(), purposes=())   # a bare x509.Certificate
    below.sign(csr_pem)                                 # what a Connector does with a CSR
    authority.server("localhost", "127.0.0.1")          # (certificate, key) for a TLS server

Dates default to `NOW`, the real time at import without microseconds: real TLS accepts what is issued
here, and a fake clock may start at `NOW`. RSA keys are cached by number for the whole session.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from compass_sidecar.core.credential import Chain, Credential, render_private_key

NOW = datetime.now(UTC).replace(microsecond=0)
LIFETIME = timedelta(days=90)
CLIENT_ID = "1e5d8a2c-9c2b-4c57-8c0e-1c5a6d2f7b90"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def rsa_key(number: int = 0, *, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The session's RSA key of that number: a new one takes 50 ms, the same one nothing."""
    return _rsa_key(number, bits)


def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    return _ec_key(number)


# A cache tells `rsa_key()` and `rsa_key(0)` apart: these have no defaults.
@cache
def _rsa_key(number: int, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def _ec_key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey, *, passphrase: bytes | None = None, traditional: bool = False) -> bytes:
    """PKCS#8, encrypted if there is a passphrase; or the traditional form (PKCS#1, SEC 1)."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    form = (
        serialization.PrivateFormat.TraditionalOpenSSL if traditional else serialization.PrivateFormat.PKCS8
    )
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


def name(common_name: str = CLIENT_ID, **others: str) -> x509.Name:
    """A subject as the Connector gives it: `name("id", O="Org", L="here")` replaces single attributes."""
    values = {"C": "DE", "ST": "province", "L": "locality", "O": "Org", "OU": "OrgUnit", **others}
    oids = {
        "C": NameOID.COUNTRY_NAME,
        "ST": NameOID.STATE_OR_PROVINCE_NAME,
        "L": NameOID.LOCALITY_NAME,
        "O": NameOID.ORGANIZATION_NAME,
        "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    }
    attributes = [x509.NameAttribute(oid, values[short]) for short, oid in oids.items()]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True)
class Authority:
    """A CA certificate with its key, and the authorities above it."""

    certificate: x509.Certificate
    key: PrivateKey
    issuer: "Authority | None" = None

    @classmethod
    def create(
        cls,
        common_name: str = "Compass CA",
        *,
        subject: x509.Name | None = None,
        key: PrivateKey | None = None,
        not_before: datetime = NOW - timedelta(days=1),
        lifetime: timedelta = timedelta(days=3650),
        path_length: int | None = None,
    ) -> "Authority":
        """A self-signed one; a new EC key unless one is given."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = subject or name(common_name)
        dates = (not_before, not_before + lifetime)
        builder = _builder(subject, subject, key.public_key(), dates=dates, serial=1)
        return cls(_ca(builder, key.public_key(), key, path_length), key)

    def intermediate(
        self,
        common_name: str = "Compass Intermediate CA",
        *,
        key: PrivateKey | None = None,
        not_before: datetime = NOW - timedelta(days=1),
        lifetime: timedelta = timedelta(days=1825),
        path_length: int | None = None,
    ) -> "Authority":
        """An authority issued by this one."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        dates = (not_before, not_before + lifetime)
        issuer = self.certificate.subject
        builder = _builder(name(common_name), issuer, key.public_key(), dates=dates, serial=2)
        builder = builder.add_extension(self._identifier(), critical=False)
        return Authority(_ca(builder, key.public_key(), self.key, path_length), key, self)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """This CA's certificate and those above it, in issuing order."""
        return (self.certificate, *(self.issuer.chain if self.issuer else ()))

    @property
    def pem(self) -> bytes:
        """This CA's own certificate: the trust anchor file of a TLS client."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *,
        key: PublicKey | None = None,
        subject: x509.Name | None = None,
        not_before: datetime = NOW,
        lifetime: timedelta = LIFETIME,
        serial: int = 2,
        purposes: Iterable[ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        """A leaf as the Connector makes it: no SAN, no SKI, no basicConstraints, serial number 2.

        `extensions` are further (extension, critical) pairs; `purposes=()` leaves the EKU out.
        """
        public_key = key or rsa_key().public_key()
        dates = (not_before, not_before + lifetime)
        issuer = self.certificate.subject
        builder = _builder(subject or name(), issuer, public_key, dates=dates, serial=serial)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(self._identifier(), critical=False)
        if purposes := tuple(purposes):
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256())

    def sign(
        self, csr_pem: bytes, *, not_before: datetime = NOW, lifetime: timedelta = LIFETIME
    ) -> x509.Certificate:
        """A leaf for the CSR's key and subject."""
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
        return self.issue(key=key, subject=csr.subject, not_before=not_before, lifetime=lifetime)

    def credential(
        self,
        *,
        number: int = 0,
        subject: x509.Name | None = None,
        not_before: datetime = NOW,
        lifetime: timedelta = LIFETIME,
    ) -> Credential:
        """A whole credential for the session's RSA key of that number, with this CA's chain."""
        key = rsa_key(number)
        leaf = self.issue(key=key.public_key(), subject=subject, not_before=not_before, lifetime=lifetime)
        return Credential(Chain.of([leaf, *self.chain]), render_private_key(key))

    def server(
        self, *hosts: str, not_before: datetime = NOW - timedelta(hours=1), lifetime: timedelta = LIFETIME
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A TLS server certificate for names and IP addresses, with its key."""
        key = ec_key()
        leaf = self.issue(
            key=key.public_key(),
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])]),
            not_before=not_before,
            lifetime=lifetime,
            serial=x509.random_serial_number(),
            purposes=(ExtendedKeyUsageOID.SERVER_AUTH,),
            extensions=[(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False)],
        )
        return leaf, key

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        # Python 3.13 verifies strictly by default, and then a server certificate needs it.
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, *, dates: tuple[datetime, datetime], serial: int
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=serial,
        not_valid_before=dates[0],
        not_valid_after=dates[1],
    )


def _ca(
    builder: x509.CertificateBuilder, key: PublicKey, signer: PrivateKey, path_length: int | None
) -> x509.Certificate:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
