"""Of a certificate only what is needed is read, and names are compared as OpenSSL compares them."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtensionOID, NameOID

from compass_sidecar.core.certificate import (
    begins,
    ends,
    has_key,
    is_ca,
    is_for_clients,
    is_self_signed,
    issued_by,
    issuer_text,
    load,
    may_sign,
    may_sign_certificates,
    path_length,
    subject_text,
    subject_values,
)
from compass_sidecar.errors import MalformedCredential
from tests.support.authority import NOW, Authority, ec_key, name, rsa_key
from tests.support.odd_certificates import (
    Edit,
    critical_false_written_out,
    replaced,
    signed_again,
    version_1,
)

CA = Authority.create(key=ec_key(1))
LEAF = CA.issue()


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def odd(edit: Edit, certificate: x509.Certificate = CA.certificate) -> x509.Certificate:
    return load(signed_again(certificate, CA, edit))


def extended(oid: x509.ObjectIdentifier, value: str, *, critical: bool = False) -> x509.Certificate:
    """A leaf with an extension whose value is this hex."""
    extension = x509.UnrecognizedExtension(oid, bytes.fromhex(value))
    return load(der_of(CA.issue(purposes=(), extensions=[(extension, critical)])))


# --- what is not needed does not disturb


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (ExtensionOID.CERTIFICATE_POLICIES, "3005300306012a0500"),
        (ExtensionOID.CERTIFICATE_POLICIES, "ff"),
        (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, "3005a303612e62"),
        (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ""),
        (ExtensionOID.CRL_DISTRIBUTION_POINTS, "30030101ff"),
        (ExtensionOID.NAME_CONSTRAINTS, "0500"),
        (x509.ObjectIdentifier("1.2.3.4"), "00"),
    ],
)
def test_an_extension_that_is_not_needed_may_be_anything(oid: x509.ObjectIdentifier, value: str) -> None:
    certificate = extended(oid, value)
    assert (is_ca(certificate), may_sign(certificate), is_for_clients(certificate)) == (False, True, True)
    assert issued_by(certificate, CA.certificate)


@pytest.mark.parametrize(
    ("value", "ca", "length"),
    [
        ("3000", False, None),
        ("3003010100", False, None),  # the default, written out
        ("30030101ff", True, None),
        ("3003010101", True, None),  # any TRUE of BER
        ("30060101ff020100", True, 0),
        ("30060101ff020105", True, 5),
    ],
)
def test_basic_constraints_are_read_as_openssl_reads_them(value: str, ca: bool, length: int | None) -> None:
    certificate = extended(ExtensionOID.BASIC_CONSTRAINTS, value)
    assert (is_ca(certificate), path_length(certificate)) == (ca, length)


@pytest.mark.parametrize("value", ["300a06082b06010505070302", "30060604551d2500"])
def test_a_purpose_for_clients_is_found(value: str) -> None:
    assert is_for_clients(extended(ExtensionOID.EXTENDED_KEY_USAGE, value))


def test_a_purpose_for_servers_alone_is_not_for_clients() -> None:
    assert not is_for_clients(extended(ExtensionOID.EXTENDED_KEY_USAGE, "300a06082b06010505070301"))


@pytest.mark.parametrize("oid", [ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.EXTENDED_KEY_USAGE])
def test_an_extension_that_is_needed_and_cannot_be_read_has_its_reason(oid: x509.ObjectIdentifier) -> None:
    with pytest.raises(MalformedCredential, match="cannot be parsed: "):
        extended(oid, "ff")


def test_a_certificate_that_the_library_cannot_load_is_refused_with_its_reason() -> None:
    with pytest.raises(
        MalformedCredential, match=r"cannot be parsed: error parsing asn1 value.*EncodedDefault"
    ):
        odd(critical_false_written_out)


# --- who is a CA


def test_a_self_signed_certificate_of_version_1_is_a_ca() -> None:
    root = odd(version_1)
    assert (is_ca(root), may_sign_certificates(root), is_self_signed(root)) == (True, True, True)


def test_another_certificate_of_version_1_is_no_ca() -> None:
    assert not is_ca(odd(version_1, CA.intermediate().certificate))
    assert not is_ca(odd(version_1, LEAF))


def test_a_key_usage_for_certificates_makes_a_ca_where_nothing_else_is_said() -> None:
    usage = CA.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    builder = x509.CertificateBuilder(
        issuer_name=name(), subject_name=name(), public_key=ec_key(1).public_key(), serial_number=1
    )
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    assert is_ca(builder.add_extension(usage, critical=True).sign(ec_key(1), hashes.SHA256()))
    assert not is_ca(builder.sign(ec_key(1), hashes.SHA256()))


# --- dates


LATE = datetime(2050, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("year", [b"0000", b"0001", b"9999"])
def test_any_year_of_x509_is_read(year: bytes) -> None:
    authority = Authority.create(key=ec_key(1), not_before=LATE, lifetime=timedelta(days=365))
    certificate = odd(replaced(b"20500101", year + b"0101"), authority.certificate)
    assert begins(certificate).year == max(int(year), 1)
    other = odd(replaced(b"20510101", year + b"0101"), authority.certificate)
    assert ends(other).year == max(int(year), 1)
    assert begins(certificate).tzinfo is UTC


# --- names


def teletex(text: str) -> x509.Name:
    value = x509.NameAttribute(NameOID.ORGANIZATION_NAME, text, _ASN1Type.T61String)
    return x509.Name([value, x509.NameAttribute(NameOID.COMMON_NAME, "Example, CA")])


def test_a_name_that_cannot_be_shown_is_shown_in_hex() -> None:
    authority = Authority.create(subject=teletex("M*ller"), key=ec_key(1))
    edit = replaced(b"M*ller", b"M\xfcller")
    certificate, leaf = odd(edit, authority.certificate), odd(edit, authority.issue())
    assert subject_text(certificate) == issuer_text(certificate) == issuer_text(leaf)
    assert subject_text(certificate) == r"CN=Example\, CA,O=#14064dfc6c6c6572"
    assert issued_by(leaf, certificate)
    assert (("2.5.4.10", "Müller"), 1) in subject_values(certificate).items()


@pytest.mark.filterwarnings("ignore:Attribute")
def test_a_value_that_is_no_text_is_shown_in_hex() -> None:
    country = bytes.fromhex("13024445")
    certificate = odd(replaced(country, bytes.fromhex("03020045")))
    assert subject_text(certificate).endswith(",C=#03020045")
    assert is_self_signed(certificate)


@pytest.mark.filterwarnings("ignore:Attribute")
def test_names_that_can_be_shown_are_shown_as_ever_and_cleaned() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "\u202ex " * 300, _validate=False)])
    certificate = CA.issue(subject=subject)
    assert subject_text(LEAF) == name().rfc4514_string()
    assert subject_text(certificate).isprintable()
    assert 240 <= len(subject_text(certificate)) <= 256


def named(text: str, kind: _ASN1Type = _ASN1Type.UTF8String, **others: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COUNTRY_NAME, others.get("C", "DE"))]
    attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, text, kind))
    return x509.Name(attributes)


NAMES = {
    "the same": named("Example CA"),
    "another string type": named("Example CA", _ASN1Type.PrintableString),
    "BMPString": named("Example CA", _ASN1Type.BMPString),
    "UniversalString": named("Example CA", _ASN1Type.UniversalString),
    "T61String": named("Example CA", _ASN1Type.T61String),
    "capitals": named("EXAMPLE ca"),
    "spaces around": named("  Example CA "),
    "spaces between": named("Example   CA"),
    "a tab": named("Example\tCA"),
    "a line break between": named("Example \n CA"),
    "no space": named("ExampleCA"),
    "a no-break space": named("Example\u00a0CA"),
    "another letter": named("Exanple CA"),
    "another country": named("Example CA", C="FR"),
    "an umlaut": named("Exämple CA"),
    "a capital umlaut": named("EXÄMPLE CA"),
    "another order": x509.Name(reversed(list(named("Example CA")))),
    "one RDN": x509.Name([x509.RelativeDistinguishedName(list(named("Example CA")))]),
    "one attribute more": x509.Name([*named("Example CA"), *named("Example CA")]),
    "empty": x509.Name([]),
}


def verifies(leaf: x509.Certificate, issuer: x509.Certificate, folder: Path) -> bool:
    """What OpenSSL says."""
    for file, certificate in (("leaf", leaf), ("ca", issuer)):
        (folder / file).write_bytes(certificate.public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-partial_chain", "-CAfile", folder / "ca", folder / "leaf"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("held", ["the same", "an umlaut", "one RDN"])
@pytest.mark.parametrize("announced", NAMES)
def test_names_are_compared_as_openssl_compares_them(held: str, announced: str, tmp_path: Path) -> None:
    issuer = Authority.create(subject=NAMES[held], key=ec_key(1)).certificate
    leaf = Authority.create(subject=NAMES[announced], key=ec_key(1)).issue()
    assert issued_by(leaf, issuer) == verifies(leaf, issuer, tmp_path)
    assert issued_by(leaf, issuer) or held != announced


# --- signatures


def issuing(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        issuer_name=name(), subject_name=name(), public_key=key.public_key(), serial_number=1
    )
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def test_signatures_of_every_kind_are_verified() -> None:
    kinds = [issuing(rsa_key()), issuing(ec_key()), issuing(ed25519.Ed25519PrivateKey.generate())]
    for one in kinds:
        for other in kinds:
            assert issued_by(one, other) == (one == other)


def test_a_signature_with_pss_is_verified() -> None:
    builder = x509.CertificateBuilder(
        issuer_name=name(), subject_name=name(), public_key=rsa_key().public_key(), serial_number=1
    )
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    assert is_self_signed(builder.sign(rsa_key(), hashes.SHA256(), rsa_padding=scheme))


def test_a_signature_is_by_the_algorithm_that_was_signed() -> None:
    certificate = issuing(rsa_key())
    sha256, sha512 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d01010d")
    first, _, second = der_of(certificate).rpartition(sha256)
    assert not is_self_signed(load(first + sha512 + second))


def test_a_key_of_an_unknown_kind_is_nobodys() -> None:
    certificate = issuing(ec_key())
    curve, other = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030177")
    unknown = load(der_of(certificate).replace(curve, other))
    assert not has_key(unknown, ec_key().public_key())
    assert not issued_by(certificate, unknown)
    assert has_key(certificate, ec_key().public_key())
