"""The tables of contract section 2, and answers that no Connector should give."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_sidecar.core.answer import (
    Configuration,
    parse_date,
    read_answer,
    read_configuration,
    read_first_configuration,
    read_revoked,
    read_signed,
)
from compass_sidecar.core.text import printable
from compass_sidecar.errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    DirectorRefused,
    NotRecognised,
    SubjectRefused,
)
from tests.support.authority import Authority, key_pem, rsa_key

DATE = datetime(2026, 11, 24, 10, tzinfo=UTC)
DATE_HEADER = {"date": "Tue, 24 Nov 2026 10:00:00 GMT"}
SUBJECT = "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=1e5d8a2c"
TOKEN = base64.urlsafe_b64encode(bytes(range(64))).decode()
MINT = (
    "Failed to get one-time token during fetching configuration process: could not get one time token: "
    "while calling director for CSR one time token: "
)
# What the real Connector says without an identity.
NOBODY = (
    "Failed to authenticate request. Token authentication error: Failed to authenticate with one time "
    "token.. Certificate authentication error: Failed to authenticate with Certificate. Invalid subject."
)
SIGN = "Error while signing Certificate Signing Request: "
CREATE = SIGN + "Error while creating certificate: x509: "
REVOKE = "Failed to add hash to revocation list: "


def refused(status: int, body: bytes = b"", **headers: str) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        read_answer(status, headers, body, causes="")
    return caught.value


def graphql_error(*messages: object, data: object = None) -> ConnectorError:
    errors = [{"message": message, "path": ["result"]} for message in messages]
    return refused(200, json.dumps({"errors": errors, "data": data}).encode())


# --- statuses


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"", NotRecognised),
        (400, b" \r\n", NotRecognised),
        (400, b'{"errors":[{"message":"transport not supported"}],"data":null}', ConnectorProtocol),
        (400, b"json request body could not be decoded: invalid character", ConnectorProtocol),
        (400, b"<html>400 No required SSL certificate was sent</html>", ConnectorProtocol),
        (401, b"", ConnectorUnavailable),
        (403, b"RBAC: access denied", ConnectorUnavailable),
        (404, b'{"error":{"code":404,"status":"Not Found"}}', ConnectorUnavailable),
        (404, b"404 page not found\n", ConnectorUnavailable),
        (405, b"", ConnectorProtocol),
        (406, b"GET requests only allow query operations", ConnectorProtocol),
        (408, b"", ConnectorUnavailable),
        (413, b"Payload Too Large", ConnectorProtocol),
        (418, b"", ConnectorProtocol),
        (422, b'{"errors":[{"extensions":{"code":"GRAPHQL_PARSE_FAILED"}}]}', ConnectorProtocol),
        (429, b"", ConnectorUnavailable),
        (500, b'{"error":{"code":500,"status":"Internal Server Error"}}', ConnectorUnavailable),
        (501, b"", ConnectorProtocol),
        (502, b"", ConnectorUnavailable),
        (503, b'{"Message":"operation has timed out"}', ConnectorUnavailable),
        (503, b"no healthy upstream", ConnectorUnavailable),
        (504, b"upstream request timeout", ConnectorUnavailable),
        (101, b"", ConnectorProtocol),
        (204, b"", ConnectorProtocol),
        (301, b"", ConnectorProtocol),
        (307, b"", ConnectorProtocol),
    ],
)
def test_each_status_has_its_error(status: int, body: bytes, kind: type[ConnectorError]) -> None:
    error = refused(status, body)
    assert type(error) is kind
    assert str(status) in error.detail


@pytest.mark.parametrize("status", [201, 206, 400, 500, 503])
def test_a_body_with_a_result_does_not_make_another_status_good(status: int) -> None:
    refused(status, b'{"data":{"result":true}}')


def test_a_redirect_is_named_as_not_followed() -> None:
    assert "redirects are not followed" in refused(302, location="https://elsewhere.example.org/").detail


def test_an_error_shows_what_the_gateway_said() -> None:
    assert "upstream connect error" in refused(503, b"upstream connect error or disconnect").detail


# --- Retry-After


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("-5", 0),
        ("Tue, 24 Nov 2026 10:02:00 GMT", 120),
        ("Tue, 24 Nov 2026 09:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("1.5", None),
        ("\u0665", None),
        ("9" * 400, None),
        ("Tue, 99 Nov 2026 10:02:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: int | None) -> None:
    error = refused(429, b"", **{"Retry-After": text, "Date": DATE_HEADER["date"]})
    assert isinstance(error, ConnectorUnavailable)
    assert error.retry_after == (None if seconds is None else timedelta(seconds=seconds))


def test_a_retry_date_without_a_date_to_count_from_is_ignored() -> None:
    error = refused(503, b"", **{"Retry-After": "Tue, 24 Nov 2026 10:02:00 GMT"})
    assert isinstance(error, ConnectorUnavailable)
    assert error.retry_after is None


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_retry_after_counts_for_each_outage(status: int) -> None:
    error = refused(status, b"", **{"retry-after": "3"})
    assert isinstance(error, ConnectorUnavailable)
    assert error.retry_after == timedelta(seconds=3)


# --- the Date header


@pytest.mark.parametrize("name", ["Date", "date", "DATE"])
def test_the_date_is_read_in_utc(name: str) -> None:
    assert parse_date({name: DATE_HEADER["date"]}) == DATE


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Tue, 24 Nov 2026 11:00:00 +0100", DATE),
        ("Tue, 24 Nov 2026 10:00:00 -0000", DATE),
        ("Tue, 24 Nov 99999 10:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:00:00 -0900", None),
        ("Tue, 24 Nov 2026 10:00:00 +9999", None),
        ("Mon, 01 Jan 0001 00:00:00 GMT", None),
        ("Wed, 24 Nov 1999 10:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("yesterday", None),
        ("", None),
        ("1" * 100_000, None),
    ],
)
def test_a_date_is_aware_or_none(text: str, date: datetime | None) -> None:
    assert parse_date({"Date": text}) == date


def test_no_date_is_none() -> None:
    assert parse_date({}) is None


@given(st.text())
def test_any_date_is_utc_or_none(text: str) -> None:
    date = parse_date({"Date": text})
    assert date is None or date.utcoffset() == timedelta(0)


# --- GraphQL errors


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (MINT + "server returned a non-200 status code: 503", DirectorRefused),
        (MINT + "net/http: request canceled (Client.Timeout exceeded)", DirectorRefused),
        (MINT + "context deadline exceeded", DirectorRefused),
        (MINT + "graphql: insufficient scopes provided", DirectorRefused),
        (MINT + "graphql: tenant not found", DirectorRefused),
        (MINT + "No token generation for consumer type Integration System", ConnectorRejected),
        ("No token generation for consumer type User", ConnectorRejected),
        (
            (
                "Failed to authenticate request, consumer type not found: cannot read ConsumerType key from "
                "context"
            ),
            ConnectorUnavailable,
        ),
        (
            "Failed to authenticate request, tenant not found: cannot read TenantKey key from context",
            ConnectorUnavailable,
        ),
        (NOBODY, ConnectorUnauthenticated),
        (
            f"Failed to authenticate with token: {NOBODY}",
            ConnectorUnauthenticated,
        ),
        (
            (
                "Failed to authenticate with certificate: Failed to authenticate with Certificate. Invalid "
                "subject."
            ),
            ConnectorRejected,
        ),
        (
            "Error while decoding Certificate Signing Request: Error while parsing base64 content.",
            ConnectorRejected,
        ),
        (SIGN + "Error while parsing CSR: asn1: syntax error: sequence truncated", ConnectorRejected),
        (SIGN + "Error while parsing CSR: asn1: syntax error: trailing data", ConnectorRejected),
        (
            SIGN + "Error while parsing CSR: asn1: structure error: tags don't match (16 vs {class:1 tag:8})",
            ConnectorRejected,
        ),
        (SIGN + "CSR signature invalid: crypto/rsa: verification error", ConnectorRejected),
        (
            SIGN + "CSR signature invalid: x509: cannot verify signature: algorithm unimplemented",
            ConnectorRejected,
        ),
        (SIGN + "CSR: Invalid common name provided.", SubjectRefused),
        (SIGN + "CSR: Invalid organizational unit provided.", SubjectRefused),
        (SIGN + "CSR: No country provided.", SubjectRefused),
        (
            CREATE + "requested SignatureAlgorithm does not match private key type",
            ConnectorRejected,
        ),
        (
            CREATE + "provided PrivateKey doesn't match parent's PublicKey",
            ConnectorUnavailable,
        ),
        (SIGN + "Certificate data not found in the cache.", ConnectorUnavailable),
        (SIGN + "Error while decoding pem block.", ConnectorUnavailable),
        (SIGN + "Error while parsing certificate: x509: malformed", ConnectorUnavailable),
        (SIGN + "Error while parsing private key: x509", ConnectorUnavailable),
        (REVOKE + 'configmaps "revocations-config" not found', ConnectorUnavailable),
        (
            REVOKE + "ConfigMap is invalid: []: Too long: must have at most 1048576 bytes",
            ConnectorUnavailable,
        ),
        ("internal system error", ConnectorUnavailable),
        ("PersistedQueryNotFound", ConnectorRejected),
        ("a text that is not in the table", ConnectorRejected),
        ("", ConnectorProtocol),
    ],
)
def test_each_message_has_its_error(message: str, kind: type[ConnectorError]) -> None:
    error = graphql_error(message)
    assert type(error) is kind
    assert printable(message) in error.detail


def test_the_first_message_that_is_known_decides() -> None:
    assert type(graphql_error("whatever", "CSR: Invalid country provided.")) is SubjectRefused


def test_errors_beside_a_result_are_still_errors() -> None:
    assert type(graphql_error("internal system error", data={"result": True})) is ConnectorUnavailable


@pytest.mark.parametrize(
    "errors",
    [
        "text",
        7,
        True,
        {},
        {"message": "x"},
        [None],
        [[]],
        ["text"],
        [{}],
        [{"message": None}],
        [{"message": 1}],
    ],
)
def test_errors_without_a_message_are_the_protocol_s(errors: object) -> None:
    error = refused(200, json.dumps({"errors": errors, "data": {"result": True}}).encode())
    assert type(error) is ConnectorProtocol


@pytest.mark.parametrize("nothing", [None, []])
def test_an_empty_list_of_errors_is_none(nothing: object) -> None:
    body = json.dumps({"errors": nothing, "data": {"result": True}}).encode()
    assert read_answer(200, {}, body, causes="") == {"result": True}


# --- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>sign in</html>",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"data":null}',
        b'{"data":[]}',
        b'{"data":{}}',
        b'{"data":{"result":null}}',
        b'{"Message":"operation has timed out"}',
        b'{"data":{"result":NaN}}',
        b'{"data":{"result":-Infinity}}',
        b'{"data":{"result":true,"result":true}}',
        b'{"data":{"result":true}} trailing',
        b'{"data":{"result":true}',
        b'\xef\xbb\xbf{"data":{"result":true}}',
        b'{"data":{"result":"\xff"}}',
        '{"data":{"result":true}}'.encode("utf-16"),
        b'{"data":' * 100_000,
        b'{"data":{"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"errors":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"data":{"result":' + b"9" * 10_000 + b"}}",
    ],
)
def test_a_200_that_is_no_result_breaks_the_protocol(body: bytes) -> None:
    error = refused(200, body)
    assert type(error) is ConnectorProtocol
    assert len(error.detail) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "data": JSON | st.fixed_dictionaries({"result": JSON}),
        "errors": JSON | st.lists(st.fixed_dictionaries({"message": JSON})),
    },
)
BODIES = st.binary() | JSON.map(json.dumps).map(str.encode) | NEARLY.map(json.dumps).map(str.encode)
HEADERS = st.dictionaries(st.sampled_from(["Date", "Retry-After", "x"]), st.text())


@given(st.just(200) | st.integers(100, 999), HEADERS, BODIES)
def test_any_answer_is_a_result_or_an_error_of_the_tree(
    status: int, headers: Mapping[str, str], body: bytes
) -> None:
    try:
        data = read_answer(status, headers, body, causes="")
    except ConnectorError as error:
        detail = error.detail
    else:
        assert (status, data["result"] is None) == (200, False)
        detail = ""
    assert detail.isprintable()
    assert len(detail) < 600


# --- configuration


def configuration(**changes: object) -> dict[str, Any]:
    info = {"subject": SUBJECT, "keyAlgorithm": "rsa2048"}
    plane = {
        "directorURL": "https://mtls.example.org/director/graphql",
        "certificateSecuredConnectorURL": "https://mtls.example.org/connector/graphql",
    }
    whole = {"certificateSigningRequestInfo": info, "managementPlaneInfo": plane, "token": {"token": TOKEN}}
    for path, value in changes.items():
        holder, _, name = path.rpartition("__")
        target: dict[str, Any] = whole[holder] if holder else whole
        target[name] = value
    return {"result": whole}


def test_a_configuration_has_subject_urls_and_date() -> None:
    assert read_configuration(configuration(), DATE) == Configuration(
        subject=SUBJECT,
        connector_url="https://mtls.example.org/connector/graphql",
        director_url="https://mtls.example.org/director/graphql",
        date=DATE,
        token=None,
    )


def test_a_first_configuration_has_the_next_token_and_hides_it() -> None:
    read = read_first_configuration(configuration(), None)
    assert read.token == TOKEN
    assert TOKEN not in repr(read)


@pytest.mark.parametrize(
    "token",
    [None, {}, [], "text", {"token": None}, {"token": ""}, {"token": 1}, {"token": "a b"}, {"token": "é"}],
)
def test_no_token_to_sign_with_says_that_the_first_is_spent(token: object) -> None:
    with pytest.raises(ConnectorProtocol, match=r"Director minted no token .* is spent"):
        read_first_configuration(configuration(token=token), None)


@pytest.mark.parametrize("nothing", [None, ""])
def test_the_urls_may_be_missing(nothing: object) -> None:
    changed = configuration(
        managementPlaneInfo__directorURL=nothing, managementPlaneInfo__certificateSecuredConnectorURL=nothing
    )
    read = read_configuration(changed, None)
    assert (read.connector_url, read.director_url, read.url_fault) == (None, None, None)


def test_a_renewal_can_do_without_the_management_plane() -> None:
    read = read_configuration(configuration(managementPlaneInfo=None), None)
    assert (read.connector_url, read.director_url) == (None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("certificateSigningRequestInfo", None),
        *(
            (name, value)
            for name in ("certificateSigningRequestInfo", "managementPlaneInfo")
            for value in ("text", [], 1, True)
        ),
    ],
)
def test_a_missing_part_is_named(name: str, value: object) -> None:
    with pytest.raises(ConnectorProtocol, match=name):
        read_configuration(configuration(**{name: value}), None)


@pytest.mark.parametrize("value", [None, "", " ", 1, ["O=x"], "CN=\ud800"])
def test_a_missing_subject_is_named(value: object) -> None:
    with pytest.raises(ConnectorProtocol, match="subject"):
        read_configuration(configuration(certificateSigningRequestInfo__subject=value), None)


@pytest.mark.parametrize("result", [True, "text", [], 1])
def test_a_result_of_another_kind_is_named(result: object) -> None:
    with pytest.raises(ConnectorProtocol, match="result"):
        read_configuration({"result": result}, None)


BAD_URLS = pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "HTTPS//example.org",
        "example.org",
        "https://",
        "https:///path",
        "https://user@example.org/",
        "https://user:hunter2@example.org/",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://xn--a/",
        "https://[::1/",
        "https://example.org/\r\nX: y",
        "https://example.org/ x",
        "https://good.example.org\\@evil.example.org/",
        "https://ex\u202eample.org/",
        "https://example.org/" + "x" * 3000,
        7,
        ["https://example.org/"],
    ],
)


@BAD_URLS
def test_a_bad_director_url_is_left_out(url: object) -> None:
    assert read_configuration(configuration(managementPlaneInfo__directorURL=url), None).director_url is None


@BAD_URLS
def test_an_announced_url_that_can_never_be_called_is_named_and_not_shown(url: object) -> None:
    name = "certificateSecuredConnectorURL"
    read = read_configuration(configuration(**{f"managementPlaneInfo__{name}": url}), None)
    assert read.connector_url is None
    assert read.url_fault is not None
    assert read.url_fault.startswith(f"the {name} in the Connector's answer ")
    assert "hunter2" not in read.url_fault
    assert len(read.url_fault) < 200


# --- signed certificates

AUTHORITY = Authority.create()
CHAIN = AUTHORITY.credential().chain
LEAF_PEM = CHAIN.pem.removesuffix(AUTHORITY.pem)


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def signed(**changes: object) -> dict[str, Any]:
    answer = {
        "certificateChain": encoded(CHAIN.pem),
        "caCertificate": encoded(AUTHORITY.pem),
        "clientCertificate": encoded(LEAF_PEM),
    }
    return {"result": {**answer, **changes}}


def test_a_signed_answer_has_the_three_texts_byte_for_byte() -> None:
    read = read_signed(signed(), DATE)
    assert (read.leaf_pem, read.ca_pem, read.chain_pem) == (LEAF_PEM, AUTHORITY.pem, CHAIN.pem)
    assert read.date == DATE


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_base64_may_be_broken_into_lines(newline: str) -> None:
    broken = base64.encodebytes(LEAF_PEM).decode().replace("\n", newline)
    assert read_signed(signed(clientCertificate=broken), None).leaf_pem == LEAF_PEM


@pytest.mark.parametrize("name", ["certificateChain", "caCertificate", "clientCertificate"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        7,
        [],
        "no base64!",
        "é",
        encoded(LEAF_PEM)[:-3],
        encoded(LEAF_PEM) + " ",
        encoded(b"no PEM"),
        encoded(LEAF_PEM[:-10]),
        encoded(LEAF_PEM + key_pem(rsa_key())),
        encoded(b"-----BEGIN A-----\n" * 5000),
        "A" * 200_000,
    ],
)
def test_a_field_that_is_no_base64_of_pem_is_named(name: str, value: object) -> None:
    with pytest.raises(ConnectorProtocol, match=name):
        read_signed(signed(**{name: value}), None)


def test_ten_certificates_fit() -> None:
    assert read_signed(signed(caCertificate=encoded(LEAF_PEM * 10)), None).ca_pem == LEAF_PEM * 10


# --- revocation


def test_a_revocation_is_confirmed_by_true() -> None:
    read_revoked({"result": True})


@pytest.mark.parametrize("result", [False, "true", 1, {}])
def test_a_revocation_is_confirmed_by_nothing_else(result: object) -> None:
    with pytest.raises(ConnectorProtocol):
        read_revoked({"result": result})


@given(JSON)
def test_any_result_is_read_or_an_error_of_the_tree(result: object) -> None:
    for read in (read_configuration, read_first_configuration, read_signed):
        with pytest.raises(ConnectorProtocol):
            read({"result": result}, None)
