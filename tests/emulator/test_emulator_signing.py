"""Signing: what is refused, in which words, and what an issued certificate is like (contract section 1)."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from compass_emulator import Emulator, EmulatorOptions
from tests.emulator.talking import (
    KEY,
    PROBE,
    SIGN,
    STANDARD,
    ask,
    chain,
    encode,
    fields,
    first_client_id,
    make_csr,
    message,
    obtain,
    own_credential,
    save,
)

pytestmark = pytest.mark.anyio
SIGNING = "Error while signing Certificate Signing Request: "
BAD_BASE64 = (
    "Error while decoding Certificate Signing Request: "
    "Error while parsing base64 content. Incorrect value provided."
)
BAD_PEM = SIGNING + "Error while decoding pem block."
NOT_RSA = (
    SIGNING
    + "Error while creating certificate: x509: requested SignatureAlgorithm does not match private key type"
)


async def sign(emulator: Emulator, csr: str) -> x509.Certificate:
    return chain(await ask(emulator, SIGN, {"csr": csr}))[0]


def pem_of(csr: str) -> bytes:
    return base64.b64decode(csr)


async def test_a_leaf_is_exactly_the_connectors(emulator: Emulator) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    leaf = await sign(emulator, make_csr(first_client_id(emulator)))
    assert leaf.serial_number == 2
    assert before <= leaf.not_valid_before_utc <= datetime.now(UTC)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=90)
    assert leaf.public_key() == KEY.public_key()
    assert [(one.oid._name, one.critical) for one in leaf.extensions] == [
        ("keyUsage", True),
        ("extendedKeyUsage", False),
        ("authorityKeyIdentifier", False),
    ]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, False, False)
    extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.CLIENT_AUTH]


async def test_the_subject_comes_in_gos_order_as_printable_strings(emulator: Emulator) -> None:
    client_id = first_client_id(emulator)
    leaf = await sign(emulator, make_csr(client_id))
    # RFC 4514 reads backwards: C, ST, L, O, OU, CN in the certificate.
    assert leaf.subject.rfc4514_string() == f"CN={client_id},OU=OrgUnit,O=Org,L=locality,ST=province,C=DE"
    assert {attribute._type.name for attribute in leaf.subject} == {"PrintableString"}


async def test_a_chain_is_leaf_and_ca_in_gos_pem(emulator: Emulator) -> None:
    answer = await ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))})
    found = fields(answer)
    assert found["certificateChain"] == found["clientCertificate"] + found["caCertificate"]
    assert found["certificateChain"].count(b"-----BEGIN CERTIFICATE-----\n") == 2
    assert found["certificateChain"].endswith(b"-----END CERTIFICATE-----\n")
    assert b"\r" not in found["certificateChain"]
    assert max(len(line) for line in found["certificateChain"].splitlines()) == 64
    leaf, authority = chain(answer)
    leaf.verify_directly_issued_by(authority)
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    announced = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert announced.key_identifier == identifier.digest
    assert announced.authority_cert_serial_number is None


async def test_the_chain_has_three_certificates_when_the_root_is_attached(tmp_path: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=tmp_path / "three", chain=3)) as emulator:
        answer = await ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))})
        leaf, issuer, root = chain(answer)
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)
        root.verify_directly_issued_by(root)
        credential = save(tmp_path / "obtained", fields(answer)["certificateChain"])
        assert (await ask(emulator, PROBE, credential=credential)).status_code == 200


async def test_the_same_request_within_a_second_gives_the_same_bytes(emulator: Emulator) -> None:
    csr = make_csr(first_client_id(emulator))
    answers = [await ask(emulator, SIGN, {"csr": csr}) for _ in range(6)]
    found = {fields(answer)["clientCertificate"] for answer in answers}
    starts = {chain(answer)[0].not_valid_before_utc for answer in answers}
    assert len(found) == len(starts)


async def test_old_certificates_stay_valid_after_a_renewal(emulator: Emulator, tmp_path: Path) -> None:
    new = await obtain(emulator, tmp_path / "new")
    assert (await ask(emulator, PROBE, credential=own_credential(emulator))).status_code == 200
    assert (await ask(emulator, PROBE, credential=new)).status_code == 200


@pytest.mark.parametrize(
    ("algorithm", "oid"),
    [
        (hashes.SHA256(), SignatureAlgorithmOID.RSA_WITH_SHA256),
        (hashes.SHA384(), SignatureAlgorithmOID.RSA_WITH_SHA384),
        (hashes.SHA512(), SignatureAlgorithmOID.RSA_WITH_SHA512),
    ],
)
async def test_the_signature_algorithm_mirrors_the_requests(
    emulator: Emulator, algorithm: Any, oid: x509.ObjectIdentifier
) -> None:
    leaf = await sign(emulator, make_csr(first_client_id(emulator), algorithm=algorithm))
    assert leaf.signature_algorithm_oid == oid


async def test_pss_is_mirrored_too(emulator: Emulator) -> None:
    pss = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.DIGEST_LENGTH)
    csr = make_csr(first_client_id(emulator), algorithm=hashes.SHA512(), rsa_padding=pss)
    leaf, authority = chain(await ask(emulator, SIGN, {"csr": csr}))
    assert leaf.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
    leaf.verify_directly_issued_by(authority)


async def test_a_weak_key_and_a_reused_one_are_signed(emulator: Emulator) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 (the point)
    assert (
        await sign(emulator, make_csr(first_client_id(emulator), key=weak))
    ).public_key() == weak.public_key()


async def test_a_second_unit_is_kept_and_mail_and_san_are_dropped(emulator: Emulator) -> None:
    attributes = [x509.NameAttribute(oid, value) for oid, value in STANDARD.items()]
    attributes += [
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Second"),
        x509.NameAttribute(NameOID.EMAIL_ADDRESS, "someone@example.org"),
        x509.NameAttribute(NameOID.COMMON_NAME, first_client_id(emulator)),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=False)
    request = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    leaf = await sign(emulator, encode(request))
    units = [rdn for rdn in leaf.subject.rdns if rdn.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    assert [sorted(str(one.value) for one in unit) for unit in units] == [["OrgUnit", "Second"]]
    assert not leaf.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
    assert len(leaf.extensions) == 3


def broken(csr: str) -> bytes:
    """The same request with its last signature byte changed."""
    der = bytearray(x509.load_pem_x509_csr(pem_of(csr)).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return pem(bytes(der))


def unpadded(csr: str) -> str:
    """The same request without the padding that its base64 needs."""
    text = pem_of(csr)
    while len(text) % 3 == 0:
        text += b"\n"
    return encode(text).rstrip("=")


def pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


@pytest.mark.parametrize(
    "form",
    [
        lambda csr: csr[:40] + "\r\n" + csr[40:] + "\n",
        lambda csr: encode(pem_of(csr).replace(b"\n", b"\r\n")),
        lambda csr: encode(b"some text in front\n" + pem_of(csr)),
        lambda csr: encode(pem_of(csr).replace(b"CERTIFICATE REQUEST", b"SOMETHING ELSE")),
        lambda csr: encode(pem_of(csr).replace(b"REQUEST-----\n", b"REQUEST-----\nProc-Type: 4\n\n", 1)),
        lambda csr: encode(b"-----BEGIN X-----\n!!\n-----END X-----\n" + pem_of(csr)),
    ],
    ids=["line-broken", "crlf", "leading-text", "other-label", "with-header", "after-a-broken-block"],
)
async def test_unusual_forms_that_go_accepts_are_signed(emulator: Emulator, form: Any) -> None:
    answer = await ask(emulator, SIGN, {"csr": form(make_csr(first_client_id(emulator)))})
    assert "data" in answer.json(), answer.text
    assert chain(answer)[0].public_key() == KEY.public_key()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (lambda csr: csr[:40] + " " + csr[40:], BAD_BASE64),
        (lambda csr: "-_" + csr[2:], BAD_BASE64),
        (unpadded, BAD_BASE64),
        (lambda _csr: "ä", BAD_BASE64),
        (lambda _csr: "", BAD_PEM),
        (
            lambda csr: encode(x509.load_pem_x509_csr(pem_of(csr)).public_bytes(serialization.Encoding.DER)),
            BAD_PEM,
        ),
        (lambda csr: encode(pem_of(csr).replace(b"\n", b"")), BAD_PEM),
        (lambda _csr: encode(pem(b"no ASN.1 at all")), SIGNING + "Error while parsing CSR: asn1: "),
        (lambda csr: encode(broken(csr)), SIGNING + "CSR signature invalid: crypto/rsa: verification error"),
    ],
    ids=[
        "space",
        "url-safe",
        "padding",
        "not-ascii",
        "empty",
        "der",
        "one-line",
        "not-asn1",
        "bad-signature",
    ],
)
async def test_a_request_that_cannot_be_read_is_refused_in_gos_words(
    emulator: Emulator, form: Any, expected: str
) -> None:
    answer = await ask(emulator, SIGN, {"csr": form(make_csr(first_client_id(emulator)))})
    assert message(answer).startswith(expected)
    assert emulator.counters["signatures"] == 0


@pytest.mark.parametrize(
    ("oid", "value", "expected"),
    [
        (NameOID.COMMON_NAME, "somebody-else", "CSR: Invalid common name provided."),
        (NameOID.COMMON_NAME, None, "CSR: Invalid common name provided."),
        (NameOID.COUNTRY_NAME, "PL", "CSR: Invalid country provided."),
        (NameOID.COUNTRY_NAME, None, "CSR: No country provided."),
        (NameOID.ORGANIZATION_NAME, "org", "CSR: Invalid organization provided."),
        (NameOID.ORGANIZATION_NAME, None, "CSR: No organization provided."),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "x", "CSR: Invalid organizational unit provided."),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, None, "CSR: No organizational unit provided."),
        (NameOID.LOCALITY_NAME, "x", "CSR: Invalid locality provided."),
        (NameOID.LOCALITY_NAME, None, "CSR: No locality provided."),
        (NameOID.STATE_OR_PROVINCE_NAME, "x", "CSR: Invalid province provided."),
        (NameOID.STATE_OR_PROVINCE_NAME, None, "CSR: No province provided."),
    ],
)
async def test_a_wrong_subject_is_refused_by_its_first_wrong_part(
    emulator: Emulator, oid: Any, value: str | None, expected: str
) -> None:
    csr = make_csr(first_client_id(emulator), changes={oid: value})
    assert message(await ask(emulator, SIGN, {"csr": csr})) == SIGNING + expected


async def test_the_parts_are_checked_in_the_connectors_order(emulator: Emulator) -> None:
    order = ["common name", "country", "organization", "organizational unit", "locality", "province"]
    oids = [
        NameOID.COMMON_NAME,
        NameOID.COUNTRY_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.LOCALITY_NAME,
        NameOID.STATE_OR_PROVINCE_NAME,
    ]
    for position, word in enumerate(order):
        csr = make_csr(first_client_id(emulator), changes=dict.fromkeys(oids[position:], "XX"))
        assert message(await ask(emulator, SIGN, {"csr": csr})) == f"{SIGNING}CSR: Invalid {word} provided."


@pytest.mark.parametrize("kind", ["ec", "ed25519"])
async def test_a_key_that_is_not_rsa_meets_the_x509_message(emulator: Emulator, kind: str) -> None:
    key: Any = (
        ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else ed25519.Ed25519PrivateKey.generate()
    )
    algorithm = hashes.SHA256() if kind == "ec" else None
    csr = make_csr(first_client_id(emulator), key=key, algorithm=algorithm)
    assert message(await ask(emulator, SIGN, {"csr": csr})) == NOT_RSA


async def test_the_lifetime_is_the_operators_and_outlives_the_ca_if_he_says_so(tmp_path: Path) -> None:
    options = EmulatorOptions(dir=tmp_path / "e", lifetime=timedelta(days=2), ca_lifetime=timedelta(days=1))
    async with Emulator.start(options) as emulator:
        leaf, authority = chain(await ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))}))
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=2)
        assert authority.not_valid_after_utc < leaf.not_valid_after_utc
        emulator.set_lifetime(timedelta(seconds=60))
        leaf = await sign(emulator, make_csr(first_client_id(emulator)))
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(seconds=60)


async def test_the_connectors_clock_sets_the_date_header_and_the_validity(emulator: Emulator) -> None:
    emulator.set_clock_offset(timedelta(days=2))
    answer = await ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))})
    said = datetime.strptime(answer.headers["date"], "%a, %d %b %Y %H:%M:%S %Z").replace(tzinfo=UTC)
    ahead = datetime.now(UTC) + timedelta(days=2)
    for moment in (said, chain(answer)[0].not_valid_before_utc):
        assert abs(moment - ahead) < timedelta(seconds=10)


async def test_every_certificate_is_listed_with_its_fingerprint(emulator: Emulator) -> None:
    leaf = await sign(emulator, make_csr(first_client_id(emulator)))
    listed = emulator.issued[-1]
    assert listed["fingerprint_sha256"] == leaf.fingerprint(hashes.SHA256()).hex()
    assert listed["client_id"] == first_client_id(emulator)
    assert listed["revoked"] is False
    assert emulator.counters["signatures"] == 1
