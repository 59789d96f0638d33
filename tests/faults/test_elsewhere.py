"""Faults of the way to the Connector, and what an emulator's fault cannot show at one door."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.conftest import OpenStage
from tests.faults.rows import PROTOCOL, REFUSED, TIMEOUT, UNAUTHENTICATED, UNAVAILABLE, Outcome
from tests.faults.stage import DRAW, Stage
from tests.support.processes import EmulatorProcess

pytestmark = pytest.mark.anyio
GENUINE = {
    "client-cert-not-yet-valid": "bad certificate",
    "client-cert-expired": "certificate expired",
    "client-cert-unknown": "certificate unknown",
    "require-other-ca": "unknown ca",
}


@pytest.fixture(scope="module")
def old_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """A Connector that speaks TLS 1.2 at most."""
    made = EmulatorProcess(tmp_path_factory.mktemp("emulator"), "--tls-max", "1.2")
    yield made
    made.stop()


async def check(stage: Stage, outcome: Outcome) -> str:
    """One renewal that fails so, with the old credential in use; the detail."""
    served = await stage.served()
    answer = await stage.renew()
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["retryable"]) == (
        outcome.status,
        outcome.code,
        outcome.retryable,
    )
    assert await stage.served() == served
    assert outcome.first_wait is not None
    assert stage.wait == outcome.first_wait * DRAW
    return str(problem["detail"])


@pytest.mark.parametrize(
    "url", ["https://nowhere.invalid/connector/graphql", "https://127.0.0.1:1/connector/graphql"]
)
async def test_a_name_that_does_not_resolve_or_a_closed_port_is_unavailable(
    open_stage: OpenStage, url: str
) -> None:
    await check(await open_stage(url=url), UNAVAILABLE)


async def test_a_host_that_does_not_answer_a_connection_is_a_timeout(open_stage: OpenStage) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # the kernel lets no further one in, and does not say so
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        await check(await open_stage(url=f"https://127.0.0.1:{port}/", timeout=0.3), TIMEOUT)


async def test_a_wrong_path_is_unavailable(open_stage: OpenStage, emulator: EmulatorProcess) -> None:
    await check(await open_stage(url=emulator.endpoints["connector_url"] + "/"), REFUSED)


async def test_nobody_is_called_because_of_a_redirect(
    open_stage: OpenStage, emulator: EmulatorProcess
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        emulator.fault(f"redirect:https://127.0.0.1:{elsewhere.getsockname()[1]}/")
        stage = await open_stage()
        await check(stage, PROTOCOL)
        assert (await stage.connect()).json()["code"] == "connector-protocol"
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


@pytest.mark.parametrize("fault", GENUINE)
@pytest.mark.parametrize("place", ["configuration", "probe"])
async def test_a_refused_certificate_is_told_by_its_alert_in_tls_1_2_too(
    open_stage: OpenStage, old_tls: EmulatorProcess, fault: str, place: str
) -> None:
    stage = await open_stage(connector=old_tls)
    stage.connector.arm(place, lambda: old_tls.fault(fault))  # type: ignore[attr-defined]
    try:
        assert f"alert `{GENUINE[fault]}`" in await check(stage, UNAUTHENTICATED)
    finally:
        old_tls.heal()
    assert (await stage.renew()).status_code == 200


async def test_a_token_at_the_wrong_door_is_told_by_alert_116_or_40(
    open_stage: OpenStage, emulator: EmulatorProcess, old_tls: EmulatorProcess
) -> None:
    for connector, alert in ((emulator, "certificate required"), (old_tls, "handshake failure")):
        stage = await open_stage(connector=connector)
        body = {"token": "x" * 88, "connector_url": connector.endpoints["connector_url"]}
        answer = await stage.api.post("/connect", json=body)
        assert answer.status_code == 502
        assert f"alert `{alert}`" in answer.json()["detail"]


@pytest.mark.parametrize(
    "fault", ["reset-after-acting", "close-after-acting", "half-answer", "503-text", "not-json"]
)
async def test_a_first_connection_whose_signature_was_lost_goes_on_with_its_second_token(
    open_stage: OpenStage, emulator: EmulatorProcess, fault: str
) -> None:
    stage = await open_stage()
    before = stage.fingerprint
    stage.connector.arm("sign", lambda: emulator.fault(f"{fault}@sign"))  # type: ignore[attr-defined]
    assert (await stage.connect()).status_code in (502, 503)
    assert stage.fingerprint == before
    await asyncio.to_thread(emulator.heal)
    answer = await stage.renew()
    if fault == "503-text":  # at the edge: the token was not looked at
        assert answer.status_code == 200
        assert stage.fingerprint != before
    else:  # the contract's exception: the second token is burnt, and a new one is needed
        assert (answer.status_code, answer.json()["code"]) == (409, "not-connected")
        assert stage.fingerprint == before
        assert (await stage.renew()).status_code == 200


async def test_the_store_has_the_credential_that_is_served(open_stage: OpenStage, tmp_path: Path) -> None:
    stage = await open_stage()
    assert (await stage.renew()).status_code == 200
    assert (tmp_path / "store0" / "current" / "tls.crt").read_bytes() == await stage.served()
