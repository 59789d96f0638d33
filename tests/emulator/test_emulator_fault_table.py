"""Every row of the fault table does what it says: the last test here knows which rows were proven."""

import asyncio
import contextlib
import itertools
import json
import re
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from compass_emulator import FAULTS, Emulator, EmulatorOptions
from tests.emulator.talking import (
    CONFIGURATION,
    KEY,
    PROBE,
    REVOKE,
    SIGN,
    ask,
    chain,
    client_context,
    exchange,
    fields,
    first_client_id,
    make_csr,
    message,
    obtain,
    own_credential,
    refusal,
    request_bytes,
    save,
)

pytestmark = pytest.mark.anyio

EMPTY = b""
ANSWERS: dict[str, tuple[int, bytes]] = {
    "403-rbac": (403, b"RBAC: access denied"),
    "404-oathkeeper": (404, b'{"error":{"code":404,"status":"Not Found"'),
    "404-text": (404, b"404 page not found"),
    "429": (429, b"local_rate_limited"),
    "503-text": (503, b"upstream connect error or disconnect/reset before headers"),
    "503-no-upstream": (503, b"no healthy upstream"),
    "html-200": (200, b"<!DOCTYPE html>"),
    "html-503": (503, b"<!DOCTYPE html>"),
    "status:418": (418, EMPTY),
    "empty-400": (400, EMPTY),
    "transport-400": (400, b'{"errors":[{"message":"transport not supported"}],"data":null}'),
    "413": (413, b"Payload Too Large"),
    "422": (422, b'{"errors":[{"message":"Unexpected \\u003cInvalid\\u003e"'),
    "500-oathkeeper": (500, b'{"error":{"code":500,"status":"Internal Server Error"'),
    "502-empty": (502, EMPTY),
    "503-timeout-json": (503, b'{"Message":"operation has timed out"}'),
    "504-text": (504, b"upstream request timeout"),
    "null-data": (200, b'{"data":null}'),
    "no-data": (200, b"{}"),
    "empty-200": (200, EMPTY),
    "json-list": (200, b'["data"]'),
    "not-json": (200, b"{'data': nope}"),
    "not-utf-8": (200, b'{"data":{"result":"\xe9\xff"}}'),
    "empty-errors": (200, b'{"errors":[],"data":null}'),
    "odd-errors": (200, b'{"errors":["boom",null,7],"data":null}'),
    "null-result": (200, b'{"data":{"result":null}}'),
    "missing-result": (200, b'{"data":{}}'),
    "deep-json": (200, b'{"data":[[[['),
}

MESSAGES = {
    "director-down": ("configuration", "CSR one time token: Post .*connection refused"),
    "director-slow": (
        "configuration",
        r"CSR one time token: Post .*net/http: request canceled \(Client.Timeout ",
    ),
    "director-503": ("configuration", "graphql: server returned a non-200 status code: 503"),
    "director-scopes": ("configuration", "graphql: insufficient scopes"),
    "director-not-found": ("configuration", "graphql: Object not found"),
    "consumer-type-unsupported": (
        "configuration",
        "No token generation for consumer type Integration System",
    ),
    "consumer-type-missing": ("configuration", "consumer type not found"),
    "tenant-missing": ("configuration", "tenant not found"),
    "unauthenticated": (
        "sign",
        "^Failed to authenticate with token: Failed to authenticate request. Token auth",
    ),
    "revoke-unauthenticated": ("revoke", "^Failed to authenticate with certificate: "),
    "csr-bad-base64": (
        "sign",
        "^Error while decoding .*Error while parsing base64 content. Incorrect value provided.$",
    ),
    "csr-bad-pem": (
        "sign",
        "^Error while signing Certificate Signing Request: Error while decoding pem block.$",
    ),
    "csr-unparsable": ("sign", "Error while parsing CSR: "),
    "csr-bad-signature": ("sign", "CSR signature invalid: "),
    "csr-not-rsa": ("sign", "x509: requested SignatureAlgorithm does not match private key type$"),
    "ca-secret-other-key": ("sign", "x509: provided PrivateKey doesn't match parent's PublicKey$"),
    "revocation-missing": ("revoke", '^Failed to add .*: configmaps "revocations-config" not found$'),
    "revocation-full": ("revoke", 'ConfigMap "revocations-config" is invalid: .*at most 1048576 bytes$'),
    "ca-secret-missing": ("sign", "Certificate data not found in the cache.$"),
    "ca-secret-bad-pem": ("sign", "Error while decoding pem block$"),
    "ca-secret-bad-certificate": ("sign", "Error while parsing certificate: "),
    "ca-secret-bad-key": ("sign", "Error while parsing private key: "),
    "revocation-conflict": (
        "revoke",
        "^Failed to add hash to revocation list: Operation cannot be fulfilled",
    ),
    "revocation-unavailable": ("revoke", "^Failed to add hash to revocation list: Get .*i/o timeout"),
    "internal-system-error": ("probe", "^internal system error$"),
    "error-text:it is broken": ("probe", "^it is broken$"),
    "error-control-characters": ("configuration", "\x1b\\[31m\x07\x00\r\n"),
    "error-bidi": ("configuration", "\u202e"),
    "error-long-base64": ("configuration", "[A-Za-z0-9+/]{4000}"),
    "error-pem-key": ("configuration", "-----BEGIN RSA PRIVATE KEY-----\n"),
    "error-very-long": ("configuration", "lorem ipsum"),
    **{
        f"csr-invalid-{word.replace(' ', '-')}": (
            "sign",
            f"^Error while signing .*CSR: Invalid {word} provided.$",
        )
        for word in ("common name", "country", "organization", "organizational unit", "locality", "province")
    },
    **{
        f"csr-no-{word.replace(' ', '-')}": ("sign", f"^Error while signing .*CSR: No {word} provided.$")
        for word in ("country", "organization", "organizational unit", "locality", "province")
    },
}

INFO, PLANE = "certificateSigningRequestInfo", "managementPlaneInfo"
CONFIGURATIONS: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "null-token": lambda result, _id: result["token"] is None,
    "null-csr-info": lambda result, _id: result[INFO] is None,
    "null-management-plane": lambda result, _id: result[PLANE] is None,
    "null-director-url": lambda result, _id: result[PLANE]["directorURL"] is None,
    "null-connector-url": lambda result, _id: result[PLANE]["certificateSecuredConnectorURL"] is None,
    "empty-token": lambda result, _id: result["token"] == {"token": ""},
    "other-director-url:https://d/": lambda result, _id: result[PLANE]["directorURL"] == "https://d/",
    "other-connector-url:http://c:1/x": lambda result, _id: (
        result[PLANE]["certificateSecuredConnectorURL"] == "http://c:1/x"
    ),
    "other-key-algorithm:ecdsa": lambda result, _id: result[INFO]["keyAlgorithm"] == "ecdsa",
    "odd-subject:CN={cn}, O=x": lambda result, id_: result[INFO]["subject"] == f"CN={id_}, O=x",
    **{
        f"connector-url-{kind}": lambda result, _id, url=url: (
            result[PLANE]["certificateSecuredConnectorURL"] == url
            and result[PLANE]["directorURL"].startswith("https://")
        )
        for kind, url in {
            "bad-name": "https://xn--a/connector/graphql",
            "port-0": "https://127.0.0.1:0/connector/graphql",
            "unreachable": "https://127.0.0.1:1/connector/graphql",
            "not-https": "http://127.0.0.1/connector/graphql",
            "nonsense": "https://[::1/connector graphql",
        }.items()
    },
    "subject-empty": lambda result, _id: result[INFO]["subject"] == "",
    "subject-reordered": lambda result, id_: result[INFO]["subject"].startswith("OU=OrgUnit,O=Org,"),
    "subject-without-cn": lambda result, _id: "CN=" not in result[INFO]["subject"],
    "subject-other-cn": lambda result, id_: id_ not in result[INFO]["subject"],
    "subject-twice": lambda result, id_: result[INFO]["subject"].count(f"CN={id_}") == 2,
    "subject-control-characters": lambda result, _id: "\x1b[31m" in result[INFO]["subject"],
    "subject-very-long": lambda result, _id: len(result[INFO]["subject"]) > 100_000,
    "missing-token": lambda result, _id: "token" not in result,
    "missing-csr-info": lambda result, _id: INFO not in result and "token" in result,
    "missing-management-plane": lambda result, _id: PLANE not in result,
    "missing-field:token": lambda result, _id: "token" not in result,
    "null-field:managementPlaneInfo": lambda result, _id: result[PLANE] is None,
    "wrong-types": lambda result, _id: result["token"] == [1],
}


def common_name(leaf: x509.Certificate) -> str:
    return str(leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def signed_by(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    return True


def parses(text: bytes) -> bool:
    try:
        return bool(x509.load_pem_x509_certificates(text))
    except ValueError:
        return False


def certificates(result: dict[str, bytes]) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(result["certificateChain"])


def good(result: dict[str, bytes]) -> bool:
    leaf, issuer = certificates(result)
    return leaf.public_key() == KEY.public_key() and signed_by(leaf, issuer)


def title(result: dict[str, bytes]) -> str:
    """The attribute that a leaf's subject has beyond the Connector's own."""
    leaf = certificates(result)[0]
    assert common_name(leaf)
    return str(leaf.subject.get_attributes_for_oid(NameOID.TITLE)[0].value)


def issuer(result: dict[str, bytes]) -> str:
    names = {one.issuer for one in certificates(result)}
    assert len(names) == 1
    return names.pop().rfc4514_string()


NOW = datetime.now(UTC)
CHAINS: dict[str, Callable[[dict[str, bytes]], bool]] = {
    "wrong-key": lambda result: certificates(result)[0].public_key() != KEY.public_key(),
    "wrong-subject": good,
    "expired": lambda result: good(result) and certificates(result)[0].not_valid_after_utc < NOW,
    "not-yet-valid:2d": lambda result: good(result) and certificates(result)[0].not_valid_before_utc > NOW,
    "short-lived:10s": lambda result: (
        good(result) and certificates(result)[0].not_valid_after_utc < NOW + timedelta(seconds=600)
    ),
    "forged-signature": lambda result: (
        not signed_by(*certificates(result))
        and certificates(result)[0].issuer == certificates(result)[1].subject
    ),
    "new-ca": good,
    "shuffled": lambda result: signed_by(*certificates(result)[::-1]),
    "leaf-mismatch": lambda result: (
        good(result)
        and x509.load_pem_x509_certificate(result["clientCertificate"]) != certificates(result)[0]
    ),
    "leaf-only": lambda result: len(certificates(result)) == 1 and result["caCertificate"] == b"",
    "ca-only": lambda result: result["certificateChain"] == result["caCertificate"],
    "empty-chain": lambda result: set(result.values()) == {b""},
    "no-certificate": lambda result: result["certificateChain"].startswith(b"-----BEGIN PUBLIC KEY-----"),
    "private-key-in-pem": lambda result: b"-----BEGIN PRIVATE KEY-----" in result["certificateChain"],
    "broken-pem": lambda result: (
        b"BEGIN CERTIFICATE" in result["certificateChain"] and not parses(result["certificateChain"])
    ),
    "der": lambda result: x509.load_der_x509_certificate(result["clientCertificate"]).serial_number == 2,
    "crlf-pem": lambda result: good(result) and b"-----\r\n" in result["certificateChain"],
    "wrapped-in-text": lambda result: (
        good(result) and result["certificateChain"].startswith(b"Bag Attributes")
    ),
    "server-auth-eku": good,
    "leaf-subject:so long": lambda result: good(result) and title(result) == "so long",
    "leaf-subject-control-characters": lambda result: (
        good(result) and "\x1b[31m\x07\x00\r\n" in title(result)
    ),
    "leaf-subject-bidi": lambda result: good(result) and "\u202e" in title(result),
    "leaf-subject-base64": lambda result: good(result) and bool(re.fullmatch(r"[\w-]{86}==", title(result))),
    "leaf-subject-very-long": lambda result: good(result) and len(title(result)) == 60_000,
    "ca-name:My own": lambda result: good(result) and "CN=My own" in issuer(result),
    "ca-name-control-characters": lambda result: good(result) and "\x1b[31m" in issuer(result),
    "ca-name-bidi": lambda result: good(result) and "\u202e" in issuer(result),
}


def answer_to(operation: str, emulator: Emulator) -> Any:
    """The call of an operation."""
    if operation == "sign":
        return ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))})
    return ask(emulator, {"configuration": CONFIGURATION, "revoke": REVOKE, "probe": PROBE}[operation])


@pytest.mark.parametrize(("fault", "expected"), ANSWERS.items())
async def test_an_http_answer_arrives_once_and_then_all_is_well(
    emulator: Emulator, fault: str, expected: tuple[int, bytes]
) -> None:
    name, _, param = fault.partition(":")
    emulator.fault(f"{name}*1" + (f":{param}" if param else ""))
    answer = await ask(emulator, CONFIGURATION)
    status, body = expected
    assert answer.status_code == status
    assert answer.content == body if not body else answer.content.startswith(body)
    assert (await ask(emulator, CONFIGURATION)).json()["data"]["result"]["token"]


@pytest.mark.parametrize(("fault", "expected"), MESSAGES.items())
async def test_a_message_arrives_in_gqlgens_shape(
    emulator: Emulator, fault: str, expected: tuple[str, str]
) -> None:
    operation, pattern = expected
    emulator.fault(fault)
    answer = await answer_to(operation, emulator)
    assert re.search(pattern, message(answer), re.DOTALL)
    assert answer.json()["errors"][0]["path"] == ["__typename" if operation == "probe" else "result"]
    assert emulator.counters["signatures"] == emulator.counters["tokens_minted"] == 0


@pytest.mark.parametrize(("fault", "holds"), CONFIGURATIONS.items())
async def test_a_configuration_comes_out_odd(
    emulator: Emulator, fault: str, holds: Callable[[dict[str, Any], str], bool]
) -> None:
    emulator.fault(fault)
    answer = await ask(emulator, CONFIGURATION)
    assert holds(answer.json()["data"]["result"], first_client_id(emulator)), answer.text[:500]
    assert emulator.counters["tokens_minted"] == 1


@pytest.mark.parametrize(("fault", "holds"), CHAINS.items())
async def test_a_chain_comes_out_wrong(
    emulator: Emulator, fault: str, holds: Callable[[dict[str, bytes]], bool]
) -> None:
    emulator.fault(fault)
    answer = await answer_to("sign", emulator)
    assert holds(fields(answer)), fields(answer)
    assert emulator.counters["signatures"] == 1


async def test_a_wrong_subject_names_somebody_else(emulator: Emulator) -> None:
    emulator.fault("wrong-subject")
    assert common_name(chain(await answer_to("sign", emulator))[0]) != first_client_id(emulator)


async def test_broken_base64_cannot_be_decoded_strictly(emulator: Emulator) -> None:
    emulator.fault("broken-base64")
    result = (await answer_to("sign", emulator)).json()["data"]["result"]
    assert all("!" in value for value in result.values())


async def test_line_broken_base64_is_legal_and_decodes(emulator: Emulator) -> None:
    emulator.fault("line-broken-base64")
    answer = await answer_to("sign", emulator)
    assert "\r\n" in answer.json()["data"]["result"]["certificateChain"]
    assert good(fields(answer))


async def test_a_chain_of_a_new_ca_is_not_accepted_at_the_listener(
    emulator: Emulator, tmp_path: Path
) -> None:
    emulator.fault("new-ca")
    credential = save(tmp_path / "new", fields(await answer_to("sign", emulator))["certificateChain"])
    assert await refusal(emulator, client_context(emulator, credential)) == "TLSV1_ALERT_UNKNOWN_CA"


@pytest.mark.parametrize(
    ("fault", "reason", "count"),
    [
        ("ca-1024-bits", "CA_KEY_TOO_SMALL", 2),
        ("ca-sha1", "CA_MD_TOO_WEAK", 3),
        ("leaf-sha1", "CA_MD_TOO_WEAK", 2),
    ],
)
async def test_a_weak_chain_holds_together_and_openssl_refuses_to_load_it(
    emulator: Emulator, tmp_path: Path, fault: str, reason: str, count: int
) -> None:
    emulator.fault(fault)
    result = fields(await answer_to("sign", emulator))
    made = certificates(result)
    assert len(made) == count
    assert all(one.issuer == above.subject for one, above in itertools.pairwise(made))
    credential = save(tmp_path / "weak", result["certificateChain"])
    with pytest.raises(ssl.SSLError) as refused:
        client_context(emulator, credential)
    assert refused.value.reason == reason
    verified = await openssl_verify(tmp_path / "weak", made)
    assert verified == "OK", "at security level 0 nothing is wrong with it"


async def openssl_verify(folder: Path, made: list[x509.Certificate]) -> str:
    """What `openssl verify` says about the chain when no algorithm is too weak for it."""
    names = [folder / f"{number}.pem" for number in range(len(made))]
    for name, one in zip(names, made, strict=True):
        name.write_bytes(one.public_bytes(serialization.Encoding.PEM))
    between = [part for name in names[1:-1] for part in ("-untrusted", str(name))]
    process = await asyncio.create_subprocess_exec(
        *("openssl", "verify", "-auth_level", "0", "-CAfile", str(names[-1]), *between, str(names[0])),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode().strip().rpartition(": ")[2]


async def test_a_director_that_hangs_is_told_when_the_connector_gives_up(emulator: Emulator) -> None:
    emulator.fault("director-hangs*1:500ms")
    start = time.monotonic()
    assert "Client.Timeout exceeded" in message(await ask(emulator, CONFIGURATION))
    assert time.monotonic() - start >= 0.5
    assert FAULTS["director-hangs"].default == "30s"
    assert (await ask(emulator, CONFIGURATION)).status_code == 200


@pytest.mark.parametrize("fault", ["root-not-attached", "ca-without-ski", "ca-of-helm"])
@pytest.mark.parametrize("length", [2, 3])
async def test_an_odd_but_legal_ca_is_accepted_at_the_listener(
    folder: Path, tmp_path: Path, fault: str, length: int
) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder, chain=length)) as emulator:
        emulator.fault(f"{fault}*1")
        result = fields(await answer_to("sign", emulator))
        leaf, ca = certificates(result)[:2]
        assert signed_by(leaf, ca)
        assert DIFFERS[fault](leaf, ca)
        credential = save(tmp_path / "odd", result["certificateChain"])
        assert (await ask(emulator, PROBE, credential=credential)).status_code == 200


def has(certificate: x509.Certificate, *kinds: Any) -> list[bool]:
    return [any(isinstance(one.value, kind) for one in certificate.extensions) for kind in kinds]


SKI, AKI, EKU = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier, x509.ExtendedKeyUsage
DIFFERS: dict[str, Callable[[x509.Certificate, x509.Certificate], bool]] = {
    "root-not-attached": lambda _leaf, ca: ca.issuer != ca.subject,
    "ca-without-ski": lambda leaf, ca: has(leaf, AKI) == [False] and has(ca, SKI, AKI) == [False, False],
    "ca-of-helm": lambda leaf, ca: has(leaf, AKI) == [True] and has(ca, SKI, AKI, EKU) == [True, False, True],
}


async def test_a_kept_connection_does_not_notice_a_new_client_ca(emulator: Emulator) -> None:
    context = client_context(emulator, own_credential(emulator))
    url = emulator.endpoints.connector_url
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        assert (await client.post(url, json={"query": PROBE})).status_code == 200
        await emulator.replace_client_ca(keep_connections=True)
        assert (await client.post(url, json={"query": PROBE})).status_code == 200
    assert await refusal(emulator, context) == "TLSV1_ALERT_UNKNOWN_CA"


async def test_a_fresh_certificate_is_not_accepted_for_a_while(emulator: Emulator, tmp_path: Path) -> None:
    emulator.fault("not-accepted-yet:1h")
    fresh = await obtain(emulator, tmp_path / "fresh")
    answer = await ask(emulator, PROBE, credential=fresh)
    assert (answer.status_code, answer.content) == (400, b"")
    assert (await ask(emulator, PROBE)).status_code == 200, "the old one is"
    emulator.clear_faults()
    emulator.fault("not-accepted-yet:1ms")
    assert (await ask(emulator, PROBE, credential=fresh)).status_code == 200, "it is older than that by now"


async def test_a_rate_limit_is_marked_and_may_say_when(emulator: Emulator) -> None:
    emulator.fault("429*1")
    emulator.fault("429-retry-after*1:7s")
    silent, telling = await ask(emulator, PROBE), await ask(emulator, PROBE)
    assert "x-local-rate-limit" in silent.headers
    assert "retry-after" not in silent.headers
    assert (telling.status_code, telling.headers["retry-after"]) == (429, "7")


async def test_retry_after_comes_as_seconds_or_as_a_date_of_the_connectors_clock(emulator: Emulator) -> None:
    emulator.set_clock_offset(timedelta(days=1))
    emulator.fault("503-retry-after*1:30")
    emulator.fault("503-retry-after-date*1:30")
    seconds, date = await ask(emulator, PROBE), await ask(emulator, PROBE)
    assert (seconds.status_code, seconds.headers["retry-after"]) == (503, "30")
    until = parsedate_to_datetime(date.headers["retry-after"])
    said = parsedate_to_datetime(date.headers["date"])
    assert timedelta(seconds=28) <= until - said <= timedelta(seconds=31)


async def test_a_redirect_goes_where_it_was_told(emulator: Emulator) -> None:
    emulator.fault("redirect:https://elsewhere.example:8443/a?b=c")
    answer = await ask(emulator, PROBE)
    assert (answer.status_code, answer.headers["location"]) == (307, "https://elsewhere.example:8443/a?b=c")


async def test_a_wrong_content_type_leaves_the_body_alone(emulator: Emulator) -> None:
    emulator.fault("wrong-content-type:text/html")
    answer = await ask(emulator, PROBE)
    assert (answer.headers["content-type"], answer.json()) == ("text/html", {"data": {"__typename": "Query"}})


YEAR_1, YEAR_9999 = "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"
DATES: dict[str, Callable[[str | None], bool]] = {
    "no-date": lambda date: date is None,
    "date-ahead:60d": lambda date: hours_ahead(date) == 60 * 24,
    "date-behind:3h": lambda date: hours_ahead(date) == -3,
    "date-year-1": lambda date: date == YEAR_1,
    "date-year-9999": lambda date: date == YEAR_9999,
    "date-odd": lambda date: date == "yesterday at noon",
    "date-odd:Wednesday, 25-Nov-26 20:00:00 GMT": lambda date: date == "Wednesday, 25-Nov-26 20:00:00 GMT",
}


def hours_ahead(date: str | None) -> int:
    assert date
    return round((parsedate_to_datetime(date) - datetime.now(UTC)) / timedelta(hours=1))


@pytest.mark.parametrize(("fault", "holds"), DATES.items())
async def test_the_date_can_be_wrong_whoever_answers(
    emulator: Emulator, fault: str, holds: Callable[[str | None], bool]
) -> None:
    name, _, param = fault.partition(":")
    emulator.fault(f"{name}@probe" + (f":{param}" if param else ""))
    emulator.fault("429@probe*1")
    emulator.fault("empty-400@probe*1")
    answers = [await ask(emulator, PROBE) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 400, 200, 200]
    assert all(holds(answer.headers.get("date")) for answer in answers)
    assert hours_ahead((await ask(emulator, CONFIGURATION)).headers["date"]) == 0
    assert emulator.counters["faults"][name] == 4


async def test_the_date_can_change_from_answer_to_answer(emulator: Emulator) -> None:
    emulator.fault("date-changing:10d")
    dates = [(await ask(emulator, PROBE)).headers.get("date") for _ in range(14)]
    assert [hours_ahead(date) for date in (dates[0], dates[1], dates[4])] == [240, -240, 0]
    assert [dates[2], dates[3], dates[5], dates[6]] == [None, YEAR_9999, "yesterday at noon", YEAR_1]
    assert dates[9] is None, "and so on"


async def test_errors_can_come_together_with_data(emulator: Emulator) -> None:
    emulator.fault("errors-and-data")
    content = (await ask(emulator, CONFIGURATION)).json()
    assert content["errors"]
    assert content["data"]["result"]["token"]


async def test_a_huge_body_is_an_honest_one_after_much_white_space(emulator: Emulator) -> None:
    emulator.fault("huge-body:3")
    answer = await ask(emulator, PROBE)
    assert len(answer.content) > 3 * 2**20
    assert answer.json() == {"data": {"__typename": "Query"}}


async def test_a_gzip_bomb_is_small_on_the_wire_and_good_gzip(emulator: Emulator) -> None:
    emulator.fault("gzip-bomb:8")
    context = client_context(emulator, own_credential(emulator))
    asking = request_bytes().replace(b"Host:", b"Connection: close\r\nAccept-Encoding: gzip\r\nHost:")
    answer = await exchange(emulator, context, request=asking)
    head, _, _ = answer.partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert len(answer) < 20_000
    decoded = await ask(emulator, PROBE, headers={"Accept-Encoding": "gzip"})
    assert len(decoded.content) > 8 * 2**20
    assert json.loads(decoded.content) == {"data": {"__typename": "Query"}}


async def test_slowness_delays_an_answer_that_was_acted_upon(emulator: Emulator) -> None:
    emulator.fault("slow*1:300ms")
    start = time.monotonic()
    assert (await ask(emulator, CONFIGURATION)).status_code == 200
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("fault", "acted"),
    [
        ("reset-before-acting", False),
        ("close-before-acting", False),
        ("reset-after-acting", True),
        ("close-after-acting", True),
        ("half-answer", True),
        ("half-head", True),
        ("not-http", True),
    ],
)
async def test_a_broken_answer_is_a_transport_error_and_whether_it_acted_is_known(
    emulator: Emulator, fault: str, acted: bool
) -> None:
    emulator.fault(fault)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await ask(emulator, CONFIGURATION)
    assert emulator.counters["tokens_minted"] == int(acted)
    assert emulator.requests[-1]["faults"] == [fault]


@pytest.mark.parametrize("fault", ["reset-after-acting", "close-after-acting"])
@pytest.mark.parametrize(
    ("operation", "acted"),
    [("configuration", "tokens_minted"), ("sign", "signatures"), ("revoke", "revocations"), ("probe", None)],
)
async def test_an_answer_can_be_lost_after_each_operation(
    emulator: Emulator, fault: str, operation: str, acted: str | None
) -> None:
    emulator.fault(f"{fault}@{operation}*1")
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await answer_to(operation, emulator)
    assert emulator.counters["calls"][operation] == 1
    if acted is not None:
        assert emulator.counters[acted] == 1
    status = (await answer_to(operation, emulator)).status_code
    assert status == (400 if operation == "revoke" else 200), "a certificate revoked unheard is revoked"


@pytest.mark.parametrize("fault", ["reset-before-acting", "403-rbac", "429", "html-200"])
async def test_what_happens_at_the_edge_burns_no_token(emulator: Emulator, fault: str) -> None:
    token = emulator.token().token
    emulator.fault(f"{fault}*1")
    with contextlib.suppress(httpx.TransportError):
        await ask(emulator, CONFIGURATION, token=token)
    assert (await ask(emulator, CONFIGURATION, token=token)).status_code == 200


@pytest.mark.parametrize(
    "fault", ["empty-400", "500-oathkeeper", "502-empty", "director-down", "reset-after-acting"]
)
async def test_what_happens_behind_the_gate_burns_the_token(emulator: Emulator, fault: str) -> None:
    token = emulator.token().token
    emulator.fault(f"{fault}*1")
    with contextlib.suppress(httpx.TransportError):
        await ask(emulator, CONFIGURATION, token=token)
    assert (await ask(emulator, CONFIGURATION, token=token)).content == b""


@pytest.mark.parametrize(
    ("fault", "begun"),
    [
        ("hang-headers", b""),
        ("hang-body", b"HTTP/1.1 200 OK\r\n"),
        ("drip:100ms", b"HT"),
        ("hang-connect", b""),
        ("hang-handshake", b""),
    ],
)
async def test_a_hanging_answer_begins_and_does_not_end(emulator: Emulator, fault: str, begun: bytes) -> None:
    emulator.fault(fault)
    context = client_context(emulator, own_credential(emulator))
    received = await overhear(emulator, context, seconds=0.8)
    assert received.startswith(begun)
    assert not received.endswith(b'"Query"}}')


@pytest.mark.parametrize(("fault", "at_least"), [("endless-body", 5_000_000), ("endless-headers", 1_000_000)])
async def test_an_endless_answer_goes_on_until_the_client_has_enough(
    emulator: Emulator, fault: str, at_least: int
) -> None:
    emulator.fault(fault)
    context = client_context(emulator, own_credential(emulator))
    assert len(await overhear(emulator, context, seconds=5, enough=at_least)) >= at_least
    emulator.clear_faults()
    assert (await ask(emulator, PROBE)).status_code == 200


async def overhear(
    emulator: Emulator, context: ssl.SSLContext, *, seconds: float, enough: int = 2**62
) -> bytes:
    """What arrives within so many seconds."""
    url = httpx.URL(emulator.endpoints.connector_url)
    received = bytearray()
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
            try:
                writer.write(request_bytes())
                while len(received) < enough and (data := await reader.read(2**18)):
                    received += data
            finally:
                writer.transport.abort()
    except TimeoutError:
        pass
    return bytes(received)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (40, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        (42, "SSLV3_ALERT_BAD_CERTIFICATE"),
        (45, "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        (46, "SSLV3_ALERT_CERTIFICATE_UNKNOWN"),
        (48, "TLSV1_ALERT_UNKNOWN_CA"),
        (116, "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    ],
)
@pytest.mark.parametrize("listener", ["mtls", "token"])
async def test_an_alert_of_any_number_answers_the_client_hello(
    emulator: Emulator, number: int, name: str, listener: str
) -> None:
    emulator.fault(f"alert@connect*1:{number}")
    context = client_context(emulator, own_credential(emulator))
    assert await refusal(emulator, context, listener=listener) == name
    assert emulator.requests[-1]["faults"] == ["alert"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset-connect", ConnectionResetError),
        ("close-connect", (ssl.SSLEOFError, ssl.SSLZeroReturnError)),
        ("plain-http", ssl.SSLError),
    ],
)
async def test_a_connection_ends_in_answer_to_the_client_hello(
    emulator: Emulator, fault: str, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    emulator.fault(fault)
    with pytest.raises(error):
        await exchange(emulator, client_context(emulator, own_credential(emulator)))


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("server-cert-unknown-ca", "unable to get local issuer certificate"),
        ("server-cert-expired", "certificate has expired"),
        ("server-cert-wrong-name", "IP address mismatch"),
    ],
)
@pytest.mark.parametrize("listener", ["mtls", "token"])
async def test_a_wrong_server_certificate_is_what_a_client_complains_of(
    emulator: Emulator, fault: str, complaint: str, listener: str
) -> None:
    emulator.fault(f"{fault}*1")
    context = client_context(emulator, own_credential(emulator))
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        await exchange(emulator, context, listener=listener)


async def test_a_listener_that_trusts_another_ca_refuses_with_a_genuine_alert_48(emulator: Emulator) -> None:
    emulator.fault("require-other-ca*1")
    assert (await ask(emulator, PROBE, token=emulator.token().token)).status_code == 200
    context = client_context(emulator, own_credential(emulator))
    assert await refusal(emulator, context) == "TLSV1_ALERT_UNKNOWN_CA"
    assert (await ask(emulator, PROBE)).status_code == 200


@pytest.mark.parametrize(
    ("fault", "alert"),
    [
        ("client-cert-not-yet-valid", "SSLV3_ALERT_BAD_CERTIFICATE"),
        ("client-cert-expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        ("client-cert-unknown", "SSLV3_ALERT_CERTIFICATE_UNKNOWN"),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_good_certificate_is_refused_with_a_genuine_alert(
    emulator: Emulator, fault: str, alert: str, version: ssl.TLSVersion
) -> None:
    emulator.fault(f"{fault}*1")
    assert (await ask(emulator, PROBE, token=emulator.token().token)).status_code == 200
    context = client_context(emulator, own_credential(emulator))
    context.maximum_version = version
    assert await refusal(emulator, context) == alert
    assert (await ask(emulator, PROBE)).status_code == 200


async def test_every_row_of_the_table_is_proven_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    proven = {name.partition(":")[0] for name in (*ANSWERS, *MESSAGES, *CONFIGURATIONS, *CHAINS, *DATES)}
    unproven = [name for name in FAULTS if name not in proven and f'"{name}' not in text]
    assert unproven == []


async def test_every_row_says_what_it_means_and_has_a_good_default(emulator: Emulator) -> None:
    for name, row in FAULTS.items():
        assert row.meaning
        emulator.fault(name)
    assert len(emulator.state()["faults"]) == len(FAULTS)


async def test_the_document_lists_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([^`]*)` \| (\w+) \| (.*) \|$", text, re.MULTILINE)
    names = {row.name if row.default is None else f"{row.name}:{row.default}": row for row in FAULTS.values()}
    assert listed == [(name, row.operation, row.meaning) for name, row in names.items()]
