"""What the Connector says on the wire (connector-contract.md, sections 1 and 2)."""

import hashlib
import json
import re
from pathlib import Path

import httpx
import pytest

from compass_emulator import Emulator, EmulatorOptions
from compass_emulator.subjects import SubjectConstants
from tests.emulator.talking import (
    CONFIGURATION,
    PROBE,
    REVOKE,
    SIGN,
    ask,
    call,
    client_context,
    exchange,
    first_client_id,
    make_csr,
    message,
    own_credential,
    request_bytes,
)

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}


async def test_configuration_fills_all_three_objects(emulator: Emulator) -> None:
    answer = await ask(emulator, CONFIGURATION)
    result = answer.json()["data"]["result"]
    client_id = first_client_id(emulator)
    assert result["certificateSigningRequestInfo"] == {
        "subject": f"O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN={client_id}",
        "keyAlgorithm": "rsa2048",
    }
    assert result["managementPlaneInfo"] == {
        "directorURL": emulator.endpoints.director_url,
        "certificateSecuredConnectorURL": emulator.endpoints.connector_url,
    }
    assert re.fullmatch(r"[\w-]{86}==", result["token"]["token"])


async def test_an_answer_is_compact_json_with_a_date_and_no_echo_of_ids(emulator: Emulator) -> None:
    answer = await ask(emulator, PROBE, headers={"x-request-id": "abc", "x-correlation-id": "def"})
    assert answer.content == b'{"data":{"__typename":"Query"}}'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["date"].endswith(" GMT")
    assert "x-request-id" not in answer.headers


async def test_request_ids_are_in_the_record_and_tokens_are_not(emulator: Emulator) -> None:
    await ask(emulator, PROBE, headers={"x-request-id": "r-1", "x-correlation-id": "c-1"})
    token = emulator.token().token
    await ask(emulator, CONFIGURATION, token=token)
    [probe, configuration] = emulator.requests
    assert probe["headers"] == {"x-request-id": "r-1", "x-correlation-id": "c-1"}
    assert probe["peer_fingerprint_sha256"] == emulator.issued[0]["fingerprint_sha256"]
    assert (configuration["operation"], configuration["outcome"]) == ("configuration", "ok")
    assert token not in json.dumps(emulator.state())


async def test_a_signature_arrives_in_chunks_as_go_sends_what_exceeds_its_buffer(emulator: Emulator) -> None:
    answer = await ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))})
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers


async def test_an_error_carries_the_alias_and_comes_before_the_data(emulator: Emulator) -> None:
    answer = await ask(
        emulator, 'mutation { mine: signCertificateSigningRequest(csr: "?") { caCertificate } }'
    )
    assert answer.content == (
        b'{"errors":[{"message":"Error while decoding Certificate Signing Request: '
        b'Error while parsing base64 content. Incorrect value provided.","path":["mine"]}],"data":null}'
    )


@pytest.mark.parametrize(
    "document", ["{ configuration { token { token } } }", "{ configuration() { token { token } } }"]
)
async def test_configuration_parses_with_and_without_parentheses(emulator: Emulator, document: str) -> None:
    assert (await ask(emulator, document)).json()["data"]["configuration"]["token"]["token"]


async def test_introspection_is_on(emulator: Emulator) -> None:
    answer = await ask(emulator, "{ __schema { mutationType { fields { name } } } }")
    names = [one["name"] for one in answer.json()["data"]["__schema"]["mutationType"]["fields"]]
    assert names == ["signCertificateSigningRequest", "revokeCertificate"]


@pytest.mark.parametrize("path", ["/connector/graphql/", "/connector", "/", "/healthz"])
async def test_oathkeeper_has_a_rule_for_the_exact_path_alone(emulator: Emulator, path: str) -> None:
    url = emulator.endpoints.connector_url.removesuffix("/connector/graphql") + path
    context = client_context(emulator, own_credential(emulator))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        answer = await client.post(url, json={"query": PROBE})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == 404
    assert answer.json()["error"]["status"] == "Not Found"


async def test_queries_work_by_get_and_mutations_do_not(emulator: Emulator) -> None:
    assert (await call(emulator, "GET", params={"query": PROBE})).json() == {"data": {"__typename": "Query"}}
    answer = await call(emulator, "GET", params={"query": REVOKE})
    assert answer.status_code == 406
    assert answer.json() == {
        "errors": [{"message": "GET requests only allow query operations"}],
        "data": None,
    }


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_oathkeeper_has_no_rule_for_another_method(emulator: Emulator, method: str) -> None:
    answer = await call(emulator, method, headers=JSON, content=json.dumps({"query": PROBE}))
    assert answer.status_code == 404


@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {**JSON, "Upgrade": "websocket"}])
async def test_another_content_type_or_protocol_is_not_supported(
    emulator: Emulator, headers: dict[str, str]
) -> None:
    answer = await call(emulator, headers=headers, content=json.dumps({"query": PROBE}))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json;charset=UTF-8"
    assert answer.content == b'{"errors":[{"message":"transport not supported"}],"data":null}'


async def test_a_charset_after_the_content_type_is_fine(emulator: Emulator) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert (await call(emulator, headers=headers, content=json.dumps({"query": PROBE}))).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"query { __typename }",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        b'{"query": 5}',
        b'{"query": null}',
        b'{"query": "{ __typename }"} x',
        b'\xef\xbb\xbf{"query": "{ __typename }"}',
    ],
)
async def test_what_the_gateway_cannot_audit_gets_its_empty_502(emulator: Emulator, body: bytes) -> None:
    answer = await call(emulator, headers=JSON, content=body)
    assert (answer.status_code, answer.content) == (502, b"")


async def test_without_the_gateway_the_connector_quotes_a_body_that_it_cannot_read(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder, gateway=False)) as running:
        answer = await call(running, headers=JSON, content=b'{"query": 5, "secret": "<\xff>"}')
    assert answer.status_code == 400
    assert answer.content == (
        b'{"errors":[{"message":"json request body could not be decoded: json: cannot unmarshal number into '
        b"Go struct field RawParams.query of type string body:"
        b'{\\"query\\": 5, \\"secret\\": \\"\\u003c\\ufffd\\u003e\\"}"}],"data":null}'
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": "query {"}, "GRAPHQL_PARSE_FAILED"),
        (
            {"query": 'mutation { signCertificateSigningRequest(csr: "a\nb") { caCertificate } }'},
            "GRAPHQL_PARSE_FAILED",
        ),
        ({"query": "{ a" * 5_000}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "query { nonsense }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": ""}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": SIGN}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": SIGN, "variables": {"csr": True}}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "query A { __typename }", "operationName": "B"}, "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_a_bad_document_or_variable_is_a_422_with_a_code(
    emulator: Emulator, body: dict[str, object], code: str
) -> None:
    answer = await call(emulator, json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["extensions"] == {"code": code}
    assert answer.json()["data"] is None


async def test_a_body_over_two_mebibytes_is_too_large(emulator: Emulator) -> None:
    answer = await call(emulator, json={"query": PROBE, "variables": {"padding": "x" * 2_097_152}})
    assert (answer.status_code, answer.text) == (413, "Payload Too Large")
    assert (await call(emulator, json={"query": PROBE, "x": "x" * 2_000_000})).status_code == 200


async def test_whoever_has_no_identity_gets_an_empty_400_whatever_they_ask(emulator: Emulator) -> None:
    for document in (PROBE, CONFIGURATION, "query {"):
        answer = await ask(emulator, document, token="unknown")
        assert (answer.status_code, answer.content) == (400, b"")
        assert answer.headers["content-type"] == "application/json;charset=UTF-8"


async def test_every_error_of_a_document_is_reported(emulator: Emulator) -> None:
    answer = await call(emulator, json={"query": f"{{ {'nope ' * 150}}}"})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 150


async def test_a_deferred_fragment_is_answered_at_once(emulator: Emulator) -> None:
    answer = await call(emulator, json={"query": "{ ... @defer { __typename } }"})
    assert answer.json() == {"data": {"__typename": "Query"}}


async def test_two_results_in_one_document_share_one_fate(emulator: Emulator) -> None:
    both = 'mutation { a: revokeCertificate b: signCertificateSigningRequest(csr: "?") { caCertificate } }'
    assert message(await ask(emulator, both)).startswith("Error while decoding")
    assert emulator.counters["revocations"] == 1


async def test_a_query_can_be_named_by_its_hash_once_it_was_sent_with_it(emulator: Emulator) -> None:
    digest = hashlib.sha256(PROBE.encode()).hexdigest()
    persisted = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest}}}
    assert "PersistedQueryNotFound" in (await call(emulator, json=persisted)).text
    assert (await call(emulator, json=persisted | {"query": PROBE})).json()["data"]
    assert (await call(emulator, json=persisted)).json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize(
    ("parts", "message_"),
    [
        ([], "first part must be operations"),
        ([("operations", "{")], "operations form field could not be decoded"),
        ([("operations", json.dumps({"query": PROBE}))], "second part must be map"),
        (
            [("operations", json.dumps({"query": PROBE})), ("map", "[]")],
            "map form field could not be decoded",
        ),
        (
            [("operations", json.dumps({"query": PROBE})), ("map", '{"0": []}')],
            "failed to get key 0 from form",
        ),
    ],
)
async def test_a_form_is_read_part_by_part(folder: Path, parts: list[tuple[str, str]], message_: str) -> None:
    form = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{content}\r\n'
        for name, content in parts
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with Emulator.start(EmulatorOptions(dir=folder, gateway=False)) as running:
        answer = await call(running, headers=headers, content=f"{form}--x--\r\n")
    assert (answer.status_code, answer.json()["errors"][0]["message"]) == (422, message_)


async def test_several_requests_share_a_connection_even_when_sent_at_once(emulator: Emulator) -> None:
    context = client_context(emulator, own_credential(emulator))
    last = request_bytes().replace(b"Host:", b"Connection: close\r\nHost:")
    answer = await exchange(emulator, context, request=request_bytes() * 3 + last)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert emulator.counters["connections_mtls"] == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"NONSENSE\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, b"431")],
)
async def test_what_is_not_http_is_refused(emulator: Emulator, sent: bytes, status: bytes) -> None:
    answer = await exchange(emulator, client_context(emulator, own_credential(emulator)), request=sent)
    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_client_that_expects_100_continue_gets_it(emulator: Emulator) -> None:
    context = client_context(emulator, own_credential(emulator))
    asking = request_bytes().replace(b"Host:", b"Expect: 100-continue\r\nConnection: close\r\nHost:")
    head, _, body = asking.partition(b"\r\n\r\n")
    answer = await exchange(emulator, context, request=head + b"\r\n\r\n" + body)
    assert b"HTTP/1.1 200 OK" in answer


async def test_the_operator_decides_subject_and_director_url(folder: Path) -> None:
    subject = SubjectConstants.parse("C=PL,ST=State,L=Locality,O=Acme, Inc,OU=R&D")
    options = EmulatorOptions(dir=folder, subject=subject, director_url="https://director.example/graphql")
    async with Emulator.start(options) as running:
        result = (await ask(running, CONFIGURATION)).json()["data"]["result"]
    assert result["certificateSigningRequestInfo"]["subject"].startswith(
        "O=Acme, Inc,OU=R&D,L=Locality,ST=State,C=PL,CN="
    )
    assert result["managementPlaneInfo"]["directorURL"] == "https://director.example/graphql"
