"""Keys and chains are read in every form that operators have, and each way to be wrong has its message."""

import re
import subprocess
from base64 import encodebytes
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_sidecar.core.credential import (
    MAX_CERTIFICATES,
    Chain,
    Credential,
    check_key,
    fingerprint,
    key_algorithm,
    load_public_key,
    parse_certificates,
    render,
    render_private_key,
)
from compass_sidecar.core.csr import make_csr
from compass_sidecar.core.key_material import load_private_key
from compass_sidecar.errors import KeyMismatch, MalformedCredential
from tests.support.authority import NOW, Authority, ec_key, key_pem, name, rsa_key

DAY = timedelta(days=1)
CA = Authority.create(key=ec_key(1))
BELOW = CA.intermediate(key=ec_key(2))
PASSPHRASE = b"correct horse"
OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n"


# --- certificates


def test_certificates_are_read_in_the_order_of_the_file() -> None:
    leaf = BELOW.issue()
    assert parse_certificates(render([CA.certificate, leaf])) == (CA.certificate, leaf)


def test_a_certificate_that_is_repeated_counts_once() -> None:
    leaf = BELOW.issue()
    assert parse_certificates(render([leaf, BELOW.certificate, leaf])) == (leaf, BELOW.certificate)


def test_keys_and_text_between_certificates_are_passed_over() -> None:
    pem = b"Bag Attributes\n" + key_pem(rsa_key()) + b"subject=x\n" + CA.pem + b"\n\n"
    assert parse_certificates(pem) == (CA.certificate,)


def test_windows_line_ends_do_not_matter() -> None:
    assert parse_certificates(CA.pem.replace(b"\n", b"\r\n")) == (CA.certificate,)


def test_as_many_certificates_as_anybody_has_are_read() -> None:
    certificates = tuple(CA.issue(serial=number) for number in range(1, MAX_CERTIFICATES + 1))
    assert parse_certificates(render(certificates)) == certificates


def broken(pem: bytes) -> bytes:
    """The PEM of a certificate whose outer length is wrong."""
    return pem.replace(b"\nMII", b"\nMIJ", 1)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "is empty"),
        (b"\x30\x82\x01\x00", "certificate 1 cannot be parsed: "),
        (key_pem(ec_key()), "has no PEM block CERTIFICATE, only PRIVATE KEY"),
        (CA.pem[:-20], "has a PEM block CERTIFICATE without its end"),
        (CA.pem.replace(b"CERTIFICATE", b"certificate"), "is not PEM"),
        (CA.pem.replace(b"END CERTIFICATE", b"END X509 CRL"), "has a PEM block CERTIFICATE without its end"),
        (CA.pem * (MAX_CERTIFICATES + 1), "has 501 certificates, more than 500"),
        (broken(CA.pem), "certificate 1 cannot be parsed: error parsing asn1 value"),
        (CA.pem + broken(CA.pem), "certificate 2 cannot be parsed: error parsing asn1 value"),
        (CA.pem + CA.pem.replace(b"\nMII", b"\nM,I"), "certificate 2 is not base64"),
    ],
)
def test_a_text_without_readable_certificates_is_refused(pem: bytes, why: str) -> None:
    with pytest.raises(MalformedCredential) as caught:
        parse_certificates(pem)
    assert caught.value.detail.startswith(why)


@pytest.mark.parametrize(
    ("original", "changed"),
    [
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020109")),  # version 10
        (bytes.fromhex("0603551d23"), bytes.fromhex("0603551d0f")),  # a second key usage
    ],
    ids=["version", "extension twice"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_certificate_of_unknown_form_is_malformed_and_no_bug(original: bytes, changed: bytes) -> None:
    der = CA.issue().public_bytes(serialization.Encoding.DER)
    assert original in der
    with pytest.raises(MalformedCredential, match="cannot be parsed"):
        parse_certificates(pem_of(der.replace(original, changed)))


def pem_of(der: bytes, label: str = "CERTIFICATE") -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), encodebytes(der), label.encode())


@pytest.mark.filterwarnings("ignore")  # the library's, on odd serial numbers and names
@settings(deadline=None)
@given(st.data())
def test_a_damaged_certificate_is_malformed_or_can_be_used_without_a_surprise(data: st.DataObject) -> None:
    der = bytearray(BELOW.certificate.public_bytes(serialization.Encoding.DER))
    der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        chain = Chain.of(parse_certificates(pem_of(der)))
    except MalformedCredential:
        return
    assert len(chain.fingerprint) == 64
    assert key_algorithm(chain.leaf)
    assert chain.subject.isprintable()


# --- chains


def test_a_chain_shows_its_leafs_dates_and_fingerprint() -> None:
    leaf = BELOW.issue(not_before=NOW, lifetime=DAY)
    chain = Chain.of([leaf, *BELOW.chain])
    assert chain.leaf == leaf
    assert chain.authorities == BELOW.chain
    assert (chain.not_before, chain.not_after) == (NOW, NOW + DAY)
    assert chain.fingerprint == leaf.fingerprint(hashes.SHA256()).hex()
    assert chain.not_before.tzinfo is not None


def test_openssl_computes_the_same_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_bytes(render([leaf := CA.issue()]))
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", tmp_path / "leaf.pem"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout.decode().strip()
    assert fingerprint(leaf) == shown.partition("=")[2].replace(":", "").lower()


def test_two_certificates_with_the_same_serial_number_have_other_fingerprints() -> None:
    one, other = CA.issue(), CA.issue()
    assert one.serial_number == other.serial_number == 2
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    ("days", "first"),
    [((3, 9, 9), 3), ((9, 3, 9), 3), ((9, 9, 3), 3), ((3, 2, 1), 1), ((2, 2, 2), 2)],
)
def test_the_effective_end_is_the_earliest_in_the_chain(days: tuple[int, int, int], first: int) -> None:
    leaf_days, below_days, root_days = days
    root = Authority.create(not_before=NOW, lifetime=root_days * DAY)
    below = root.intermediate(not_before=NOW, lifetime=below_days * DAY)
    chain = Chain.of([below.issue(not_before=NOW, lifetime=leaf_days * DAY), *below.chain])
    assert chain.effective_not_after == NOW + first * DAY
    assert chain.not_after == NOW + leaf_days * DAY


def test_a_leaf_alone_has_no_ca_text() -> None:
    chain = Chain.of([leaf := CA.issue()])
    assert (chain.pem, chain.ca_pem, chain.authorities) == (render([leaf]), None, ())


def test_the_ca_text_is_the_chain_without_its_leaf() -> None:
    chain = Chain.of([leaf := BELOW.issue(), *BELOW.chain])
    assert chain.pem == render([leaf]) + (chain.ca_pem or b"")
    assert parse_certificates(chain.ca_pem or b"") == BELOW.chain


def test_no_repr_shows_a_key() -> None:
    credential = Credential(Chain.of([CA.issue()]), key_pem(rsa_key()))
    assert "PRIVATE" not in repr(credential)
    assert "PRIVATE" in credential.key_pem.decode()


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (rsa_key().public_key(), "RSA-2048"),
        (ec_key().public_key(), "EC-secp256r1"),
        (ec.generate_private_key(ec.SECP384R1()).public_key(), "EC-secp384r1"),
        (ed25519.Ed25519PrivateKey.generate().public_key(), "Ed25519"),
    ],
)
def test_the_kind_of_key_is_named_for_people(key: rsa.RSAPublicKey, shown: str) -> None:
    assert key_algorithm(CA.issue(key=key)) == shown


# --- private keys of operators


@pytest.mark.parametrize(
    ("pem", "passphrase"),
    [
        (key_pem(rsa_key()), None),
        (key_pem(rsa_key(), traditional=True), None),
        (key_pem(rsa_key(), passphrase=PASSPHRASE), PASSPHRASE),
        (key_pem(rsa_key(), passphrase=PASSPHRASE, traditional=True), PASSPHRASE),
        (b"text\n" + key_pem(rsa_key()) + CA.pem, None),
        (CA.pem + key_pem(rsa_key(), traditional=True), None),
        (key_pem(rsa_key()).replace(b"\n", b"\r\n"), None),
    ],
    ids=["PKCS#8", "PKCS#1", "encrypted PKCS#8", "encrypted PKCS#1", "before a chain", "after", "CRLF"],
)
def test_an_rsa_key_is_read_in_every_form(pem: bytes, passphrase: bytes | None) -> None:
    assert load_private_key(pem, passphrase=passphrase).private_numbers() == rsa_key().private_numbers()


def test_the_forms_are_those_that_their_labels_say() -> None:
    assert b"BEGIN RSA PRIVATE KEY" in key_pem(rsa_key(), traditional=True)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in key_pem(rsa_key(), passphrase=PASSPHRASE)
    assert b"Proc-Type: 4,ENCRYPTED" in key_pem(rsa_key(), passphrase=PASSPHRASE, traditional=True)


def test_openssls_own_encrypted_key_is_read(tmp_path: Path) -> None:
    command = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", f"pass:{PASSPHRASE.decode()}"]
    made = subprocess.run(command, input=key_pem(rsa_key()), capture_output=True, check=True).stdout
    assert load_private_key(made, passphrase=PASSPHRASE).public_key() == rsa_key().public_key()


def pkcs1(numbers: rsa.RSAPrivateNumbers, **changes: int) -> bytes:
    """The PEM of a key with some of its parts replaced, which no library would write."""
    parts = {each: getattr(numbers, each) for each in ("d", "p", "q", "dmp1", "dmq1", "iqmp")}
    public = {"version": 0, "n": numbers.public_numbers.n, "e": numbers.public_numbers.e}
    return pem_of(
        der_of(0x30, b"".join(map(integer, (public | parts | changes).values()))), "RSA PRIVATE KEY"
    )


def integer(value: int) -> bytes:
    return der_of(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def der_of(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = [size] if size < 0x80 else [0x81, size] if size < 0x100 else [0x82, *divmod(size, 0x100)]
    return bytes([tag, *length]) + content


def damaged(part: str, *, bit: int = 100) -> bytes:
    """The session's key with one bit of one part changed; its public part still fits."""
    numbers = rsa_key().private_numbers()
    return pkcs1(numbers, **{part: getattr(numbers, part) ^ (1 << bit)})


def test_a_key_that_is_not_changed_is_what_the_library_writes() -> None:
    pem = pkcs1(rsa_key().private_numbers())
    assert b"".join(pem.split()) == b"".join(key_pem(rsa_key(), traditional=True).split())


def cut_off(cipher: str, length: int) -> tuple[bytes, bytes]:
    """An encrypted PKCS#1 key with so many hex digits of an initialization vector, and a passphrase."""
    pem = key_pem(rsa_key(), passphrase=PASSPHRASE, traditional=True)
    header = b"DEK-Info: %b,%b\n" % (cipher.encode(), b"A" * length)
    return re.sub(rb"DEK-Info: .*\n", header, pem), PASSPHRASE


UNLOADABLE = [
    (b"", None, "is empty"),
    (CA.pem, None, "has no PEM block PRIVATE KEY, only CERTIFICATE"),
    (key_pem(ec_key())[:-10], None, "has a PEM block PRIVATE KEY without its end"),
    (key_pem(rsa_key()) + key_pem(rsa_key(1)), None, "has 2 private keys, one is needed"),
    (key_pem(rsa_key(), passphrase=PASSPHRASE), None, "is encrypted and no passphrase is set"),
    (
        key_pem(rsa_key(), passphrase=PASSPHRASE, traditional=True),
        None,
        "is encrypted and no passphrase is set",
    ),
    (key_pem(rsa_key(), passphrase=PASSPHRASE), b"wrong", "cannot be decrypted: wrong passphrase?"),
    (key_pem(rsa_key(), passphrase=PASSPHRASE), b"", "is encrypted and no passphrase is set"),
    (
        key_pem(rsa_key(), passphrase=PASSPHRASE, traditional=True),
        b"wrong",
        "cannot be decrypted: wrong passphrase?",
    ),
    (*cut_off("AES-256-CBC", 32), "cannot be decrypted: wrong passphrase?"),
    (*cut_off("AES-256-CBC", 16), "has a damaged header DEK-Info"),
    (*cut_off("AES-128-CBC", 0), "has a damaged header DEK-Info"),
    (*cut_off("DES-EDE3-CBC", 14), "has a damaged header DEK-Info"),
    (*cut_off("DES-EDE3-CBC", 16), "cannot be decrypted: wrong passphrase?"),
    (broken(key_pem(rsa_key())), None, "cannot be parsed"),
    (pem_of(b"no key", "PRIVATE KEY"), None, "cannot be parsed"),
    (pem_of(b"", "RSA PRIVATE KEY"), None, "cannot be parsed"),
    (
        OPENSSH,
        None,
        (
            "has no PEM block PRIVATE KEY, only OPENSSH PRIVATE KEY;"
            " convert it with `ssh-keygen -p -m PEM -f FILE`"
        ),
    ),
    (damaged("d"), None, "cannot be parsed"),
    (damaged("p"), None, "cannot be parsed"),
    (key_pem(ec_key()), None, "is not an RSA key; the Connector signs RSA keys only"),
    (key_pem(ec_key(), traditional=True), None, "is not an RSA key; the Connector signs RSA keys only"),
    (
        key_pem(ec_key(), passphrase=PASSPHRASE),
        PASSPHRASE,
        "is not an RSA key; the Connector signs RSA keys only",
    ),
]


@pytest.mark.parametrize(("pem", "passphrase", "why"), UNLOADABLE)
def test_each_way_in_which_a_key_is_wrong_has_its_message(
    pem: bytes, passphrase: bytes | None, why: str
) -> None:
    with pytest.raises(MalformedCredential) as caught:
        load_private_key(pem, passphrase=passphrase)
    assert caught.value.detail == why


def test_a_key_is_rendered_as_unencrypted_pkcs_8_and_read_again() -> None:
    pem = render_private_key(rsa_key())
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert load_private_key(pem).private_numbers() == rsa_key().private_numbers()


def test_the_public_key_of_a_csr_is_the_one_that_signed_it() -> None:
    assert load_public_key(make_csr(rsa_key(1), name())) == rsa_key(1).public_key()


def test_a_csr_for_a_key_of_another_kind_is_refused() -> None:
    csr = x509.CertificateSigningRequestBuilder().subject_name(name()).sign(ec_key(), hashes.SHA256())
    with pytest.raises(MalformedCredential, match="not for an RSA key"):
        load_public_key(csr.public_bytes(serialization.Encoding.PEM))


# --- keys of our own store


@pytest.mark.parametrize("traditional", [False, True])
def test_the_leafs_own_key_is_good(traditional: bool) -> None:
    leaf = CA.issue(key=rsa_key(1).public_key())
    check_key(key_pem(rsa_key(1), traditional=traditional), leaf)


def test_the_key_of_another_certificate_is_a_mismatch() -> None:
    with pytest.raises(KeyMismatch, match="for another key"):
        check_key(key_pem(rsa_key(1)), CA.issue(key=rsa_key(2).public_key()))


@pytest.mark.parametrize("part", ["p", "q", "d", "dmp1", "dmq1", "iqmp"])
@pytest.mark.parametrize("bit", [0, 1, 500, 1000])
def test_a_key_with_one_flipped_bit_is_damaged_though_its_public_part_fits(part: str, bit: int) -> None:
    leaf = CA.issue(key=rsa_key().public_key())
    with pytest.raises(MalformedCredential) as caught:
        check_key(damaged(part, bit=bit), leaf)
    assert caught.value.detail == "the private key is damaged"


@pytest.mark.parametrize("part", ["p", "q", "d", "dmp1", "dmq1", "iqmp"])
@pytest.mark.parametrize("value", [0, 1, 2])
def test_a_part_of_a_key_that_is_next_to_nothing_is_damage_and_no_bug(part: str, value: int) -> None:
    with pytest.raises(MalformedCredential):
        check_key(pkcs1(rsa_key().private_numbers(), **{part: value}), CA.issue())


def test_another_private_key_behind_our_public_one_is_damage() -> None:
    ours, other = rsa_key().private_numbers(), rsa_key(1).private_numbers()
    with pytest.raises(MalformedCredential, match="is damaged"):
        check_key(pkcs1(other, n=ours.public_numbers.n), CA.issue())


@pytest.mark.parametrize("prime", ["p", "q"])
def test_an_exponent_that_is_right_for_one_prime_only_is_damage(prime: str) -> None:
    numbers = rsa_key().private_numbers()
    d = numbers.d + getattr(numbers, prime) - 1
    parts = {"d": d, "dmp1": d % (numbers.p - 1), "dmq1": d % (numbers.q - 1)}
    with pytest.raises(MalformedCredential, match="is damaged"):
        check_key(pkcs1(numbers, **parts), CA.issue())


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "cannot be parsed"),
        (CA.pem, "cannot be parsed"),
        (key_pem(rsa_key())[:-40], "cannot be parsed"),
        (key_pem(rsa_key(), passphrase=PASSPHRASE), "cannot be parsed"),
        (key_pem(ec_key()), "is not an RSA key"),
    ],
    ids=["empty", "certificate", "cut off", "encrypted", "EC"],
)
def test_a_file_that_is_not_our_key_is_refused(pem: bytes, why: str) -> None:
    with pytest.raises(MalformedCredential, match=why):
        check_key(pem, CA.issue())


def test_a_leaf_for_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(MalformedCredential, match="is not an RSA key"):
        check_key(key_pem(ec_key()), CA.issue(key=ec_key().public_key()))
    with pytest.raises(MalformedCredential, match="is not an RSA key"):
        check_key(key_pem(rsa_key()), CA.issue(key=ec_key().public_key()))
