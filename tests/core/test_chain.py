"""Nothing that the Connector signed is used before it holds together, and each fault has its own error."""

import ssl
import subprocess
import time
from base64 import encodebytes
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_sidecar.core.answer import SignedAnswer
from compass_sidecar.core.certificate import issued_by
from compass_sidecar.core.chain import EARLY_TOLERANCE, Expected, anchored, find_path, verify
from compass_sidecar.core.credential import MAX_CERTIFICATES, Chain, Found, render
from compass_sidecar.errors import (
    CredentialError,
    CredentialExpired,
    CredentialNotYetValid,
    KeyMismatch,
    MalformedCredential,
    SubjectMismatch,
    UntrustedChain,
)
from tests.support.authority import CLIENT_ID, NOW, Authority, PublicKey, ec_key, key_pem, name, rsa_key
from tests.support.odd_certificates import (
    Edit,
    critical_false_written_out,
    replaced,
    signed_again,
    version_1,
)

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
CA = Authority.create("Compass CA", key=ec_key(1))
BELOW = CA.intermediate(key=ec_key(2))
STRANGER = Authority.create("Another CA", key=ec_key(3))
IMPOSTOR = Authority.create("Compass CA", key=ec_key(4))  # announces a CA that it is not


@cache
def leaf() -> x509.Certificate:
    return CA.issue(key=rsa_key().public_key())


@cache
def leaf_below() -> x509.Certificate:
    return BELOW.issue(key=rsa_key().public_key())


def answer(
    leaf: x509.Certificate,
    *authorities: x509.Certificate,
    chain: Sequence[x509.Certificate] | None = None,
    ca: Sequence[x509.Certificate] | None = None,
) -> SignedAnswer:
    """As the Connector gives it: the chain is exactly the leaf and its authorities."""
    return SignedAnswer(
        leaf_pem=render([leaf]),
        chain_pem=render([leaf, *authorities] if chain is None else chain),
        ca_pem=render(authorities if ca is None else ca),
        date=None,
    )


def good() -> SignedAnswer:
    return answer(leaf(), CA.certificate)


def expected(*, at: datetime = NOW) -> Expected:
    return Expected(public_key=rsa_key().public_key(), subject=name(), at=at)


def refusal(signed: SignedAnswer, *, at: datetime = NOW) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        verify(signed, expected(at=at))
    return caught.value


def usage(**wanted: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    names += ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**(dict.fromkeys(names, False) | wanted))


def bare(
    issuer: Authority,
    *extensions: x509.ExtensionType,
    key: PublicKey | None = None,
    subject: x509.Name | None = None,
) -> x509.Certificate:
    """A certificate with these extensions and no other."""
    builder = x509.CertificateBuilder(
        issuer_name=issuer.certificate.subject,
        subject_name=name() if subject is None else subject,
        public_key=key or rsa_key().public_key(),
        serial_number=2,
        not_valid_before=NOW,
        not_valid_after=NOW + DAY,
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer.key, hashes.SHA256())


def under(*extensions: x509.ExtensionType) -> SignedAnswer:
    """A leaf below an issuer with these extensions, which was itself issued by the CA."""
    certificate = bare(CA, *extensions, key=ec_key(9).public_key(), subject=name("issuer"))
    issuer = Authority(certificate, ec_key(9), CA)
    return answer(issuer.issue(), *issuer.chain)


# --- what is good


def test_a_chain_as_the_contract_says_is_served_byte_for_byte() -> None:
    chain = verify(good(), expected())
    assert chain.certificates == (leaf(), CA.certificate)
    assert chain.pem == good().chain_pem
    assert chain.ca_pem == good().ca_pem


def test_a_chain_of_three_is_served_byte_for_byte() -> None:
    came = answer(leaf_below(), *BELOW.chain)
    chain = verify(came, expected())
    assert chain.certificates == (leaf_below(), BELOW.certificate, CA.certificate)
    assert (chain.pem, chain.ca_pem) == (came.chain_pem, came.ca_pem)


def test_an_authority_with_an_rsa_key_is_verified_like_any_other() -> None:
    authority = Authority.create(key=rsa_key(3))
    chain = verify(answer(authority.issue(), authority.certificate), expected())
    assert chain.authorities == authority.chain


@pytest.mark.parametrize(
    "spaced",
    [
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: b"\n" + pem + b"\n \n",
        lambda pem: pem.rstrip(),
        lambda pem: pem.replace(b"-----\n-----", b"-----\n\n-----"),
    ],
    ids=["CRLF", "blank lines around", "no newline at the end", "blank line between"],
)
def test_white_space_around_lines_is_kept_as_it_came(spaced: Callable[[bytes], bytes]) -> None:
    came = replace(good(), chain_pem=spaced(good().chain_pem), ca_pem=spaced(good().ca_pem))
    chain = verify(came, expected())
    assert (chain.pem, chain.ca_pem) == (came.chain_pem, came.ca_pem)


def crowded(pem: bytes) -> Iterable[tuple[str, bytes]]:
    first = pem.index(b"\n") + 1
    yield "text before", b"subject=CN = x\n" + pem
    yield "text between", pem.replace(b"-----\n-----", b"-----\nissuer\n-----", 1)
    yield "text after", pem + b"The end\n"
    yield "NUL after", pem + b"\0"
    yield "a block never ended", pem + b"-----BEGIN PRIVATE KEY-----\nAAAA\n"
    yield "a block before that never ended", b"-----BEGIN CERTIFICATE-----\nAAAA\n" + pem
    yield "PEM headers", pem[:first] + b"Proc-Type: hello\n\n" + pem[first:]
    yield "repeated", pem + pem
    yield "other columns", pem[: first + 32] + b"\n" + pem[first + 32 :]


@pytest.mark.parametrize("case", [case for case, _ in crowded(render([CA.certificate, CA.certificate]))])
def test_a_chain_with_anything_else_around_it_is_rendered_anew(case: str) -> None:
    came = answer(leaf_below(), *BELOW.chain)
    crowd = dict(crowded(came.chain_pem))[case]
    chain = verify(replace(came, chain_pem=crowd, ca_pem=dict(crowded(came.ca_pem))[case]), expected())
    assert (chain.pem, chain.ca_pem) == (came.chain_pem, came.ca_pem)
    assert chain.pem != crowd


@pytest.mark.parametrize("places", list(permutations(range(3)))[1:], ids=str)
def test_a_shuffled_chain_is_put_in_issuing_order(places: tuple[int, ...]) -> None:
    ordered = (leaf_below(), *BELOW.chain)
    came = answer(leaf_below(), *BELOW.chain, chain=[ordered[place] for place in places])
    chain = verify(came, expected())
    assert chain.certificates == ordered
    assert chain.pem == render(ordered)


def test_a_shuffled_ca_certificate_is_put_in_issuing_order() -> None:
    came = answer(leaf_below(), *BELOW.chain, ca=BELOW.chain[::-1])
    chain = verify(came, expected())
    assert (chain.pem, chain.ca_pem) == (came.chain_pem, render(BELOW.chain))


def test_an_authority_that_is_in_ca_certificate_only_completes_the_chain() -> None:
    chain = verify(answer(leaf(), CA.certificate, chain=[leaf()]), expected())
    assert chain.certificates == (leaf(), CA.certificate)
    assert chain.pem == render([leaf(), CA.certificate])


def test_an_authority_that_is_in_the_chain_only_is_part_of_ca_too() -> None:
    chain = verify(answer(leaf_below(), *BELOW.chain, ca=[BELOW.certificate]), expected())
    assert chain.ca_pem == render(BELOW.chain)


def test_a_chain_need_not_reach_its_root() -> None:
    assert verify(answer(leaf_below(), BELOW.certificate), expected()).authorities == (BELOW.certificate,)


def test_openssl_verifies_what_is_served(tmp_path: Path) -> None:
    chain = verify(answer(leaf_below(), *BELOW.chain, chain=[*BELOW.chain, leaf_below()]), expected())
    tls, ca = tmp_path / "tls.crt", tmp_path / "ca.crt"
    tls.write_bytes(chain.pem)
    ca.write_bytes(chain.ca_pem or b"")
    command = ["openssl", "verify", "-CAfile", ca, "-untrusted", tls, tls]
    assert subprocess.run(command, capture_output=True, check=True).stdout == f"{tls}: OK\n".encode()


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (x509.BasicConstraints(ca=False, path_length=None),),
        (usage(digital_signature=True),),
        (usage(digital_signature=True, key_encipherment=True),),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),),
    ],
    ids=["none", "no CA", "signs", "signs and more", "both sides", "any purpose"],
)
def test_a_leaf_that_is_not_barred_from_client_authentication_is_good(
    extensions: tuple[x509.ExtensionType, ...],
) -> None:
    only = bare(CA, *extensions)
    assert verify(answer(only, CA.certificate), expected()).leaf == only


def test_the_subject_may_come_back_in_another_order() -> None:
    shuffled = CA.issue(subject=x509.Name(reversed(list(name()))))
    assert verify(answer(shuffled, CA.certificate), expected()).leaf == shuffled


@pytest.mark.parametrize("path_length", [1, 2, None])
def test_a_path_length_that_suffices_is_good(path_length: int | None) -> None:
    below = Authority.create(path_length=path_length).intermediate(path_length=0)
    assert verify(answer(below.issue(), *below.chain), expected()).authorities == below.chain


def test_the_issuer_decides_what_it_may_sign_and_a_silent_one_may() -> None:
    chain = verify(under(x509.BasicConstraints(ca=True, path_length=None)), expected())
    assert len(chain.certificates) == 3


# --- what is wrong: the leaf


def test_a_leaf_for_another_key_is_refused() -> None:
    error = refusal(answer(CA.issue(key=rsa_key(1).public_key()), CA.certificate))
    assert isinstance(error, KeyMismatch)
    assert error.detail == "the signed certificate is for another key than ours"


def test_a_leaf_for_a_key_of_another_kind_is_refused() -> None:
    assert isinstance(refusal(answer(CA.issue(key=ec_key().public_key()), CA.certificate)), KeyMismatch)


@pytest.mark.parametrize(
    "subject",
    [
        name("another"),
        name(O="Other"),
        x509.Name(list(name())[:-1]),
        x509.Name([*name(), *name()]),
        x509.Name([]),
    ],
    ids=["other CN", "other O", "no CN", "everything twice", "empty"],
)
def test_a_leaf_for_another_subject_is_refused_naming_both(subject: x509.Name) -> None:
    error = refusal(answer(bare(CA, subject=subject), CA.certificate))
    assert isinstance(error, SubjectMismatch)
    assert name().rfc4514_string() in error.detail
    assert subject.rfc4514_string() in error.detail


@pytest.mark.parametrize(
    ("extension", "why"),
    [
        (x509.BasicConstraints(ca=True, path_length=None), "is a CA certificate"),
        (usage(key_encipherment=True), "lacks digitalSignature"),
        (usage(), "lacks digitalSignature"),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), "lacks clientAuth"),
        (x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3.4")]), "lacks clientAuth"),
    ],
    ids=["CA", "only encipherment", "nothing", "server only", "unknown purpose"],
)
def test_a_leaf_that_is_not_for_client_authentication_is_refused(
    extension: x509.ExtensionType, why: str
) -> None:
    error = refusal(answer(bare(CA, extension), CA.certificate))
    assert isinstance(error, UntrustedChain)
    assert why in error.detail


# --- what is wrong: the dates


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("after_end", "kind"), [(-1, None), (0, CredentialExpired), (1, CredentialExpired)])
def test_every_certificate_ends_at_its_last_second(
    depth: int, after_end: int, kind: type[CredentialError] | None
) -> None:
    end = NOW + DAY
    authority = Authority.create(not_before=NOW - DAY, lifetime=2 * DAY if depth == 2 else 9 * DAY)
    issued = authority.issue(lifetime=DAY if depth == 1 else 8 * DAY)
    came, at = answer(issued, authority.certificate), end + after_end * SECOND
    if kind is None:
        assert verify(came, expected(at=at)).effective_not_after == end
    else:
        error = refusal(came, at=at)
        assert isinstance(error, kind)
        assert error.detail == f"certificate {depth} of the chain expired at {end:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("early", [timedelta(0), SECOND, EARLY_TOLERANCE])
def test_a_certificate_that_is_a_little_early_is_left_to_the_probe(depth: int, early: timedelta) -> None:
    start = NOW + early
    authority = Authority.create(not_before=start if depth == 2 else NOW - DAY)
    issued = authority.issue(not_before=start if depth == 1 else NOW)
    assert verify(answer(issued, authority.certificate), expected()).leaf == issued


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("early", [EARLY_TOLERANCE + SECOND, DAY])
def test_a_certificate_that_is_earlier_than_that_is_refused(depth: int, early: timedelta) -> None:
    start = NOW + early
    authority = Authority.create(not_before=start if depth == 2 else NOW - DAY)
    error = refusal(answer(authority.issue(not_before=start), authority.certificate))
    assert isinstance(error, CredentialNotYetValid)
    assert error.detail == f"certificate 1 of the chain is not valid before {start:%Y-%m-%dT%H:%M:%SZ}"


def test_a_ca_that_begins_later_than_its_leaf_is_named() -> None:
    authority = Authority.create(not_before=NOW + DAY)
    error = refusal(answer(authority.issue(), authority.certificate))
    assert isinstance(error, CredentialNotYetValid)
    assert error.detail.startswith("certificate 2 ")


# --- what is wrong: the links


@pytest.mark.parametrize(
    "came",
    [
        answer(IMPOSTOR.issue(), CA.certificate),
        answer(STRANGER.issue(), CA.certificate),
        answer(STRANGER.issue(), CA.certificate, chain=[STRANGER.issue()]),
        answer(BELOW.issue(), CA.certificate),
    ],
    ids=[
        "an impostor's leaf announcing the known CA",
        "a stranger's leaf announcing the known CA",
        "a stranger's leaf alone, the known CA beside",
        "the intermediate is missing",
    ],
)
def test_a_chain_with_a_broken_link_is_refused(came: SignedAnswer) -> None:
    error = refusal(came)
    assert isinstance(error, UntrustedChain)
    assert "not part" in error.detail or "signed by none of the other" in error.detail


@pytest.mark.parametrize(
    "came",
    [
        answer(leaf(), CA.certificate, STRANGER.certificate),
        answer(leaf(), CA.certificate, IMPOSTOR.certificate),
        answer(leaf(), IMPOSTOR.certificate, CA.certificate),
        answer(leaf(), CA.certificate, chain=[leaf(), CA.issue(), CA.certificate]),
        answer(leaf(), CA.certificate, ca=[IMPOSTOR.certificate]),
    ],
    ids=["another CA", "a false CA", "a false CA first", "another leaf", "a false caCertificate"],
)
def test_what_is_not_on_the_path_is_left_out_and_named(came: SignedAnswer) -> None:
    chain = verify(came, expected())
    assert chain.certificates == (leaf(), CA.certificate)
    assert (chain.pem, chain.ca_pem) == (render([leaf(), CA.certificate]), CA.pem)
    assert chain.left_out
    assert chain.left_out.startswith("1 certificate is not needed")


def test_a_client_certificate_that_is_an_intermediate_is_for_another_key() -> None:
    chain = [leaf_below(), BELOW.certificate, CA.certificate]
    assert isinstance(refusal(answer(BELOW.certificate, CA.certificate, chain=chain)), KeyMismatch)


def test_a_leaf_that_is_no_part_of_the_chain_is_refused() -> None:
    error = refusal(answer(leaf(), CA.certificate, chain=[CA.issue(serial=3), CA.certificate]))
    assert isinstance(error, UntrustedChain)
    assert error.detail == "clientCertificate is not part of certificateChain"


def test_a_chain_without_a_ca_certificate_is_refused() -> None:
    error = refusal(answer(leaf(), ca=[leaf()]))
    assert isinstance(error, UntrustedChain)
    assert error.detail == "the chain has no CA certificate"


def test_a_leaf_that_signed_itself_is_refused() -> None:
    own = Authority.create(CLIENT_ID, key=rsa_key())
    error = refusal(answer(own.certificate, ca=[own.certificate]))
    assert isinstance(error, UntrustedChain)


@pytest.mark.parametrize(
    ("extensions", "why"),
    [
        ((), "certificate 2 of the chain is not a CA certificate"),
        ((x509.BasicConstraints(ca=False, path_length=None),), "certificate 2 of the chain is not a CA"),
        (
            (x509.BasicConstraints(ca=True, path_length=None), usage(digital_signature=True)),
            "certificate 2 of the chain must not sign certificates",
        ),
    ],
    ids=["nothing said", "CA flag false", "key usage"],
)
def test_an_issuer_that_may_not_issue_is_refused(
    extensions: tuple[x509.ExtensionType, ...], why: str
) -> None:
    error = refusal(under(*extensions))
    assert isinstance(error, UntrustedChain)
    assert why in error.detail


@pytest.mark.parametrize(("path_length", "below"), [(0, 1), (0, 2), (1, 2)])
def test_a_chain_longer_than_its_ca_allows_is_refused(path_length: int, below: int) -> None:
    issuer = Authority.create(path_length=path_length)
    for number in range(below):
        issuer = issuer.intermediate(f"CA {number}")
    error = refusal(answer(issuer.issue(), *issuer.chain))
    assert isinstance(error, UntrustedChain)
    assert error.detail == f"certificate {below + 2} of the chain allows no chain this long"


# --- what is wrong: the form

FIELDS = {"leaf_pem": "clientCertificate", "chain_pem": "certificateChain", "ca_pem": "caCertificate"}


@pytest.mark.parametrize(("field", "named"), FIELDS.items())
@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "is empty"),
        (b"not PEM", "is not PEM"),
        (b"-----BEGIN CERTIFICATE-----\nTm8gZW5k\n", "has a PEM block CERTIFICATE without its end"),
        (
            b"-----BEGIN CERTIFICATE-----\nQQ==\n-----END X509 CRL-----\n",
            "has a PEM block CERTIFICATE without",
        ),
        (b"-----BEGIN X509 CRL-----\nQUJD\n-----END X509 CRL-----\n", "has a PEM block X509 CRL"),
        (key_pem(ec_key()), "has a PEM block PRIVATE KEY; only CERTIFICATE is allowed"),
        (render([CA.certificate]) + key_pem(ec_key()), "has a PEM block PRIVATE KEY"),
        (
            render([CA.certificate]).replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
            "has a PEM block TRUSTED CERTIFICATE",
        ),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_a_field_that_is_not_pem_of_certificates_is_refused_by_name(
    field: str, named: str, pem: bytes, why: str
) -> None:
    error = refusal(replace(good(), **{field: pem}))
    assert isinstance(error, MalformedCredential)
    assert error.detail.startswith(f"{named} {why}")


@pytest.mark.parametrize(("field", "named"), [*FIELDS.items()][:2])
@pytest.mark.parametrize(
    ("body", "why"), [(b"", "cannot be parsed"), (b"!\n", "is not base64"), (b"QUJD\n", "cannot be parsed")]
)
def test_a_certificate_that_is_needed_and_cannot_be_read_is_refused_with_the_reason(
    field: str, named: str, body: bytes, why: str
) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n" % body
    error = refusal(replace(good(), **{field: pem}))
    assert isinstance(error, MalformedCredential)
    assert error.detail.startswith(f"{named} certificate 1 {why}")


def test_a_certificate_that_is_not_needed_may_be_unreadable() -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
    chain = verify(replace(good(), ca_pem=pem), expected())
    assert (chain.pem, chain.ca_pem) == (good().chain_pem, CA.pem)
    assert "caCertificate certificate 1 cannot be parsed" in (chain.left_out or "")


@pytest.mark.parametrize(("field", "named"), FIELDS.items())
def test_too_many_certificates_are_refused_unread(field: str, named: str) -> None:
    crowd = render([CA.certificate]) * (MAX_CERTIFICATES + 1)
    error = refusal(replace(good(), **{field: crowd}))
    assert isinstance(error, MalformedCredential)
    assert error.detail == f"{named} has 501 certificates, more than 500"


def test_a_client_certificate_of_two_is_refused() -> None:
    error = refusal(replace(good(), leaf_pem=good().chain_pem))
    assert isinstance(error, MalformedCredential)
    assert error.detail == "clientCertificate has 2 certificates, not one"


@pytest.mark.filterwarnings("ignore")  # the library's, on odd serial numbers and names
@settings(deadline=None)
@given(st.data())
def test_a_leaf_with_one_changed_byte_of_what_was_signed_is_refused(data: st.DataObject) -> None:
    der, signed = bytearray(leaf().public_bytes(serialization.Encoding.DER)), leaf().tbs_certificate_bytes
    place = der.index(signed) + data.draw(st.integers(0, len(signed) - 1))
    der[place] ^= data.draw(st.integers(1, 255))
    pem = b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n" % encodebytes(der)
    refusal(replace(good(), leaf_pem=pem, chain_pem=pem + CA.pem))


# --- paths

ISSUING = Authority.create("Example CA", key=ec_key(5))
OLD = Authority.create("Old Root", key=ec_key(6))
PAST = timedelta(days=-400)


def certified(authority: Authority, issuer: Authority, **dates: Any) -> x509.Certificate:
    """Another certificate for the same CA: cross-signed, or renewed."""
    name_of = authority.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return issuer.intermediate(str(name_of), key=authority.key, **dates).certificate


BELOW_ISSUING = ISSUING.intermediate("Issuing CA", key=ec_key(7))
EXPIRED = {"not_before": NOW + PAST, "lifetime": -PAST - DAY}
BAG = {
    "issuing": BELOW_ISSUING.certificate,
    "issuing, renewed": certified(BELOW_ISSUING, ISSUING, not_before=NOW),
    "issuing, expired": certified(BELOW_ISSUING, ISSUING, **EXPIRED),
    "root": ISSUING.certificate,
    "root, cross-signed": certified(ISSUING, OLD),
    "root, cross-signed, expired": certified(ISSUING, OLD, **EXPIRED),
    "old root": OLD.certificate,
    "old root, expired": Authority.create("Old Root", key=ec_key(6), **EXPIRED).certificate,
    "older leaf": BELOW_ISSUING.issue(key=rsa_key().public_key(), not_before=NOW - DAY),
    "unrelated": STRANGER.certificate,
    "same name, another key": Authority.create("Example CA", key=ec_key(8)).certificate,
}
BAG_LEAF = BELOW_ISSUING.issue(key=rsa_key().public_key())


def openssl_verifies(
    leaf: x509.Certificate, anchor: x509.Certificate, others: Sequence[x509.Certificate]
) -> bool:
    with TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("leaf", "anchor", "others")]
        for file, certificates in zip(files, ([leaf], [anchor], others), strict=True):
            file.write_bytes(render(certificates) or b"none")
        command = ["openssl", "verify", "-partial_chain", "-purpose", "sslclient", "-no-CApath"]
        command += [
            "-CAfile",
            str(files[1]),
            *(["-untrusted", str(files[2])] if others else []),
            str(files[0]),
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(sorted(BAG)), unique=True))
def test_a_path_is_found_where_openssl_finds_one_whatever_the_order(given: list[str]) -> None:
    others = [BAG[each] for each in given]
    roots = [each for each in others if openssl_verifies(BAG_LEAF, each, others)]
    try:
        path = find_path(BAG_LEAF, Found(tuple(others)), NOW)
    except UntrustedChain:
        path = (BAG_LEAF,)
    if all(each.not_valid_after_utc > NOW for each in path) and len(path) > 1:
        assert openssl_verifies(BAG_LEAF, path[-1], path[1:-1])
        assert path[-1] in roots
    else:
        assert not roots
    assert not set(path[1:]) & {BAG["unrelated"], BAG["older leaf"]}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["issuing", "root, cross-signed", "root"], ["issuing", "root"]),
        (["issuing", "root", "root, cross-signed"], ["issuing", "root"]),
        (["root, cross-signed", "old root", "issuing"], ["issuing", "root, cross-signed", "old root"]),
        (["issuing", "root, cross-signed", "old root, expired"], ["issuing", "root, cross-signed"]),
        (["issuing", "root, cross-signed, expired", "root"], ["issuing", "root"]),
        (["issuing, expired", "issuing, renewed", "root"], ["issuing, renewed", "root"]),
        (["issuing", "unrelated", "same name, another key", "older leaf"], ["issuing"]),
        (["root", "issuing, expired"], ["issuing, expired", "root"]),
    ],
)
def test_of_several_paths_the_best_one_is_taken(given: list[str], wanted: list[str]) -> None:
    path = find_path(BAG_LEAF, Found(tuple(BAG[each] for each in given)), NOW)
    assert path == (BAG_LEAF, *(BAG[each] for each in wanted))


def test_of_two_paths_the_one_that_lasts_longer_is_taken() -> None:
    soon = certified(ISSUING, OLD, lifetime=2 * DAY)
    leaf = ISSUING.issue(key=rsa_key().public_key())
    for others in ((soon, OLD.certificate, ISSUING.certificate), (ISSUING.certificate, soon)):
        assert find_path(leaf, Found(others), NOW) == (leaf, ISSUING.certificate)


def test_a_ca_that_openssl_does_not_load_is_taken_only_where_it_must_be() -> None:
    weak_root = Authority.create("Weak Root", key=rsa_key(5, bits=1024))
    weak = certified(ISSUING, weak_root, lifetime=timedelta(days=4000))
    leaf = ISSUING.issue(key=rsa_key().public_key())
    for others in permutations((weak, weak_root.certificate, ISSUING.certificate)):
        assert find_path(leaf, Found(others), NOW)[1:] == (ISSUING.certificate,)
    path = find_path(leaf, Found((weak, weak_root.certificate)), NOW)
    assert path == (leaf, weak, weak_root.certificate)


def test_cas_that_certify_each_other_are_searched_in_no_time() -> None:
    keys = [ec_key(20 + number) for number in range(8)]
    authorities = [Authority.create(f"CA {number}", key=key) for number, key in enumerate(keys)]
    crossed = [certified(one, other) for one in authorities for other in authorities if one != other]
    leaf = authorities[0].issue(key=rsa_key().public_key())
    began = time.process_time()
    path = find_path(leaf, Found(tuple(crossed)), NOW)
    assert time.process_time() - began < 20
    assert len(path) > 1


def test_dates_of_certificates_beside_the_path_do_not_count() -> None:
    crowd = [BAG["issuing"], BAG["root"], BAG["root, cross-signed, expired"], BAG["old root, expired"]]
    chain = verify(answer(BAG_LEAF, *crowd), expected())
    assert chain.certificates == (BAG_LEAF, BAG["issuing"], BAG["root"])
    assert chain.effective_not_after == BAG_LEAF.not_valid_after_utc
    assert chain.left_out
    assert "2 certificates are not needed for the chain and left out" in chain.left_out
    assert "CN=Old Root,OU=OrgUnit" in chain.left_out


@pytest.mark.parametrize("edit", [version_1, replaced(b"Example", b"Ex\xffmple"), critical_false_written_out])
def test_an_answer_from_an_odd_ca_is_verified_or_refused_with_the_reason(edit: Edit) -> None:
    came = answer(ISSUING.issue(), ISSUING.certificate)
    odd = encoded(signed_again(ISSUING.certificate, ISSUING, edit))
    leaf_pem = came.leaf_pem
    if edit not in (version_1, critical_false_written_out):
        leaf_pem = encoded(signed_again(ISSUING.issue(), ISSUING, edit))
    came = replace(came, leaf_pem=leaf_pem, chain_pem=leaf_pem + odd, ca_pem=odd)
    if edit is critical_false_written_out:
        error = refusal(came)
        assert isinstance(error, MalformedCredential)
        assert "certificate 2 cannot be parsed: error parsing asn1 value" in error.detail
    else:
        assert verify(came, expected()).pem == came.chain_pem


def encoded(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


# --- anchored


def test_a_path_passes_over_what_comes_twice() -> None:
    crowd = [CA.certificate, leaf_below(), BELOW.certificate, CA.certificate, leaf_below()]
    assert find_path(leaf_below(), Found(tuple(crowd)), NOW) == (leaf_below(), *BELOW.chain)


def test_a_name_alone_or_a_key_alone_does_not_make_an_issuer() -> None:
    renamed = Authority.create("Compass CA, renamed", key=CA.key)
    assert issued_by(leaf(), CA.certificate)
    assert not issued_by(leaf(), IMPOSTOR.certificate)
    assert not issued_by(leaf(), renamed.certificate)


def test_a_chain_from_the_ca_that_we_hold_is_anchored() -> None:
    assert anchored(Chain.of([leaf(), CA.certificate]), CA.chain)


def test_a_chain_from_a_renewed_ca_with_the_same_key_is_anchored() -> None:
    renewed = Authority.create("Compass CA", key=CA.key, not_before=NOW)
    assert renewed.certificate != CA.certificate
    assert anchored(Chain.of([renewed.issue(), renewed.certificate]), CA.chain)


@pytest.mark.parametrize("held", [BELOW.chain, CA.chain, BELOW.chain[:1]], ids=["both", "root", "below"])
def test_a_chain_below_any_ca_that_we_hold_is_anchored(held: tuple[x509.Certificate, ...]) -> None:
    assert anchored(Chain.of([leaf_below(), *BELOW.chain]), held)


def test_a_chain_from_a_new_intermediate_below_a_root_that_we_hold_is_anchored() -> None:
    another = CA.intermediate("Compass Intermediate CA 2")
    assert anchored(Chain.of([another.issue(), another.certificate]), BELOW.chain)


@pytest.mark.parametrize("authority", [STRANGER, IMPOSTOR, STRANGER.intermediate("Compass CA")])
def test_a_chain_from_a_new_ca_is_not_anchored_whatever_its_name(authority: Authority) -> None:
    chain = verify(answer(authority.issue(), *authority.chain), expected())
    assert not anchored(chain, CA.chain)


def test_without_anchors_the_first_ca_is_taken_as_it_is() -> None:
    assert anchored(Chain.of([STRANGER.issue(), STRANGER.certificate]), ())
