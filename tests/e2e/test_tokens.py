"""What becomes of a one-time token: a real sidecar, and a Token-Secured Connector that follows a script."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.authority import Authority
from tests.support.processes import SidecarProcess
from tests.support.scripted_server import Answer, ScriptedServer, reply, server_context

TOKEN = "t0ken-" + "A" * 82
BEARER = {"Authorization": "Bearer sixteen-characters-and-more"}
ADAPTER = "/v1/applications/signingRequests/info"
EMPTY_400 = reply(status=400)

Door = Callable[..., ScriptedServer]
Begin = Callable[..., SidecarProcess]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def authority() -> Authority:
    return Authority.create()


@pytest.fixture
def door(stack: ExitStack, authority: Authority) -> Door:
    """Open a token-secured door that gives these answers; the last one repeats."""

    def open_door(*answers: Answer, path: str = "/connector/graphql") -> ScriptedServer:
        return stack.enter_context(
            ScriptedServer(server_context(authority, "127.0.0.1"), *answers, path=path)
        )

    return open_door


@pytest.fixture
def begin(stack: ExitStack, authority: Authority, tmp_path: Path) -> Begin:
    """Start a sidecar that has nothing yet."""
    (tmp_path / "ca.pem").write_bytes(authority.pem)

    def start(**variables: str) -> SidecarProcess:
        environment = {
            "COMPASS_CONNECTOR_CA_FILE": str(tmp_path / "ca.pem"),
            "COMPASS_STORE_DIR": str(tmp_path / "store"),
            "COMPASS_API_TOKEN": "sixteen-characters-and-more",
            **{f"COMPASS_{name}": value for name, value in variables.items()},
        }
        sidecar = SidecarProcess(environment, log=tmp_path / "log")
        stack.callback(sidecar.close)
        return sidecar.started()

    return start


def connect(sidecar: SidecarProcess, token: str, url: str | None = None) -> httpx.Response:
    body = {"token": token} | ({"connector_url": url} if url else {})
    return sidecar.client.post("/connect", json=body, headers=BEARER, timeout=120)


def test_the_director_s_legacy_url_never_gets_the_token(begin: Begin, door: Door) -> None:
    adapter, connector = door(EMPTY_400, path=ADAPTER), door(reply(status=406))
    sidecar = begin()
    forms = {
        "alone": connect(sidecar, f"{adapter.url}?token={TOKEN}"),
        "beside a token": connect(sidecar, TOKEN, adapter.url),
        "as JSON": connect(sidecar, json.dumps({"token": TOKEN, "connectorURL": adapter.url})),
    }
    for form, answer in forms.items():
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), form
        assert TOKEN not in answer.text
    connect(sidecar, f"{adapter.url}?token={TOKEN}", connector.url)
    assert [each.headers["connector-token"] for each in connector.requests] == [TOKEN]
    assert adapter.connections == 0


def test_a_token_file_with_a_byte_order_mark_and_raw_json_is_sent_as_it_is(
    begin: Begin, door: Door, tmp_path: Path
) -> None:
    connector = door(reply(status=406))
    raw = json.dumps({"token": TOKEN, "connectorURL": connector.url, "used": False})
    (tmp_path / "token").write_text(f"\ufeff{raw}\n", encoding="utf-8")
    sidecar = begin()
    done = sidecar.command("connect", "--token-file", str(tmp_path / "token"), "--json")
    assert json.loads(done.stdout)["code"] == "connector-protocol"
    assert [each.headers["connector-token"] for each in connector.requests] == [TOKEN]


def test_a_quoted_token_is_refused_and_named_as_such(begin: Begin, door: Door) -> None:
    connector = door(EMPTY_400)
    answer = connect(begin(), f'"{TOKEN}"', connector.url)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
    assert "quotation mark" in answer.json()["detail"]
    assert connector.connections == 0


def last_error(sidecar: SidecarProcess) -> dict[str, Any]:
    return sidecar.status()["renewal"]["last_error"] or {}


def test_a_token_of_unknown_fate_is_presented_again_while_the_caller_waits_or_not(
    begin: Begin, door: Door
) -> None:
    connector = door(EMPTY_400)
    sidecar = begin()
    body = {"token": TOKEN, "connector_url": connector.url}
    impatient = sidecar.client.post("/connect", json=body, headers=BEARER | {"Prefer": "respond-async"})
    assert (impatient.status_code, impatient.headers["Location"]) == (202, "/status")
    assert connect(sidecar, "another", connector.url).json()["code"] == "busy"
    patient = connect(sidecar, TOKEN, connector.url)  # joins
    problem = patient.json()
    assert (patient.status_code, problem["code"]) == (502, "connector-unauthenticated")
    assert problem["retryable"] is False
    assert [each.headers["connector-token"] for each in connector.requests] == [TOKEN] * 4
    assert last_error(sidecar)["retryable"] is False
    said = [each["event"] for each in sidecar.status()["events"]]
    assert said.count("token-retried") == 3
    assert {"attempt-failed", "connect-needed"} <= set(said)


def test_a_token_that_could_not_be_sent_is_left_and_one_that_is_spent_is_never_sent_again(
    begin: Begin, door: Door
) -> None:
    connector = door(reply(status=429), reply(status=502))
    sidecar = begin()
    limited, burnt, refused = (connect(sidecar, TOKEN, connector.url) for _ in range(3))
    assert (limited.status_code, limited.json()["retryable"]) == (503, True)
    assert (burnt.status_code, burnt.json()["retryable"]) == (503, False)
    assert "spent" in burnt.json()["detail"]
    assert (refused.status_code, refused.json()["code"]) == (502, "connector-unauthenticated")
    assert len(connector.requests) == 2
    assert TOKEN not in burnt.text + refused.text + sidecar.client.get("/status").text
