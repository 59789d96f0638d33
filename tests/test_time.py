"""Clocks that are wrong, jump or stand still, against a Connector that keeps the true time."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from compass_sidecar.core.policy import Policy
from compass_sidecar.core.status import State, state_of
from compass_sidecar.errors import ConnectorUnavailable
from tests.support.authority import LIFETIME, Authority
from tests.support.house import House
from tests.support.true_time import TrueConnector, with_true_time

pytestmark = pytest.mark.anyio
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
YEAR = 365 * DAY
STEPS = [sign * step for step in (10 * MINUTE, DAY, 80 * DAY, 10 * YEAR) for sign in (1, -1)]
Build = Callable[..., tuple[House, TrueConnector]]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    made: list[House] = []

    def begin(*, lifetime: timedelta = LIFETIME, jitter: float = 0.0) -> tuple[House, TrueConnector]:
        house = House(tmp_path / f"store{len(made)}", lifetime=lifetime, policy=Policy(jitter_ratio=jitter))
        made.append(house)
        return house, with_true_time(house)

    yield begin
    for house in made:
        house.close()


async def hold(house: House, connector: TrueConnector, *, age: float = 0.0) -> None:
    """A credential in use, of this age as a share of its lifetime, by the true time."""
    connector.know(house.hold(age=house.lifetime * age).chain)
    await house.scheduler.start()


async def meet(house: House, connector: TrueConnector) -> None:
    """One renewal, by which the Connector's clock is known."""
    await house.scheduler.renew()
    connector.calls.clear()


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("failing", [False, True], ids=["at rest", "in a backoff"])
async def test_a_step_costs_no_credential_and_few_signatures(
    build: Build, step: timedelta, failing: bool
) -> None:
    house, connector = build()
    await hold(house, connector, age=0.7 if failing else 0.1)
    await meet(house, connector)
    if failing:
        house.clock.suspend(LIFETIME * 0.7)
        connector.script["configuration"].extend([ConnectorUnavailable("down")] * 3)
        await house.run_for(5 * SECOND)
    house.clock.step(step)
    await house.run_for(40 * MINUTE)
    assert connector.accepts(house.current.chain)
    assert connector.calls["sign"] <= 2 + 3, "at most every quarter of an hour"
    house.clock.step(-step)
    await house.run_for(10 * MINUTE)
    assert connector.accepts(house.current.chain)
    assert state_of(house.scheduler.status, house.clock.now())[0] is State.CONNECTED


@pytest.mark.parametrize(
    "skew", [sign * step for step in (2 * MINUTE, 2 * DAY, 25 * DAY) for sign in (1, -1)], ids=str
)
async def test_with_a_clock_that_is_wrong_for_good_every_renewal_is_in_time(
    build: Build, skew: timedelta
) -> None:
    house, connector = build()
    await hold(house, connector)
    await meet(house, connector)
    house.clock.step(skew)
    for _ in range(10):
        house.clock.suspend(20 * DAY)
        await house.run_for(10 * MINUTE)
        assert connector.accepts(house.current.chain)
    assert 2 <= connector.calls["sign"] <= 6
    assert ("clock-skew" in state_of(house.scheduler.status, house.clock.now())[1]) == (
        abs(skew) > 2 * MINUTE
    )


@pytest.mark.parametrize(
    "skew", [sign * step for step in (30 * SECOND, 2 * MINUTE, DAY) for sign in (1, -1)], ids=str
)
async def test_a_minute_of_life_is_enough_for_a_clock_that_is_off_by_more(
    build: Build, skew: timedelta
) -> None:
    house, connector = build(lifetime=MINUTE)
    await hold(house, connector)
    await meet(house, connector)
    house.clock.step(skew)
    for _ in range(6):
        await house.run_for(15 * SECOND)
        assert connector.accepts(house.current.chain)
    assert 2 <= connector.calls["sign"] <= 24


@pytest.mark.parametrize("sleep", [10 * MINUTE, DAY, 29 * DAY], ids=str)
async def test_a_suspend_is_noticed_at_the_next_look(build: Build, sleep: timedelta) -> None:
    house, connector = build()
    await hold(house, connector, age=0.666)
    await house.run_for(10 * MINUTE)
    house.clock.suspend(sleep)
    await house.run_for(10 * MINUTE)
    assert connector.accepts(house.current.chain)
    assert connector.calls["sign"] == (1 if sleep >= DAY else 0)


@pytest.mark.parametrize(
    "start",
    [
        datetime(2028, 2, 28, 23, 59, 30, tzinfo=UTC),
        datetime(2028, 2, 29, 23, 59, 30, tzinfo=UTC),
        datetime(2027, 12, 31, 23, 59, 30, tzinfo=UTC),
        datetime(2100, 2, 28, 23, 59, 30, tzinfo=UTC),
    ],
    ids=str,
)
@pytest.mark.parametrize("lifetime", [MINUTE, DAY, 366 * DAY], ids=str)
async def test_calendars_do_not_matter(build: Build, start: datetime, lifetime: timedelta) -> None:
    house, connector = build(lifetime=lifetime)
    house.clock._now = connector.beginning = start
    house.authority = connector.authority = Authority.create(not_before=start - DAY, lifetime=20 * YEAR)
    await hold(house, connector)
    await house.run_for(min(lifetime * 0.4, HOUR))
    assert connector.calls["sign"] == 0
    house.clock.suspend(lifetime * 0.68 - min(lifetime * 0.4, HOUR))
    await house.run_for(min(lifetime * 0.1, HOUR))
    assert connector.calls["sign"] == 1
    assert connector.accepts(house.current.chain)


async def test_ten_years_are_waited_for_and_not_overslept(build: Build) -> None:
    house, connector = build(lifetime=10 * YEAR)
    house.authority = connector.authority = Authority.create(lifetime=40 * YEAR)
    await hold(house, connector)
    await house.run_for(HOUR)
    house.clock.suspend(10 * YEAR * 0.667 - 3 * HOUR)
    await house.run_for(HOUR)
    assert connector.calls["sign"] == 0
    await house.run_for(2 * HOUR)
    assert connector.calls["sign"] == 1
    assert house.scheduler.status.due_at is not None


@pytest.mark.parametrize("seed", range(2))
async def test_a_clock_that_jumps_about_loses_nothing(build: Build, seed: int) -> None:
    """Sixty jumps of up to ten days, and as many suspends of up to three."""
    house, connector = build(lifetime=30 * DAY, jitter=0.25)
    draw = random.Random(seed)
    await hold(house, connector)
    await meet(house, connector)
    for _ in range(60):
        house.clock.step(timedelta(days=draw.uniform(-10, 10)))
        house.clock.suspend(timedelta(days=draw.uniform(0, 3)))
        await house.run_for(10 * MINUTE)
        assert connector.accepts(house.current.chain)
        house.clock.step(connector.true_now() - house.clock.now())
    assert connector.calls["sign"] <= 40


@pytest.mark.parametrize("lifetime", [20 * SECOND, MINUTE], ids=str)
async def test_a_pair_that_is_never_accepted_is_given_up_in_time_in_a_short_life_too(
    build: Build, lifetime: timedelta
) -> None:
    """A CA that the door does not know yet: the next signature comes from the right one."""
    for seed in range(3):
        house, connector = build(lifetime=lifetime)
        house.draw = random.Random(seed).random
        await hold(house, connector)
        house.clock.suspend(lifetime * 0.5)
        await house.run_for(lifetime * 0.1)
        connector.refuse_the_next_pair()
        await house.run_for(lifetime)
        assert connector.accepts(house.current.chain)
        assert connector.calls["sign"] >= 2
        house.close()
