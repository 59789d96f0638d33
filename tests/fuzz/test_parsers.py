"""Whatever the Connector or an operator gives us: an error of the tree, or a value that can be used."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs12
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compass_sidecar.adapters.credential_files import CredentialFiles
from compass_sidecar.core import chain as chains
from compass_sidecar.core.answer import (
    SignedAnswer,
    read_answer,
    read_configuration,
    read_first_configuration,
    read_revoked,
    read_signed,
)
from compass_sidecar.core.credential import Chain, key_algorithm, parse_certificates, render
from compass_sidecar.core.csr import attributes, make_csr, parse_subject
from compass_sidecar.core.text import printable
from compass_sidecar.core.token import parse_token
from compass_sidecar.errors import (
    ConnectorError,
    CredentialError,
    MalformedCredential,
    RequestRefused,
    SidecarError,
    SubjectMismatch,
)
from tests.fuzz.mutations import mutated
from tests.support.authority import NOW, Authority, key_pem, name, rsa_key

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's, on odd serial numbers and names

AUTHORITY = Authority.create().intermediate()
CREDENTIAL = AUTHORITY.credential()
CHAIN = CREDENTIAL.chain
LEAF = CHAIN.leaf.public_bytes(Encoding.PEM)
EXPECTED = chains.Expected(public_key=rsa_key().public_key(), subject=name(), at=NOW)
SUBJECT = b"O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=1e5d8a2c-9c2b-4c57-8c0e-1c5a6d2f7b90"
CONFIGURATION = {
    "token": {"token": "x" * 88},
    "certificateSigningRequestInfo": {"subject": SUBJECT.decode(), "keyAlgorithm": "rsa2048"},
    "managementPlaneInfo": {
        "directorURL": "https://director.example/director/graphql",
        "certificateSecuredConnectorURL": "https://connector.example/connector/graphql",
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
T = TypeVar("T")
LONGEST = 2.0  # seconds of our processor's time; the slowest honest input takes a few milliseconds


@contextmanager
def bounded() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < LONGEST


def attempt(call: Callable[[], T], refusal: type[SidecarError]) -> T | None:
    """What the call returns; None if it refuses, in one line fit for a log."""
    try:
        return call()
    except refusal as error:
        detail = error.detail
    assert detail.isprintable()
    return None


def answer(result: Any) -> bytes:
    return json.dumps({"data": {"result": result}}, separators=(",", ":")).encode()


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def read_all(
    read: Callable[[Any, None], object], status: int, headers: dict[str, str], body: bytes
) -> object:
    return read(read_answer(status, headers, body, causes=""), None)


def ders() -> st.SearchStrategy[list[bytes]]:
    """The chain's certificates, some of them damaged in their DER."""
    return st.tuples(*(mutated(each.public_bytes(Encoding.DER), edits=3) for each in CHAIN.certificates)).map(
        list
    )


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n" % base64.encodebytes(der)


def use(chain: Chain) -> None:
    """What the API, the log and the policy do with a chain that was let through."""
    assert len(chain.fingerprint) == 64
    assert (chain.subject + chain.issuer).isprintable()
    assert str(chain.leaf.serial_number)
    assert key_algorithm(chain.leaf)
    assert chain.effective_not_after.isoformat()
    assert chain.not_before.isoformat()


@settings(deadline=None)
@given(mutated(CHAIN.pem))
def test_a_chain_file_is_malformed_or_comes_out_as_it_went_in(text: bytes) -> None:
    with bounded():
        try:
            certificates = parse_certificates(text)
        except MalformedCredential:
            return
        use(Chain.of(certificates))
        assert parse_certificates(render(certificates)) == certificates


@settings(deadline=None)
@given(ders())
def test_a_chain_with_damage_in_its_der_is_refused_or_is_the_one_that_was_signed(
    damaged: list[bytes],
) -> None:
    pems = [pem(der) for der in damaged]
    signed = SignedAnswer(pems[0], b"".join(pems), b"".join(pems[1:]), NOW)
    with bounded():
        verified = attempt(lambda: chains.verify(signed, EXPECTED), CredentialError)
        if verified is None:
            return
        use(verified)
        assert verified.leaf == CHAIN.leaf
        assert set(CHAIN.certificates) >= set(verified.certificates[:-1])


@settings(deadline=None)
@given(mutated(LEAF, edits=2), mutated(CHAIN.pem, edits=2), mutated(CHAIN.ca_pem or b"", edits=2))
def test_a_signed_answer_with_damaged_pem_is_refused_or_verifies(
    leaf: bytes, chain: bytes, ca: bytes
) -> None:
    result = {"clientCertificate": leaf, "certificateChain": chain, "caCertificate": ca}
    body = answer({field: encoded(text) for field, text in result.items()})
    with bounded():
        try:
            verified = chains.verify(read_signed(read_answer(200, {}, body, causes=""), None), EXPECTED)
        except (ConnectorError, CredentialError):
            return
        assert verified.leaf == CHAIN.leaf
        assert x509.load_pem_x509_certificates(verified.pem) == list(verified.certificates)


@settings(deadline=None)
@given(
    st.just(200) | st.integers(100, 999),
    st.dictionaries(st.sampled_from(["Date", "Retry-After", "Content-Type"]), st.text(max_size=40)),
    mutated(answer(CONFIGURATION))
    | mutated(answer({"clientCertificate": encoded(LEAF)}))
    | mutated(answer(True)),
)
@example(200, {}, b'{"data":{"result":' + b"[" * 300_000)
@example(200, {}, b'{"data":{"result":' + b"9" * 100_000 + b"}}")
@example(200, {}, b'{"errors":[{"message":"\\ud800"}]}')
def test_an_answer_is_an_error_of_the_tree_or_can_be_read(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    with bounded():
        for read in (
            read_configuration,
            read_first_configuration,
            read_signed,
            lambda data, _: read_revoked(data),
        ):
            attempt(partial(read_all, read, status, headers, body), ConnectorError)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*CONFIGURATION, "clientCertificate", "certificateChain"]), JSON))
def test_json_of_any_shape_is_an_error_of_the_tree_or_can_be_read(result: dict[str, Any]) -> None:
    data = {"result": {**CONFIGURATION, **result}}
    for read in (read_configuration, read_first_configuration, read_signed):
        attempt(partial(read, data, None), ConnectorError)


@settings(deadline=None)
@given(mutated(SUBJECT, edits=4) | mutated(b"/O=Org/OU=OrgUnit/C=DE/CN=id", edits=4))
def test_a_subject_is_refused_or_is_what_the_csr_asks_for(text: bytes) -> None:
    with bounded():
        try:
            subject = parse_subject(text.decode("utf-8", "replace"))
        except SubjectMismatch:
            return
        csr = x509.load_pem_x509_csr(make_csr(rsa_key(), subject))
        assert csr.is_signature_valid
        assert attributes(csr.subject) == attributes(subject)


@settings(deadline=None)
@given(mutated(CHAIN.pem, edits=2), mutated(key_pem(rsa_key()), edits=2))
def test_files_of_an_operator_are_refused_or_fit_each_other(certificates: bytes, key: bytes) -> None:
    with TemporaryDirectory() as folder, bounded():
        paths = Path(folder) / "tls.crt", Path(folder) / "tls.key"
        for path, content in zip(paths, (certificates, key), strict=True):
            path.write_bytes(content)
        credential = attempt(CredentialFiles(*paths, now=lambda: NOW).read, CredentialError)
        if credential is None:
            return
        use(credential.chain)
        assert credential.chain.leaf.public_key() == rsa_key().public_key()


PASSPHRASE = b"correct horse"
PKCS12 = pkcs12.serialize_key_and_certificates(
    b"x", rsa_key(), CHAIN.leaf, CHAIN.authorities, BestAvailableEncryption(PASSPHRASE)
)
WHOLE = (
    PKCS12,
    CHAIN.pem + key_pem(rsa_key(), passphrase=PASSPHRASE),
    CHAIN.pem + key_pem(rsa_key(), passphrase=PASSPHRASE, traditional=True),
    base64.b64encode(CHAIN.pem + key_pem(rsa_key())),
    (CHAIN.pem + key_pem(rsa_key())).decode().encode("utf-16"),
    CHAIN.pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE") + key_pem(rsa_key()),
)


@settings(deadline=None)
@given(st.one_of(*(mutated(each, edits=3) for each in WHOLE)))
def test_a_file_with_key_and_chain_is_refused_or_both_fit_each_other(content: bytes) -> None:
    with TemporaryDirectory() as folder, bounded():
        path = Path(folder) / "tls.pem"
        path.write_bytes(content)
        credential = attempt(CredentialFiles(path, None, PASSPHRASE, now=lambda: NOW).read, CredentialError)
        if credential is None:
            return
        use(credential.chain)
        assert credential.chain.leaf.public_key() == rsa_key().public_key()


def token_texts() -> st.SearchStrategy[str]:
    raw = base64.b64encode(json.dumps({"token": "x" * 88, "connectorURL": "https://a.example/g"}).encode())
    json_form = JSON.map(lambda value: base64.b64encode(json.dumps({"token": value}).encode()))
    seeds = mutated(raw) | mutated(b"https://a.example/connector/graphql?token=" + b"x" * 88) | json_form
    return seeds.map(lambda text: text.decode("latin-1")) | st.text()


@settings(deadline=None)
@given(token_texts(), st.none() | st.text(max_size=60) | st.just("https://b.example/g"))
def test_a_token_is_refused_or_can_travel(text: str, url: str | None) -> None:
    with bounded():
        token = attempt(lambda: parse_token(text, url), RequestRefused)
        if token is None:
            return
        assert token.value.isascii()
        assert token.url.startswith("https://")
        assert "?" not in token.url
        assert len(token.value) < 40 or token.value not in repr(token)


@settings(deadline=None)
@given(mutated(b"Failed to get one-time token: " + key_pem(rsa_key()) + b"x" * 88))
def test_text_that_is_shown_never_has_a_key_or_a_control_character(text: bytes) -> None:
    with bounded():
        shown = printable(text.decode("utf-8", "replace"))
    assert shown.isprintable()
    assert len(shown) <= 256
    # 59 characters may be shown, and an escaped line break in front of them looks like six more.
    assert not re.search(r"[A-Za-z0-9+/_=-]{66,}", shown)
