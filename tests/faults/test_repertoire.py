"""Whatever the Connector does, the old credential stays in use and everybody is told what happens next."""

import asyncio
import re
from datetime import timedelta

import pytest

from compass_emulator import FAULTS
from tests.faults.conftest import OpenStage
from tests.faults.rows import ROWS, Row, of_a_token
from tests.faults.stage import DRAW, Stage
from tests.support.processes import PATIENCE, EmulatorProcess

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning"),  # a country such as Germany
]

SECRET = "c2VjcmV0" * 12
CASES = [
    pytest.param(
        row,
        operation,
        id=f"{operation}-{row.fault}",
        marks=() if place == number % len(row.operations) else pytest.mark.exhaustive,
    )
    for number, row in enumerate(ROWS)
    for place, operation in enumerate(row.operations)
]


def spec(row: Row, operation: str) -> str:
    """`NAME@operation:parameter` as the emulator wants it: a fault of connections names none."""
    name, _, parameter = row.fault.replace("{secret}", SECRET).partition(":")
    name, star, count = name.partition("*")
    where = {"connect": "configuration"}.get(operation, operation)
    place = "" if FAULTS[name].operation != "any" else f"@{where}"
    return f"{name}{place}{star}{count}" + (f":{parameter}" if parameter or ":" in row.fault else "")


@pytest.mark.parametrize(("row", "operation"), CASES)
async def test_the_connectors_repertoire(
    open_stage: OpenStage, emulator: EmulatorProcess, row: Row, operation: str
) -> None:
    stage = await open_stage()
    if operation == "revoke":  # of a certificate of its own: the first one is everybody's
        assert (await stage.connect()).status_code == 200
    served, fingerprint, signatures = await stage.served(), stage.fingerprint, emulator.signatures()
    call = {"connect": stage.connect, "revoke": stage.revoke}.get(operation, stage.renew)

    def strike() -> None:
        emulator.fault(spec(row, operation))
        stage.limit(row.timeout)

    stage.connector.arm({"connect": "configuration"}.get(operation, operation), strike)  # type: ignore[attr-defined]
    answer = await call()
    outcome = of_a_token(row) if operation == "connect" else row.outcome
    assert answer.status_code == outcome.status, answer.text
    signed = {"sign": int(row.signed), "probe": 1}.get(operation, 0) if outcome.code else None
    if outcome.code:
        problem = answer.json()
        assert (problem["code"], problem["retryable"]) == (outcome.code, outcome.retryable)
        assert "valid_until" in problem
        check_text(answer.text, problem["detail"])
        check_text(answer.text, *(str(event) for event in stage.said.events))
        assert await stage.served() == served
        assert emulator.signatures() - signatures == signed
        check_wait(stage, row, operation)
    elif operation != "revoke":
        assert stage.fingerprint != fingerprint
        assert emulator.signatures() - signatures == 1
    await asyncio.to_thread(emulator.heal)
    stage.limit(PATIENCE)
    if operation in ("configuration", "sign", "probe") and not row.lasts:
        assert (await stage.renew()).status_code == 200
        assert emulator.signatures() - signatures <= 2
        assert stage.wait is None


def check_wait(stage: Stage, row: Row, operation: str) -> None:
    """A connection or a revocation that failed says nothing of the renewal that is due."""
    if operation in ("connect", "revoke"):
        assert stage.wait is None
        return
    if row.asked is None:
        assert row.outcome.first_wait is not None
        assert stage.wait == row.outcome.first_wait * DRAW
    else:
        assert stage.wait is not None
        asked = stage.wait / (1 + DRAW / 10)
        assert abs(asked - timedelta(seconds=row.asked)) <= timedelta(seconds=1)
    assert stage.scheduler.status.next_attempt_at is not None


def check_text(*texts: str) -> None:
    for text in texts:
        assert text.replace("\n", "").isprintable()
        assert SECRET not in text
        assert "PRIVATE KEY" not in text
        assert not re.search(r"[A-Za-z0-9+/_=-]{70,}", text.replace("0" * 64, ""))


async def test_every_fault_of_the_emulator_has_a_row() -> None:
    assert set(FAULTS) == {re.split("[:*]", row.fault)[0] for row in ROWS}
