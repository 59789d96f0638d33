"""Who is let in: one-time tokens, certificates, revocation (contract sections 2 and 3)."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from compass_emulator import Emulator, EmulatorOptions
from compass_emulator.director import Director
from tests.emulator.talking import (
    CONFIGURATION,
    PROBE,
    REVOKE,
    SIGN,
    ask,
    call,
    client_context,
    fields,
    first_client_id,
    make_csr,
    message,
    obtain,
    own_credential,
    save,
)

pytestmark = pytest.mark.anyio


def is_refused(answer: httpx.Response) -> bool:
    kind = answer.headers.get("content-type")
    return (answer.status_code, answer.content, kind) == (400, b"", "application/json;charset=UTF-8")


def new_token(answer: httpx.Response) -> str:
    return str(answer.json()["data"]["result"]["token"]["token"])


def subject_id(answer: httpx.Response) -> str:
    subject = answer.json()["data"]["result"]["certificateSigningRequestInfo"]["subject"]
    return str(subject.rpartition("CN=")[2])


async def test_a_pairing_leads_from_a_token_to_an_accepted_certificate(
    emulator: Emulator, tmp_path: Path
) -> None:
    first = await ask(emulator, CONFIGURATION, token=emulator.endpoints.token)
    signed = await ask(emulator, SIGN, {"csr": make_csr(subject_id(first))}, token=new_token(first))
    credential = save(tmp_path / "paired", fields(signed)["certificateChain"])
    again = await ask(emulator, CONFIGURATION, credential=credential)
    assert subject_id(again) == subject_id(first)


async def test_a_token_works_once(emulator: Emulator) -> None:
    token = emulator.token().token
    assert (await ask(emulator, CONFIGURATION, token=token)).status_code == 200
    assert is_refused(await ask(emulator, CONFIGURATION, token=token))


async def test_a_token_is_burnt_by_whatever_fails_behind_it(emulator: Emulator) -> None:
    for content in ({"query": "query {"}, {"query": PROBE}, {"query": SIGN, "variables": {"csr": "?"}}):
        token = emulator.token().token
        await call(emulator, token=token, json=content)
        assert is_refused(await ask(emulator, CONFIGURATION, token=token))
    assert emulator.counters["tokens_consumed"] == 3


async def test_a_token_may_come_in_a_header_of_any_case_or_in_the_url(emulator: Emulator) -> None:
    by_header = await call(
        emulator, token="", headers={"connector-TOKEN": emulator.token().token}, json={"query": PROBE}
    )
    in_url = await call(emulator, token="", params={"token": emulator.token().token}, json={"query": PROBE})
    assert (by_header.status_code, in_url.status_code) == (200, 200)


async def test_every_configuration_mints_a_token_that_replaces_the_one_before(emulator: Emulator) -> None:
    first = new_token(await ask(emulator, CONFIGURATION))
    unselected = await ask(
        emulator, "query { result: configuration { managementPlaneInfo { directorURL } } }"
    )
    assert unselected.status_code == 200
    assert emulator.counters["tokens_minted"] == 2
    assert is_refused(await ask(emulator, CONFIGURATION, token=first))


async def test_probing_mints_nothing(emulator: Emulator) -> None:
    await ask(emulator, PROBE)
    assert emulator.counters["tokens_minted"] == 0
    assert emulator.counters["calls"]["probe"] == 1


async def test_each_requested_token_is_a_pairing_of_its_own(emulator: Emulator) -> None:
    ids = {subject_id(await ask(emulator, CONFIGURATION, token=emulator.token().token)) for _ in range(3)}
    assert len(ids) == 3


async def test_the_first_call_with_a_certificate_clears_leftover_tokens() -> None:
    changes: list[None] = []
    director = Director(ttl=None, on_change=lambda: changes.append(None))
    auth, now = director.create("Application"), datetime.now(UTC)
    leftover, _ = director.mint(auth, now=now)
    director.certificate_used(auth)
    assert director.consume(leftover, now=now) is None
    later, _ = director.mint(auth, now=now)
    director.certificate_used(auth)
    assert director.consume(later, now=now) is auth
    assert changes


@pytest.mark.parametrize(("consumer_type", "minutes"), [("Application", 5), ("Runtime", 60)])
async def test_a_token_expires_when_the_director_says(
    emulator: Emulator, consumer_type: str, minutes: int
) -> None:
    early, late = (emulator.token(consumer_type=consumer_type) for _ in range(2))
    emulator.set_clock_offset(timedelta(minutes=minutes, seconds=-20))
    assert (await ask(emulator, PROBE, token=early.token)).status_code == 200
    emulator.set_clock_offset(timedelta(minutes=minutes, seconds=1))
    assert is_refused(await ask(emulator, PROBE, token=late.token))


async def test_a_token_comes_in_the_directors_forms(emulator: Emulator) -> None:
    forms = emulator.token(ttl=timedelta(minutes=1))
    assert len(base64.urlsafe_b64decode(forms.token)) == 64
    assert forms.token not in repr(forms)
    assert base64.b64decode(forms.raw_encoded).decode() == forms.raw
    times = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d*[1-9])?Z"
    assert re.fullmatch(
        rf'{{"token":"{forms.token}","connectorURL":"{emulator.endpoints.token_connector_url}","used":false,'
        rf'"expiresAt":"{times}","createdAt":"{times}","usedAt":"0001-01-01T00:00:00Z",'
        r'"type":"Application","scenario_groups":null}',
        forms.raw,
    )
    raw = json.loads(forms.raw)
    lifetime = datetime.fromisoformat(raw["expiresAt"]) - datetime.fromisoformat(raw["createdAt"])
    assert lifetime == timedelta(minutes=1)


async def test_the_legacy_url_is_that_of_an_adapter_where_a_call_burns_the_token(emulator: Emulator) -> None:
    forms = emulator.token()
    origin = emulator.endpoints.token_connector_url.removesuffix("/connector/graphql")
    assert forms.legacy_url == f"{origin}/v1/applications/signingRequests/info?token={forms.token}"
    async with httpx.AsyncClient(verify=client_context(emulator), trust_env=False) as client:
        answer = await client.post(forms.legacy_url, json={"query": CONFIGURATION})
        unknown = await client.post(forms.legacy_url.replace("token=", "token=x"), json={})
    assert (answer.status_code, answer.content) == (unknown.status_code, unknown.content) == (405, b"")
    assert is_refused(await ask(emulator, PROBE, token=forms.token))
    assert emulator.counters["tokens_consumed"] == 1
    assert [entry["operation"] for entry in emulator.requests] == ["adapter", "adapter", "probe"]


async def test_the_adapter_is_not_behind_the_certificate_secured_listener(emulator: Emulator) -> None:
    url = emulator.endpoints.connector_url.replace(
        "connector/graphql", "v1/applications/signingRequests/info"
    )
    context = client_context(emulator, own_credential(emulator))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        assert (await client.post(url, json={})).status_code == 404


async def test_a_runtime_has_no_legacy_url(emulator: Emulator) -> None:
    assert "legacy_url" not in emulator.token(consumer_type="Runtime").as_dict()


async def test_an_integration_system_gets_no_configuration(emulator: Emulator) -> None:
    forms = emulator.token(consumer_type="Integration System")
    answer = await ask(emulator, CONFIGURATION, token=forms.token)
    assert message(answer).endswith("No token generation for consumer type Integration System")


async def test_the_token_is_ignored_at_the_certificate_secured_listener(emulator: Emulator) -> None:
    token = emulator.token().token
    answer = await ask(emulator, CONFIGURATION, headers={"Connector-Token": token})
    assert subject_id(answer) == first_client_id(emulator)
    assert (await ask(emulator, PROBE, token=token)).status_code == 200


async def test_a_revoked_certificate_passes_tls_and_gets_the_empty_400(emulator: Emulator) -> None:
    assert (await ask(emulator, REVOKE)).content == b'{"data":{"result":true}}'
    for document in (PROBE, CONFIGURATION, REVOKE):
        assert is_refused(await ask(emulator, document))
    assert emulator.issued[0]["revoked"] is True
    assert emulator.counters["handshakes_failed"] == 0


async def test_revocation_concerns_the_presented_certificate_only(emulator: Emulator, tmp_path: Path) -> None:
    new = await obtain(emulator, tmp_path / "new")
    await ask(emulator, REVOKE, credential=own_credential(emulator))
    assert is_refused(await ask(emulator, PROBE))
    assert (await ask(emulator, PROBE, credential=new)).status_code == 200


async def test_revoking_needs_a_certificate(emulator: Emulator) -> None:
    answer = await ask(emulator, REVOKE, token=emulator.token().token)
    assert message(answer).startswith("Failed to authenticate with certificate: ")


async def test_a_revocation_outlives_a_restart(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder)) as emulator:
        old = save(folder / "old", Path(emulator.endpoints.client_certificate_file).read_bytes())
        (folder / "old" / "tls.key").write_bytes(Path(emulator.endpoints.client_key_file).read_bytes())
        await ask(emulator, REVOKE)
    async with Emulator.start(EmulatorOptions(dir=folder)) as emulator:
        assert is_refused(await ask(emulator, PROBE, credential=old))
        assert (await ask(emulator, PROBE)).status_code == 200, "a new first credential was issued"


async def test_a_forgotten_client_gets_the_empty_400(emulator: Emulator) -> None:
    assert emulator.forget(first_client_id(emulator)) is True
    assert is_refused(await ask(emulator, PROBE))
    assert emulator.forget("nobody") is False


async def test_a_certificate_with_former_subject_constants_has_no_identity(emulator: Emulator) -> None:
    emulator.set_subject("O=Other,OU=OrgUnit,L=locality,ST=province,C=DE")
    assert is_refused(await ask(emulator, PROBE))


async def test_unused_tokens_and_pairings_outlive_a_restart(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder)) as emulator:
        token = emulator.token().token
        paired = await ask(emulator, CONFIGURATION, token=emulator.token().token)
    async with Emulator.start(EmulatorOptions(dir=folder)) as emulator:
        assert (await ask(emulator, PROBE, token=token)).status_code == 200
        answer = await ask(emulator, SIGN, {"csr": make_csr(subject_id(paired))}, token=new_token(paired))
        assert "data" in answer.json()
