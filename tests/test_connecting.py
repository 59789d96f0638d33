"""What becomes of a one-time token: none is lost that was not used, and none is tried without end."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from compass_sidecar.core.generation import Origin
from compass_sidecar.core.status import State, state_of
from compass_sidecar.errors import (
    Busy,
    ConnectorError,
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    NotRecognised,
    SidecarError,
)
from tests.support.connector import TOKEN_URL
from tests.support.house import House

pytestmark = pytest.mark.anyio

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def answered(kind: type[ConnectorError], status: int | None, *, arrived: bool = True) -> ConnectorError:
    """An error as the adapter raises it."""
    error = kind("it failed")
    error.status, error.arrived = status, arrived
    return error


LEFT = {
    "connection refused": lambda: answered(ConnectorUnavailable, None, arrived=False),
    "untrusted server": lambda: answered(ConnectorUntrusted, None, arrived=False),
    "TLS alert": lambda: answered(ConnectorUnauthenticated, None, arrived=False),
    "403": lambda: answered(ConnectorUnavailable, 403, arrived=False),
    "a portal's page": lambda: answered(ConnectorProtocol, 200, arrived=False),
}
UNKNOWN = {
    "empty 400": lambda: answered(NotRecognised, 400),
    "500": lambda: answered(ConnectorUnavailable, 500),
    "504": lambda: answered(ConnectorUnavailable, 504),
    "reset": lambda: answered(ConnectorUnavailable, None),
    "timeout": lambda: answered(ConnectorTimeout, None),
}
SPENT = {
    "GraphQL error": lambda: answered(ConnectorRejected, 200),
    "no identity": lambda: answered(ConnectorUnauthenticated, 200),
    "406": lambda: answered(ConnectorProtocol, 406),
    "422": lambda: answered(ConnectorProtocol, 422),
    "502": lambda: answered(ConnectorUnavailable, 502),
    "503 with JSON": lambda: answered(ConnectorUnavailable, 503),
}
Failure = Callable[[], ConnectorError]


@pytest.fixture
async def house(tmp_path: Path) -> Iterator[House]:
    """Nothing is held yet."""
    house = House(tmp_path)
    await house.scheduler.start()
    yield house
    house.close()


def state(house: House) -> State:
    return state_of(house.scheduler.status, house.clock.now())[0]


def calls(house: House) -> int:
    """How often token A was presented."""
    return sum(door.token == "token-a" for door in house.connector.doors["configuration"])


async def failure(house: House) -> SidecarError:
    with pytest.raises(SidecarError) as caught:
        await house.scheduler.connect("token-a", TOKEN_URL)
    return caught.value


def pause_at(house: House) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold the clock at its next sleep: set when it sleeps; set the second to wake it."""
    sleeping, go_on = asyncio.Event(), asyncio.Event()
    sleep = house.clock.sleep

    async def hold(duration: timedelta) -> None:
        sleeping.set()
        await go_on.wait()
        await sleep(duration)

    house.clock.sleep = hold  # type: ignore[method-assign]
    return sleeping, go_on


# --- unknown ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", UNKNOWN)
async def test_a_token_of_unknown_fate_is_presented_three_more_times_within_two_minutes(
    house: House, reason: str
) -> None:
    house.connector.script["configuration"].extend([UNKNOWN[reason]() for _ in range(3)])
    began = house.clock.elapsed()
    renewed = await house.scheduler.connect("token-a", TOKEN_URL)
    assert renewed.generation.facts.origin is Origin.CONNECT
    assert calls(house) == 4
    assert timedelta(seconds=30) < house.clock.elapsed() - began < 2 * MINUTE


@pytest.mark.parametrize("reason", UNKNOWN)
async def test_then_it_counts_as_spent_and_a_new_one_is_asked_for_at_once(house: House, reason: str) -> None:
    house.connector.always["configuration"] = UNKNOWN[reason]()
    error = await failure(house)
    assert (error.code, error.retryable) == ("connector-unauthenticated", False)
    assert "counts as spent, request a new one" in error.detail
    assert calls(house) == 4
    assert house.said.notices == ["connect-needed"]


async def test_a_configured_token_that_is_burnt_is_not_tried_without_end(house: House) -> None:
    house.inputs.one_time = house.token()
    house.connector.always["configuration"] = UNKNOWN["empty 400"]()
    await house.run_for(DAY)
    assert calls(house) == 4
    assert state(house) is State.UNCONNECTED
    assert house.scheduler.status.progress.consecutive_failures == 1
    assert house.said.notices[0] == "connect-needed"


async def test_an_operator_may_present_it_again(house: House) -> None:
    house.connector.always["configuration"] = UNKNOWN["empty 400"]()
    await failure(house)
    del house.connector.always["configuration"]
    await house.scheduler.connect("token-a", TOKEN_URL)
    assert state(house) is State.CONNECTED


async def test_a_due_renewal_does_not_wait_for_a_token_of_unknown_fate(tmp_path: Path) -> None:
    house = House(tmp_path)
    before = (await house.holding()).fingerprint
    house.connector.script["configuration"].append(UNKNOWN["empty 400"]())
    sleeping, go_on = pause_at(house)
    connecting = house.scheduler.connect("token-a", TOKEN_URL)
    await sleeping.wait()
    async with asyncio.timeout(30):
        await house.scheduler.renew()
    assert house.fingerprint != before
    go_on.set()
    await connecting
    assert house.current.facts.origin is Origin.CONNECT
    house.close()


async def test_the_end_does_not_wait_for_a_token_of_unknown_fate(house: House) -> None:
    house.connector.script["configuration"].append(UNKNOWN["empty 400"]())
    sleeping, _ = pause_at(house)
    connecting = house.scheduler.connect("token-a", TOKEN_URL)
    await sleeping.wait()
    async with asyncio.timeout(30):
        await house.scheduler.stop(timedelta(seconds=5))
    assert connecting.cancelled()


# --- left ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", LEFT)
async def test_a_token_that_is_left_may_be_presented_again(house: House, reason: str) -> None:
    house.connector.script["configuration"].append(LEFT[reason]())
    error = await failure(house)
    assert (error.detail, error.retryable) == ("it failed", True)
    assert calls(house) == 1
    assert house.said.notices == []
    await house.scheduler.connect("token-a", TOKEN_URL)
    assert state(house) is State.CONNECTED


@pytest.mark.parametrize("reason", LEFT)
async def test_a_configured_token_that_is_left_is_tried_until_it_works(house: House, reason: str) -> None:
    house.inputs.one_time = house.token()
    house.connector.script["configuration"].extend([LEFT[reason]() for _ in range(6)])
    await house.run_for(3 * HOUR)
    assert state(house) is State.CONNECTED
    assert "connect-needed" not in house.said.notices


async def test_a_bug_before_the_token_was_sent_leaves_it(house: House) -> None:
    house.inputs.one_time = house.token()
    ready, house.keys.ready = house.keys.ready, None  # type: ignore[method-assign, assignment]
    await house.run_for(MINUTE)
    assert calls(house) == 0
    house.keys.ready = ready  # type: ignore[method-assign]
    await house.run_for(HOUR)
    assert state(house) is State.CONNECTED


# --- spent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", SPENT)
async def test_a_token_that_is_spent_is_said_to_be_and_a_new_one_is_asked_for_at_once(
    house: House, reason: str
) -> None:
    await house.run_for(MINUTE)  # a notice has just gone out, and tells of nothing that is new
    house.connector.always["configuration"] = SPENT[reason]()
    error = await failure(house)
    assert (error.code, error.retryable) == (SPENT[reason]().code, False)
    assert error.detail == "it failed; the one-time token is spent: request a new one"
    assert calls(house) == 1
    assert house.said.notices == ["connect-needed"] * 2


async def test_a_spent_token_is_never_presented_again_even_after_a_restart(house: House) -> None:
    house.inputs.one_time = house.token()
    house.connector.always["configuration"] = SPENT["502"]()
    await house.run_for(DAY)
    await house.restart()
    del house.connector.always["configuration"]
    house.inputs.spent.clear()
    error = await failure(house)
    assert (error.code, error.retryable) == ("connector-unauthenticated", False)
    assert calls(house) == 1


async def test_a_token_that_signed_nothing_is_spent_too(house: House) -> None:
    house.connector.always["sign"] = answered(ConnectorRejected, 200)
    error = await failure(house)
    assert (error.code, error.retryable) == ("connector-rejected", False)
    assert "the one-time token is spent" in error.detail
    assert house.said.notices == ["connect-needed"]
    assert house.renewal.pending is None


async def test_a_good_credential_is_no_reason_to_ask_for_a_token(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.holding()
    house.connector.always["configuration"] = SPENT["502"]()
    await failure(house)
    assert house.said.notices == []
    assert state(house) is State.CONNECTED
    house.close()


# --- a connection that is under way -------------------------------------------------------------------


async def test_the_token_of_a_connection_under_way_joins_it_and_another_is_busy(house: House) -> None:
    house.connector.script["configuration"].append(UNKNOWN["reset"]())
    sleeping, go_on = pause_at(house)
    first = house.scheduler.connect("token-a", TOKEN_URL)
    second = house.scheduler.connect("token-a", TOKEN_URL)
    await sleeping.wait()
    third = house.scheduler.connect("token-a", TOKEN_URL)
    with pytest.raises(Busy):
        house.scheduler.connect("token-x", TOKEN_URL)
    go_on.set()
    assert await first is await second is await third
    assert calls(house) == 2


@pytest.mark.parametrize("restart", [False, True])
async def test_the_token_of_a_connection_that_is_pending_joins_it(house: House, *, restart: bool) -> None:
    house.connector.script["sign"].append(answered(ConnectorUnavailable, 503))
    error = await failure(house)
    assert error.retryable
    assert house.said.notices == []
    if restart:
        await house.restart()
    renewed = await house.scheduler.connect("token-a", TOKEN_URL)
    assert renewed.generation.facts.origin is Origin.CONNECT
    assert house.connector.calls["configuration"] == 1
    assert house.said.notices == ["connected"]


async def test_another_token_replaces_a_connection_that_is_pending(house: House) -> None:
    house.connector.script["sign"].append(answered(ConnectorUnavailable, 503))
    await failure(house)
    await house.scheduler.connect("token-x", TOKEN_URL)
    assert house.connector.doors["configuration"][-1].token == "token-x"
    assert state(house) is State.CONNECTED


async def test_a_connection_that_is_given_up_asks_for_a_token_at_once(house: House) -> None:
    house.connector.script["sign"].append(answered(ConnectorTimeout, None))
    await failure(house)
    house.connector.always["sign"] = UNKNOWN["empty 400"]()  # token B was used up by the lost answer
    error = await failure(house)
    assert (error.code, error.retryable) == ("not-connected", False)
    assert house.said.notices == ["connect-needed"]
