"""The control endpoint: plain JSON for whoever directs the play."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from compass_emulator import Emulator
from tests.emulator.talking import (
    CONFIGURATION,
    PROBE,
    SIGN,
    ask,
    chain,
    client_context,
    first_client_id,
    make_csr,
    own_credential,
    refusal,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def control(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=emulator.endpoints.control_url, trust_env=False) as client:
        yield client


async def test_the_state_counts_and_lists_without_secrets(
    emulator: Emulator, control: httpx.AsyncClient
) -> None:
    await ask(emulator, CONFIGURATION, headers={"x-correlation-id": "abc"})
    state = (await control.get("/")).json()
    assert state["counters"]["calls"] == {
        "configuration": 1,
        "sign": 0,
        "revoke": 0,
        "probe": 0,
        "adapter": 0,
        "director": 0,
        "other": 0,
        "connect": 0,
    }
    assert state["counters"]["tokens_minted"] == 1
    assert state["requests"][0]["headers"] == {"x-correlation-id": "abc"}
    assert state["issued"][0]["client_id"] == first_client_id(emulator)
    assert state["faults"] == []
    assert emulator.endpoints.token not in str(state)


async def test_a_token_is_made_in_all_its_forms(emulator: Emulator, control: httpx.AsyncClient) -> None:
    made = (await control.post("/tokens", json={"ttl": "2m"})).json()
    assert set(made) == {
        "token",
        "client_id",
        "connector_url",
        "raw",
        "raw_encoded",
        "legacy_url",
        "expires_at",
    }
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=100) < left <= timedelta(minutes=2)
    assert (await ask(emulator, PROBE, token=made["token"])).status_code == 200


async def test_curl_needs_no_content_type_and_no_body(control: httpx.AsyncClient) -> None:
    assert (await control.post("/tokens")).status_code == 200
    answer = await control.post(
        "/faults", content=b'{"fault": "429"}', headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 200


async def test_faults_are_set_listed_and_cleared(emulator: Emulator, control: httpx.AsyncClient) -> None:
    answer = await control.post("/faults", json={"fault": "empty-400@sign*3"})
    assert answer.json()["faults"][0]["fault"] == "empty-400@sign*3"
    assert answer.json()["faults"][0]["left"] == 3
    await control.post("/faults", json={"fault": "502-empty"})
    assert (await ask(emulator, PROBE)).status_code == 502
    assert (await control.delete("/faults")).json() == {"faults": []}
    assert (await ask(emulator, PROBE)).status_code == 200


async def test_chaos_can_be_turned_on_and_off(emulator: Emulator, control: httpx.AsyncClient) -> None:
    assert (await control.post("/chaos", json={"rate": 1, "seed": 7})).json() == {"rate": 1, "seed": 7}
    assert emulator.state()["chaos"] == 1
    await control.delete("/faults")
    assert emulator.state()["chaos"] == 0


async def test_a_certificate_is_revoked_by_fingerprint(
    emulator: Emulator, control: httpx.AsyncClient
) -> None:
    await control.post("/revoke", json={"fingerprint": emulator.issued[0]["fingerprint_sha256"].upper()})
    assert (await ask(emulator, PROBE)).status_code == 400


async def test_a_system_auth_is_forgotten(emulator: Emulator, control: httpx.AsyncClient) -> None:
    body = {"client_id": first_client_id(emulator)}
    assert (await control.post("/forget", json=body)).json() == {"forgotten": True}
    assert (await ask(emulator, PROBE)).status_code == 400
    assert (await control.post("/forget", json=body)).json() == {"forgotten": False}


async def test_the_clock_moves_both_ways(emulator: Emulator, control: httpx.AsyncClient) -> None:
    for offset, seconds in (("-2m", -120.0), ("2d", 172_800.0), (5, 5.0)):
        assert (await control.post("/clock", json={"offset": offset})).json() == {"offset_seconds": seconds}
        now = datetime.fromisoformat(emulator.state()["clock"]["now"])
        assert abs(now - datetime.now(UTC) - timedelta(seconds=seconds)) < timedelta(seconds=5)


async def test_lifetime_and_subject_change_what_is_signed(
    emulator: Emulator, control: httpx.AsyncClient
) -> None:
    await control.post("/lifetime", json={"lifetime": "60s"})
    leaf = chain(await ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))}))[0]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(seconds=60)
    await control.post("/subject", json={"subject": "O=Acme,OU=OrgUnit,L=locality,ST=province,C=DE"})
    assert emulator.state()["subject"].startswith("O=Acme,")


async def test_a_replaced_ca_refuses_old_certificates(emulator: Emulator, control: httpx.AsyncClient) -> None:
    assert (await control.post("/client-ca")).json() == {"replaced": True}
    context = client_context(emulator, own_credential(emulator))
    assert await refusal(emulator, context) == "TLSV1_ALERT_UNKNOWN_CA"


async def test_an_outage_refuses_connections_drops_the_open_ones_and_ends(
    emulator: Emulator, control: httpx.AsyncClient
) -> None:
    context = client_context(emulator, own_credential(emulator))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        url = emulator.endpoints.connector_url
        assert (await client.post(url, json={"query": PROBE})).status_code == 200
        assert (await control.post("/outage", json={"seconds": 1})).json() == {"seconds": 1.0}
        assert emulator.state()["in_outage"] is True
        for _ in range(2):
            with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
                await client.post(url, json={"query": PROBE})
        async with asyncio.timeout(10):
            while emulator.state()["in_outage"]:
                await asyncio.sleep(0.05)
        assert (await client.post(url, json={"query": PROBE})).status_code == 200


async def test_an_outage_hangs_up_on_hanging_calls(emulator: Emulator, control: httpx.AsyncClient) -> None:
    emulator.fault("hang-headers")
    hanging = asyncio.create_task(ask(emulator, PROBE))
    await asyncio.sleep(0.2)
    await control.post("/outage", json={"seconds": "100ms"})
    with pytest.raises(httpx.TransportError):
        await hanging


async def test_counters_are_reset(emulator: Emulator, control: httpx.AsyncClient) -> None:
    await ask(emulator, PROBE)
    await control.post("/reset-counters")
    state = (await control.get("/")).json()
    assert (state["counters"]["calls"]["probe"], state["requests"]) == (0, [])


@pytest.mark.parametrize(
    ("path", "body", "complaint"),
    [
        ("/faults", {"fault": "nonsense"}, "there is no fault"),
        ("/faults", {}, "lacks 'fault'"),
        ("/faults", ["x"], "not a JSON object"),
        ("/tokens", {"ttl": "soon"}, "not a duration"),
        ("/tokens", {"consumer_type": "Tourist"}, "one of Application"),
        ("/clock", {"offset": True}, "offset is not a text"),
        ("/lifetime", {"lifetime": "0s"}, "a second at least"),
        ("/subject", {"subject": "O=x"}, "the subject has no"),
        ("/chaos", {"rate": 2}, "from 0 to 1"),
        ("/chaos", {"rate": "x"}, "from 0 to 1"),
        ("/chaos", {"rate": 1, "seed": "x"}, "seed is a whole number"),
        ("/outage", {"seconds": "-1"}, "negative"),
    ],
)
async def test_a_bad_body_is_refused_with_a_reason(
    control: httpx.AsyncClient, path: str, body: object, complaint: str
) -> None:
    answer = await control.post(path, json=body)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]


async def test_unknown_paths_methods_and_web_pages_are_refused(control: httpx.AsyncClient) -> None:
    assert (await control.get("/nowhere")).status_code == 404
    wrong = await control.get("/faults")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST, DELETE")
    assert (await control.post("/tokens", headers={"Origin": "https://evil.example"})).status_code == 403
    assert (await control.post("/faults", content=b"{")).status_code == 400
    assert (await control.get("/healthz")).json() == {"status": "ok"}
