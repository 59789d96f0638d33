"""PEM is read however it was indented, joined, wrapped or encoded on its way, in linear time."""

import base64
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_sidecar.core.pem import blocks, certificates, is_pkcs12, lack, unwrap
from compass_sidecar.errors import MalformedCredential
from tests.support.authority import Authority, ec_key, key_pem, rsa_key

CA = Authority.create(key=ec_key(1))
BELOW = CA.intermediate(key=ec_key(2))
PEM = BELOW.pem + CA.pem
DERS = [ssl.PEM_cert_to_DER_cert(each.pem.decode()) for each in (BELOW, CA)]
OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n"


@given(
    st.binary()
    | st.lists(st.sampled_from([b"-----BEGIN A-----", b"-----END A-----", b"-", b"x"])).map(b"".join)
)
def test_blocks_are_pieces_of_the_text_in_its_order(text: bytes) -> None:
    rest = text
    for block in blocks(text):
        whole = b"-----BEGIN %b-----%b-----END %b-----" % (
            block.label.encode(),
            block.body,
            block.label.encode(),
        )
        rest = rest[rest.index(whole) + len(whole) :]


@pytest.mark.parametrize(
    "before",
    [
        b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n",
        b"-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END X509 CRL-----\n",
        b"-----BEGIN certificate-----\nAAAA\n-----END certificate-----\n",
        b"----BEGIN CERTIFICATE----\n",
    ],
)
def test_a_block_that_is_never_ended_hides_none_that_follows(before: bytes) -> None:
    assert [block.label for block in blocks(before + CA.pem)] == ["CERTIFICATE"]


LABEL = b"-----BEGIN A-----"


@pytest.mark.parametrize(
    "piece", [LABEL, LABEL + b"\n-", b"-----BEGIN ", b"-", LABEL + b"-----END A-----", b"-----END A-----"]
)
def test_a_hostile_text_is_searched_in_no_time(piece: bytes) -> None:
    began = time.process_time()
    blocks(piece * (1024 * 1024 // len(piece)))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("letter", [b"a", b"a-", b"1", b"a:", b" "])
def test_a_hostile_body_is_read_in_no_time(letter: bytes) -> None:
    text = b"-----BEGIN CERTIFICATE-----%b-----END CERTIFICATE-----" % (letter * (1024 * 1024 // len(letter)))
    began = time.process_time()
    for block in blocks(text):
        with suppress(MalformedCredential):
            assert block.der is not None
    assert time.process_time() - began < 5


def indented(text: bytes) -> bytes:
    return b"".join(b"    " + line for line in text.splitlines(keepends=True))


def without_newline_between(text: bytes) -> bytes:
    return text.replace(b"-----\n-----", b"----------")


WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda text: text,
    "indented": indented,
    "no newline between": without_newline_between,
    "spaces for newlines": lambda text: text.replace(b"\n", b" "),
    "blank lines inside": lambda text: text.replace(b"\n", b"\n \n"),
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "CR": lambda text: text.replace(b"\n", b"\r"),
    "one line": lambda text: b"-----".join(part.replace(b"\n", b"") for part in text.split(b"-----")),
    "text around": lambda text: b"subject=CN = x\n" + text + b"the end",
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "UTF-16 LE without a mark": lambda text: text.decode().encode("utf-16-le"),
    "UTF-16 BE without a mark": lambda text: text.decode().encode("utf-16-be"),
    "base64": base64.b64encode,
    "base64 in lines": base64.encodebytes,
    "base64 of UTF-16": lambda text: base64.b64encode(text.decode().encode("utf-16")),
    "escaped": lambda text: text.replace(b"\n", rb"\n"),
    "escaped CRLF": lambda text: text.replace(b"\n", rb"\r\n"),
    "in JSON": lambda text: b'{"ca": "' + text.replace(b"\n", rb"\n") + b'"}',
    "old label": lambda text: text.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
    "a key between": lambda text: key_pem(ec_key()) + text,
    "a damaged one between": lambda text: CA.pem.replace(b"\nMII", b"\nM,,") + text,
}


@pytest.mark.parametrize("form", WRITTEN)
def test_trust_anchors_are_found_in_every_form(form: str) -> None:
    assert certificates(WRITTEN[form](PEM)) == DERS


@pytest.mark.parametrize("form", WRITTEN)
def test_what_is_found_is_what_openssl_loads(form: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for der in certificates(WRITTEN[form](PEM)):
        context.load_verify_locations(cadata=der)
    assert context.cert_store_stats()["x509_ca"] == 2


@pytest.mark.parametrize("wrap", [lambda der: der, base64.b64encode])
def test_a_certificate_in_der_is_read(wrap: Callable[[bytes], bytes]) -> None:
    assert certificates(wrap(DERS[0])) == DERS[:1]


def test_the_trust_settings_of_openssl_are_left_out() -> None:
    settings = bytes.fromhex("300c300a06082b06010505070302")
    for behind in (settings, b""):
        body = base64.encodebytes(DERS[1] + behind)
        text = b"-----BEGIN TRUSTED CERTIFICATE-----\n%b-----END TRUSTED CERTIFICATE-----\n" % body
        assert certificates(text) == DERS[1:]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"hunter2", "is not PEM"),
        (b"\0" * 100, "is not PEM"),
        (b"0123456789", "is not PEM"),
        (key_pem(rsa_key()), "has no PEM block CERTIFICATE, only PRIVATE KEY"),
        (CA.pem[:-20], "has a PEM block CERTIFICATE without its end"),
        (CA.pem.replace(b"\nMII", b"\nM,,"), "has a damaged PEM block CERTIFICATE"),
        (
            b"-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n",
            "has no PEM block CERTIFICATE, only PKCS7; convert it with `openssl pkcs7 -print_certs`",
        ),
        (OPENSSH, "has no PEM block CERTIFICATE, only OPENSSH PRIVATE KEY; convert it with `ssh-keygen"),
        (b"\xfe\xed\xfe\xed\0\0\0\2", "is a Java keystore; convert it to PKCS#12 with `keytool"),
        (bytes.fromhex("30820100020103") + bytes(100), "is PKCS#12"),
    ],
)
def test_a_text_without_a_certificate_is_named_for_what_it_is(text: bytes, why: str) -> None:
    with pytest.raises(MalformedCredential) as caught:
        certificates(text)
    assert caught.value.detail.startswith(why)


def test_der_of_something_else_is_named() -> None:
    assert lack("PRIVATE KEY", DERS[0]) == "is DER of another kind"


@given(st.binary())
def test_any_content_is_read_or_refused(content: bytes) -> None:
    text = unwrap(content)
    assert lack("CERTIFICATE", text) or is_pkcs12(text)


@pytest.mark.parametrize("form", ["plain", "indented", "spaces for newlines", "CRLF"])
def test_a_block_is_rendered_in_the_common_form_whatever_its_lines(form: str) -> None:
    text = key_pem(rsa_key(), passphrase=b"x", traditional=True) + PEM
    assert b"".join(block.render() for block in blocks(WRITTEN[form](text))) == text


def test_the_repr_of_a_block_shows_nothing_of_a_key() -> None:
    assert repr(blocks(key_pem(rsa_key()))[0]) == "Block(label='PRIVATE KEY')"
