"""A store that 0.1.0 wrote is taken over, and 0.1.0 can take over what is written now."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from compass_sidecar.core.csr import make_csr
from compass_sidecar.core.policy import Policy
from compass_sidecar.core.status import State, state_of
from compass_sidecar.errors import ConnectorUnavailable
from tests.support import first_version
from tests.support.authority import LIFETIME, name, rsa_key
from tests.support.connector import SUBJECT, URL
from tests.support.house import House

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "store", policy=Policy(jitter_ratio=0))
    yield made
    made.close()


def text(moment: datetime) -> str:
    return moment.isoformat()


async def take_over(house: House, *, age: float, pending: dict[str, Any] | None = None, **others: Any) -> str:
    """The fingerprint of what 0.1.0 left, in a sidecar that has just started."""
    house.close()
    shutil.rmtree(house.directory)
    now = house.clock.now()
    credential = house.authority.credential(not_before=now - LIFETIME * age)
    if pending is not None:
        pending = {**pending, "begun_by": credential.chain.fingerprint}
    first_version.write(
        house.directory,
        key=credential.key_pem,
        chain=credential.chain.pem,
        ca=credential.chain.ca_pem or b"",
        pending=pending,
        **{
            "origin": "renew",
            "connector_url": URL,
            "activated_at": text(now - LIFETIME * age),
            "proven_at": text(now - LIFETIME * age),
            **others,
        },
    )
    house.open()
    await house.scheduler.start()
    return credential.chain.fingerprint


def under_way(house: House, **others: Any) -> dict[str, Any]:
    key = rsa_key(3)
    return {
        "origin": "renew",
        "begun_at": text(house.clock.now() - 5 * SECOND),
        "sign_url": URL,
        "connector_url": URL,
        "director_url": None,
        "subject": SUBJECT,
        "key_pem": house.authority.credential(number=3).key_pem.decode(),
        "csr_pem": make_csr(key, name()).decode(),
        "token": None,
        "signed": None,
        **others,
    }


async def test_its_credential_is_served_and_renewed_in_its_time(house: House) -> None:
    fingerprint = await take_over(house, age=0.5)
    assert house.fingerprint == fingerprint
    assert house.store.instance_id == first_version.INSTANCE
    assert house.store.token_used("a" * 64)
    assert state_of(house.scheduler.status, house.clock.now())[0] is State.CONNECTED
    await house.run_for(LIFETIME * 0.16)
    assert house.connector.calls["sign"] == 0
    await house.run_for(LIFETIME * 0.02)
    assert house.connector.calls["sign"] == 1


async def test_one_that_is_due_is_renewed_at_once(house: House) -> None:
    await take_over(house, age=0.7, activated_at=text(house.clock.now() - LIFETIME * 0.69))
    await house.run_for(SECOND)
    assert house.connector.calls["sign"] == 1


async def test_one_that_was_due_when_it_came_waits_from_the_start(house: House) -> None:
    await take_over(house, age=0.7, activated_at=text(house.clock.now() - SECOND))
    await house.run_for(14 * 60 * SECOND)
    assert house.connector.calls["sign"] == 0
    await house.run_for(2 * 60 * SECOND)
    assert house.connector.calls["sign"] == 1


async def test_a_renewal_that_it_began_is_gone_on_with(house: House) -> None:
    pending, activated_at = under_way(house), text(house.clock.now() - LIFETIME * 0.69)
    await take_over(house, age=0.7, activated_at=activated_at, pending=pending)
    await house.run_for(SECOND)
    assert house.connector.calls == {"sign": 1, "probe": 1}
    assert house.connector.csrs == [pending["csr_pem"].encode()]


async def test_a_signed_answer_of_its_is_proven(house: House) -> None:
    signed = house.authority.credential(number=3, not_before=house.clock.now())
    chain = {"pem": signed.chain.pem.decode(), "ca": (signed.chain.ca_pem or b"").decode()}
    answer = {
        "chain": chain,
        "signed_at": text(house.clock.now()),
        "anchor_changed": False,
        "refused_since": text(house.clock.now()),
    }
    await take_over(house, age=0.7, pending=under_way(house, signed=answer))
    await house.run_for(SECOND)
    assert house.connector.calls == {"probe": 1}
    assert house.fingerprint == signed.chain.fingerprint


async def test_it_reads_what_a_renewal_writes(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    await house.run_for(SECOND)
    assert first_version.read(house.directory)["fingerprint"] == house.fingerprint
    assert house.current.facts.signature_mark is not None


@pytest.mark.parametrize("operation", ["sign", "probe"])
async def test_it_reads_what_a_renewal_under_way_writes(house: House, operation: str) -> None:
    await house.holding(age=LIFETIME * 0.7)
    house.connector.always[operation] = ConnectorUnavailable("down")
    await house.run_for(SECOND)
    found = first_version.read(house.directory)
    assert found["fingerprint"] == found["pending"]["begun_by"] == house.fingerprint
    assert (found["pending"]["signed"] is not None) == (operation == "probe")


async def test_it_reads_what_is_noted_of_dropped_answers(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    facts = replace(house.current.facts, drops=3, request_mark=house.clock.mark())
    house.store.amend(house.current, facts)
    assert first_version.read(house.directory)["fingerprint"] == house.fingerprint
    await house.restart()
    assert house.current.facts == facts
