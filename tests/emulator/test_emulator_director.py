"""The Director behind the certificate-secured listener: who is let in, and what it knows."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from compass_emulator import Emulator, EmulatorOptions
from tests.emulator.talking import (
    CONFIGURATION,
    PROBE,
    REVOKE,
    Credential,
    ask,
    client_context,
    obtain,
    own_credential,
    refusal,
)

pytestmark = pytest.mark.anyio
VIEWER = "{ viewer { id type } }"
TOKEN = """mutation ($id: ID!, $auth: ID) {
    result: requestOneTimeTokenForApplication(id: $id, systemAuthID: $auth) {
    token connectorURL legacyConnectorURL used expiresAt createdAt usedAt raw rawEncoded type } }"""


async def direct(
    emulator: Emulator, document: str, credential: Credential | None = None, **variables: Any
) -> httpx.Response:
    """One call of the Director."""
    context = client_context(emulator, credential or own_credential(emulator))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        content = {"query": document, "variables": variables}
        return await client.post(emulator.endpoints.director_url, json=content)


async def data(emulator: Emulator, document: str, **variables: Any) -> Any:
    return (await direct(emulator, document, **variables)).json()["data"]


async def application_id(emulator: Emulator) -> str:
    return str((await data(emulator, VIEWER))["viewer"]["id"])


async def test_an_application_finds_itself(emulator: Emulator) -> None:
    assert await data(emulator, "{ __typename }") == {"__typename": "Query"}
    viewer = (await data(emulator, VIEWER))["viewer"]
    assert viewer["type"] == "APPLICATION"
    known = {"id": viewer["id"], "name": "emulated-application"}
    found = await data(emulator, "query ($id: ID!) { application(id: $id) { id name } }", id=viewer["id"])
    assert found == {"application": known}
    listed = await data(
        emulator, "{ applications(first: 10) { data { id name } totalCount pageInfo { hasNextPage } } }"
    )
    page = {"data": [known], "totalCount": 1, "pageInfo": {"hasNextPage": False}}
    assert listed == {"applications": page}
    assert await data(emulator, '{ application(id: "unknown") { name } }') == {"application": None}


async def test_the_application_outlives_a_restart(folder: Path) -> None:
    ids = []
    for _ in range(2):
        async with Emulator.start(EmulatorOptions(dir=folder)) as running:
            ids.append(await application_id(running))
    assert ids[0] == ids[1]


async def test_a_runtime_is_a_viewer_of_another_type(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder / "runtime", consumer_type="Runtime")) as running:
        assert (await data(running, VIEWER))["viewer"]["type"] == "RUNTIME"


async def test_a_requested_token_is_a_new_pairing_in_all_forms(emulator: Emulator) -> None:
    owner = await application_id(emulator)
    result = (await data(emulator, TOKEN, id=owner))["result"]
    assert (result["type"], result["used"], result["usedAt"]) == (
        "Application",
        False,
        "0001-01-01T00:00:00Z",
    )
    assert result["connectorURL"] == emulator.endpoints.token_connector_url
    assert json.loads(result["raw"])["token"] == result["token"]
    assert result["legacyConnectorURL"].endswith(f"?token={result['token']}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result["expiresAt"])
    answer = await ask(emulator, CONFIGURATION, token=result["token"])
    subject = answer.json()["data"]["result"]["certificateSigningRequestInfo"]["subject"]
    client_id = subject.rpartition("CN=")[2]
    assert client_id != emulator.issued[0]["client_id"]
    again = (await data(emulator, TOKEN, id=owner, auth=client_id))["result"]["token"]
    answer = await ask(emulator, CONFIGURATION, token=again)
    assert answer.json()["data"]["result"]["certificateSigningRequestInfo"]["subject"] == subject


async def test_an_argument_of_another_type_is_an_error_with_its_position(emulator: Emulator) -> None:
    answer = await direct(emulator, "{ application(id: [1]) { id } }")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {
            "message": "ID cannot represent a non-string and non-integer value: [1]",
            "locations": [{"line": 1, "column": 19}],
            "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"},
        }
    ]


@pytest.mark.parametrize(
    ("variables", "message", "path"),
    [
        ({"n": "5"}, "cannot use string as Int", ["n"]),
        ({"n": 1.5}, "cannot use string as Int", ["n"]),
        ({"f": "x"}, "must be a LabelFilter", ["f", 0]),
        ({"f": [{}]}, "must be defined", ["f", 0, "key"]),
        ({"f": [{"key": None}]}, "cannot be null", ["f", 0, "key"]),
        ({"f": [{"key": "a", "x": 1}]}, "unknown field", ["f", 0, "x"]),
    ],
)
async def test_variables_are_coerced_as_gqlparser_does(
    emulator: Emulator, variables: dict[str, Any], message: str, path: list[Any]
) -> None:
    document = "query ($n: Int, $f: [LabelFilter!]) { applications(first: $n, filter: $f) { totalCount } }"
    [error] = (await direct(emulator, document, **variables)).json()["errors"]
    assert (error["message"], error["path"]) == (message, ["variable", *path])
    good = await direct(emulator, document, n=5, f={"key": "a", "query": None})
    assert good.json()["data"] == {"applications": {"totalCount": 1}}


async def test_a_token_for_an_unknown_application_is_an_error_of_the_director(emulator: Emulator) -> None:
    answer = await direct(emulator, TOKEN, id="unknown")
    assert answer.content == (
        b'{"errors":[{"message":"Object not found [object=application]","path":["result"],'
        b'"extensions":{"error":"NotFound","error_code":20}}],"data":null}'
    )


async def test_the_answers_name_the_certificate_that_called(emulator: Emulator, tmp_path: Path) -> None:
    fresh = await obtain(emulator, tmp_path / "fresh")
    first, second = await direct(emulator, VIEWER), await direct(emulator, VIEWER, fresh)
    named = [answer.headers["compass-emulator-fingerprint"] for answer in (first, second)]
    assert named == [entry["fingerprint_sha256"] for entry in emulator.issued]
    wrong = await direct(emulator, "{ nonsense }")
    assert (wrong.status_code, wrong.headers["compass-emulator-fingerprint"]) == (422, named[0])
    assert "compass-emulator-fingerprint" not in (await ask(emulator, PROBE)).headers


async def test_it_refuses_what_the_connectors_listener_refuses(emulator: Emulator, tmp_path: Path) -> None:
    fresh = await obtain(emulator, tmp_path / "fresh")
    assert (await ask(emulator, REVOKE, credential=fresh)).status_code == 200
    revoked = await direct(emulator, VIEWER, fresh)
    assert (revoked.status_code, revoked.content) == (400, b"")
    assert (await direct(emulator, VIEWER)).status_code == 200
    await emulator.replace_client_ca()
    context = client_context(emulator, own_credential(emulator))
    assert await refusal(emulator, context) == "TLSV1_ALERT_UNKNOWN_CA"


async def test_it_is_not_behind_the_token_secured_listener(emulator: Emulator) -> None:
    url = emulator.endpoints.token_connector_url.replace("/connector/", "/director/")
    async with httpx.AsyncClient(verify=client_context(emulator), trust_env=False) as client:
        answer = await client.post(
            url, json={"query": VIEWER}, headers={"Connector-Token": emulator.token().token}
        )
    assert answer.status_code == 404


async def test_faults_can_be_its_own(emulator: Emulator) -> None:
    emulator.fault("503-text@director*1")
    emulator.fault("429@probe*1")
    assert (await direct(emulator, "{ __typename }")).status_code == 503
    assert (await direct(emulator, "{ __typename }")).status_code == 200
    assert (await ask(emulator, PROBE)).status_code == 429
    assert emulator.counters["calls"]["director"] == 2
    assert emulator.requests[0]["operation"] == "director"
