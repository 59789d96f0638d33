"""The subject is read as the Connector writes it, and the CSR asks for exactly that."""

import re
import subprocess
from itertools import combinations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compass_sidecar.core.csr import KEY_SIZES, attributes, make_csr, make_key, parse_subject
from compass_sidecar.errors import SubjectMismatch
from tests.support.authority import CLIENT_ID, Authority, name, rsa_key

OIDS = {
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "C": NameOID.COUNTRY_NAME,
    "CN": NameOID.COMMON_NAME,
}
SUBJECT = f"O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN={CLIENT_ID}"
PARTS = SUBJECT.split(",")
ODD_LENGTH = "Attribute's length must be"
any_country = pytest.mark.filterwarnings(f"ignore:{ODD_LENGTH}:UserWarning")

characters = st.characters(exclude_categories=["Cc", "Cs"])
values = st.text(characters, min_size=1, max_size=60).filter(lambda text: text == text.strip())


def pairs_of(subject: x509.Name) -> list[tuple[str, str | bytes]]:
    short = {oid: key for key, oid in OIDS.items()}
    return [(short[attribute.oid], attribute.value) for attribute in subject]


def rdn(*pairs: tuple[str, str], string_type: _ASN1Type | None = None) -> x509.RelativeDistinguishedName:
    return x509.RelativeDistinguishedName(
        x509.NameAttribute(OIDS[key], value, string_type) for key, value in pairs
    )


def wanted_pairs(separator: str) -> st.SearchStrategy[list[tuple[str, str]]]:
    """Attributes with a CN, in some order, whose values do not look like a separator and a key."""
    ambiguous = re.compile(rf"{separator}\s*(?:O|OU|L|ST|C|CN)=")
    plain = values.filter(lambda value: not ambiguous.search(value))
    others = st.sets(st.sampled_from(["O", "OU", "L", "ST", "C"]))
    keys = others.flatmap(lambda chosen: st.permutations([*sorted(chosen), "CN"]))
    return keys.flatmap(lambda chosen: st.tuples(*(plain.map(lambda v, k=k: (k, v)) for k in chosen))).map(
        list
    )


# --- parse_subject


@given(st.permutations(PARTS), st.sampled_from([",", ", ", ",  "]))
def test_the_connectors_subject_is_read_in_any_order(parts: list[str], separator: str) -> None:
    assert attributes(parse_subject(separator.join(parts))) == attributes(name())


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (SUBJECT, [tuple(part.split("=")) for part in PARTS]),
        ("CN=x", [("CN", "x")]),
        ("O=Rock, Paper & Co., Ltd,CN=x", [("O", "Rock, Paper & Co., Ltd"), ("CN", "x")]),
        ("O=a=b,OU==,CN=x=,", [("O", "a=b"), ("OU", "="), ("CN", "x=,")]),
        ("O=a,B=c,CN=x", [("O", "a,B=c"), ("CN", "x")]),
        ("O=STATE,ST=O,CN=CN", [("O", "STATE"), ("ST", "O"), ("CN", "CN")]),
        ("OU=one,OU=two,OU=one,CN=x", [("OU", "one"), ("OU", "two"), ("OU", "one"), ("CN", "x")]),
        (r"O=a\,b,CN=x", [("O", r"a\,b"), ("CN", "x")]),
        ('O="a",CN=x', [("O", '"a"'), ("CN", "x")]),
        ("O=Grüße \N{SNOWMAN},CN=x", [("O", "Grüße \N{SNOWMAN}"), ("CN", "x")]),
        ("  O=a , CN=x  ", [("O", "a "), ("CN", "x")]),
        ("/O=a/CN=x", [("O", "a"), ("CN", "x")]),
        ("/O=a/b, CN=c/CN=x", [("O", "a/b, CN=c"), ("CN", "x")]),
        ("O=a/CN=b,CN=x", [("O", "a/CN=b"), ("CN", "x")]),
        ("/OU=one/OU=two//CN=x", [("OU", "one"), ("OU", "two/"), ("CN", "x")]),
    ],
)
def test_values_are_taken_as_they_are_up_to_the_next_known_key(
    text: str, pairs: list[tuple[str, str]]
) -> None:
    assert pairs_of(parse_subject(text)) == pairs


def test_each_attribute_is_an_rdn_of_its_own() -> None:
    assert [len(each) for each in parse_subject("OU=a,OU=b,CN=x").rdns] == [1, 1, 1]


def test_the_slash_form_says_the_same_as_the_comma_form() -> None:
    assert parse_subject("/" + "/".join(PARTS)) == parse_subject(SUBJECT)


@pytest.mark.parametrize("key", ["O", "L", "ST", "C", "CN"])
@pytest.mark.parametrize("other", ["x", "y"])
def test_a_key_other_than_ou_that_comes_twice_is_refused(key: str, other: str) -> None:
    with pytest.raises(SubjectMismatch, match=rf"has {key} more than once"):
        parse_subject(f"{key}=x,OU=between,{key}={other},CN=id")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not understood at ''"),
        ("   ", "not understood at ''"),
        ("/", "not understood at '/'"),
        ("//", "not understood at '//'"),
        ("nonsense", "not understood at 'nonsense'"),
        ("=x,CN=y", "not understood at '=x'"),
        ("cn=x", "not understood at 'cn=x'"),
        ("CN = x", "not understood at 'CN = x'"),
        ("DC=example,CN=x", "not understood at 'DC=example'"),
        ("emailAddress=a@b,CN=x", "not understood at 'emailAddress=a@b'"),
        (",CN=x", "not understood at ''"),
        ("/emailAddress=a@b/CN=x", "not understood at '/emailAddress=a@b/CN=x'"),
        ("/nonsense/O=a/CN=x", "not understood at '/nonsense/O=a/CN=x'"),
        ("//CN=x", "not understood at '//CN=x'"),
        ("2.5.4.3=x", "not understood at '2.5.4.3=x'"),
        ("x y" * 500, "not understood at '(x y){85}…'$"),
        ("x" * 2048, r"not understood at '\[base64 removed\]'$"),
        ("O=,CN=x", "no value for O"),
        ("O=a,CN=", "no value for CN"),
        ("/O=/CN=x", "no value for O"),
        ("O= ,CN=x", "no value for O"),
        ("O=Org,OU=OrgUnit", "no common name"),
        ("/O=Org", "no common name"),
        ("O=CN=x", "no common name"),
        ("CN=" + "x" * 2046, "too long"),
        ("CN=a\x00b", "control characters"),
        ("CN=a\nb", "control characters"),
        ("CN=x\n", "control characters"),
        ("O=a\x7f,CN=x", "control characters"),
        ("O=a\x9b1m,CN=x", "control characters"),
        ("O=\ud800,CN=x", "control characters"),
    ],
)
def test_what_cannot_be_understood_is_refused_and_never_guessed(text: str, why: str) -> None:
    with pytest.raises(SubjectMismatch, match=why):
        parse_subject(text)


@any_country
@given(wanted_pairs(","))
def test_pairs_joined_with_commas_are_read_back(pairs: list[tuple[str, str]]) -> None:
    assert pairs_of(parse_subject(",".join(f"{key}={value}" for key, value in pairs))) == pairs


@any_country
@given(wanted_pairs("/"))
def test_pairs_joined_with_slashes_are_read_back(pairs: list[tuple[str, str]]) -> None:
    assert pairs_of(parse_subject("".join(f"/{key}={value}" for key, value in pairs))) == pairs


@any_country
@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from(["O=", "CN=", "C=", ",", "/", " ", "é", "a", "\0"])).map("".join))
@example("C=Österreich,CN=x")
@example("C=*,CN=\N{GRINNING FACE}")
def test_every_text_is_refused_or_becomes_a_csr_for_that_subject(text: str) -> None:
    try:
        subject = parse_subject(text)
    except SubjectMismatch:
        return
    csr = x509.load_pem_x509_csr(make_csr(rsa_key(), subject))
    assert attributes(csr.subject) == attributes(subject)


# --- countries, of which the Connector's operators configure any length


def test_a_country_of_another_length_is_asked_for_and_got() -> None:
    with pytest.warns(UserWarning, match=ODD_LENGTH):
        subject = parse_subject("O=Org,C=Germany,CN=x")
    pem = make_csr(rsa_key(), subject)
    with pytest.warns(UserWarning, match=ODD_LENGTH):
        got = Authority.create().sign(pem).subject
    assert attributes(subject) == attributes(got)
    assert ("C", "Germany") in pairs_of(got)


@any_country
def test_a_country_that_is_no_printable_string_is_a_utf8_string() -> None:
    pem = make_csr(rsa_key(), parse_subject("C=Österreich,CN=x"))
    assert run_openssl("req", "-noout", "-subject", "-nameopt", "utf8,sep_comma_plus", stdin=pem) == (
        "subject=C=Österreich,CN=x"
    )


# --- attributes


@pytest.mark.parametrize(
    "got",
    [
        x509.Name(reversed(list(name()))),
        x509.Name([rdn(*pairs_of(name()))]),
        x509.Name([rdn(pair, string_type=_ASN1Type.PrintableString) for pair in pairs_of(name())]),
        x509.Name([rdn(pair, string_type=_ASN1Type.UTF8String) for pair in pairs_of(name())]),
    ],
    ids=["order", "one RDN", "printable strings", "UTF-8 strings"],
)
def test_the_same_attributes_are_the_same_subject(got: x509.Name) -> None:
    assert attributes(name()) == attributes(got)


DIFFERENT = {
    "right": name(),
    "other name": name("another"),
    "other case": name(O="ORG"),
    "missing": x509.Name(list(name())[:-1]),
    "further unit": x509.Name([*name(), x509.NameAttribute(OIDS["OU"], "more")]),
    "unit twice": x509.Name([*name(), x509.NameAttribute(OIDS["OU"], "OrgUnit")]),
    "swapped": name(O="OrgUnit", OU="Org"),
    "spaces": name(O=" Org"),
    "other kind": x509.Name([*name(), x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@b")]),
    "empty": x509.Name([]),
}


@pytest.mark.parametrize(("one", "other"), list(combinations(DIFFERENT, 2)))
def test_another_attribute_is_another_subject(one: str, other: str) -> None:
    assert attributes(DIFFERENT[one]) != attributes(DIFFERENT[other])
    assert attributes(DIFFERENT[one]) == attributes(DIFFERENT[one])


# --- key and CSR


@pytest.mark.parametrize("bits", KEY_SIZES[:2])
def test_a_key_has_the_size_asked_for_and_the_usual_exponent(bits: int) -> None:
    key = make_key(bits)
    assert key.key_size == bits
    assert key.public_key().public_numbers().e == 65537


def test_the_csr_is_for_key_and_subject_and_signed_with_sha_256() -> None:
    csr = x509.load_pem_x509_csr(make_csr(rsa_key(1), parse_subject(SUBJECT)))
    assert csr.is_signature_valid
    assert csr.public_key() == rsa_key(1).public_key()
    assert csr.public_key() != rsa_key(2).public_key()
    assert pairs_of(csr.subject) == [tuple(part.split("=")) for part in PARTS]
    assert isinstance(csr.signature_hash_algorithm, hashes.SHA256)
    assert list(csr.extensions) == []


def test_openssl_verifies_the_csr_and_reads_the_same_subject() -> None:
    pem = make_csr(rsa_key(), parse_subject(SUBJECT))
    assert "verify OK" in run_openssl("req", "-verify", "-noout", stdin=pem)
    assert run_openssl("req", "-noout", "-subject", "-nameopt", "sep_comma_plus", stdin=pem) == (
        f"subject={SUBJECT}"
    )


def run_openssl(*arguments: str, stdin: bytes) -> str:
    """What openssl says."""
    ended = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True)
    return (ended.stderr + ended.stdout).decode().strip()
