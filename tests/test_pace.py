"""Signatures are asked for at a pace that no clock, no `Date` header and no restart can quicken."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from email.utils import format_datetime
from itertools import count, pairwise
from pathlib import Path

import pytest

from compass_sidecar.core.answer import SignedAnswer, parse_date
from compass_sidecar.core.door import Door
from compass_sidecar.core.generation import Generation
from compass_sidecar.core.policy import Policy
from compass_sidecar.errors import ConnectorRejected, ConnectorUnavailable, SidecarError, SubjectRefused
from tests.support.authority import LIFETIME
from tests.support.house import House
from tests.support.true_time import TrueConnector, installed

pytestmark = pytest.mark.anyio
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
Header = Callable[[datetime, int], str | None]
Build = Callable[..., House]


class DatedConnector(TrueConnector):
    """Its certificates begin at the true time, and each of its answers has the `Date` that a test wants."""

    def __init__(self, house: House, header: Header) -> None:
        super().__init__(house)
        self._header = header
        self._numbers = count()
        self.asked_at: list[timedelta] = []

    def date(self) -> datetime | None:
        text = self._header(self.true_now().replace(microsecond=0), next(self._numbers))
        return parse_date({"date": text}) if text is not None else None

    async def sign(self, door: Door, csr_pem: bytes) -> SignedAnswer:
        self.asked_at.append(self.house.clock.elapsed())
        return await super().sign(door, csr_pem)


def shifted(by: timedelta) -> Header:
    return lambda now, _: format_datetime(now + by, usegmt=True)


RIGHT = shifted(timedelta(0))


def one_of(*headers: Header) -> Header:
    return lambda now, number: headers[number % len(headers)](now, number)


def no_date(_: datetime, __: int) -> None:
    return None


def year(text: str) -> Header:
    return lambda _, __: f"Fri, 31 Dec {text} 23:59:59 GMT"


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    made: list[House] = []

    def begin(header: Header = RIGHT, lifetime: timedelta = LIFETIME) -> House:
        house = House(tmp_path / f"store{len(made)}", lifetime=lifetime, policy=Policy(jitter_ratio=0))
        made.append(house)
        installed(DatedConnector(house, header))
        return house

    yield begin
    for house in made:
        house.close()


async def hold(house: House, *, age: float) -> Generation:
    generation = house.hold(age=house.lifetime * age)
    house.connector.know(generation.chain)  # type: ignore[attr-defined]
    await house.scheduler.start()
    return generation


def gaps(house: House) -> list[timedelta]:
    return [later - earlier for earlier, later in pairwise(house.connector.asked_at)]  # type: ignore[attr-defined]


def least_pause(lifetime: timedelta) -> timedelta:
    """Between two signatures of which the first one is due again at once."""
    return max(min(10 * SECOND, lifetime / 10), min(15 * MINUTE, lifetime / 20))


AHEAD = [0.5, 0.67, 0.9, 0.999, 1, 1.5, 40]
HEADERS: dict[str, Callable[[timedelta], Header]] = {
    **{f"ahead by {share} lifetimes": lambda life, share=share: shifted(life * share) for share in AHEAD},
    **{f"behind by {share} lifetimes": lambda life, share=share: shifted(-life * share) for share in AHEAD},
    "absent": lambda _: no_date,
    "year 1": lambda _: year("0001"),
    "year 1969": lambda _: year("1969"),
    "year 9999": lambda _: year("9999"),
    "no date at all": lambda _: lambda _now, _number: "yesterday at noon",
    "right and ahead in turn": lambda life: one_of(RIGHT, shifted(life * 0.7)),
    "right, right and ahead in turn": lambda life: one_of(RIGHT, RIGHT, shifted(life * 0.7)),
    "all kinds in turn": lambda life: one_of(
        shifted(life * 0.7), shifted(-life), no_date, year("9999"), RIGHT, year("0001")
    ),
}


@pytest.mark.parametrize("lifetime", [20 * SECOND, MINUTE, HOUR, 90 * DAY], ids=str)
@pytest.mark.parametrize("name", HEADERS)
async def test_whatever_the_dates_say_signatures_keep_their_pace(
    build: Build, lifetime: timedelta, name: str
) -> None:
    house = build(HEADERS[name](lifetime), lifetime)
    await hold(house, age=0.7)
    await house.run_for(min(lifetime * 2, 6 * HOUR))
    assert all(gap >= min(10 * SECOND, lifetime / 10) for gap in gaps(house))
    accepted = [gap for gap in gaps(house) if gap < least_pause(lifetime)]
    # What follows one another faster is the retry of a request that failed or was refused.
    assert len(accepted) <= house.said.names().count("attempt-failed")
    assert house.connector.calls["sign"] >= 1
    assert house.scheduler.stalled() is None


@pytest.mark.parametrize("name", ["absent", "year 1", "year 9999", "no date at all", "all kinds in turn"])
async def test_dates_that_cannot_be_true_cost_no_renewal(build: Build, name: str) -> None:
    house = build(HEADERS[name](LIFETIME))
    await hold(house, age=0.7)
    await house.run_for(3 * HOUR)
    assert house.connector.calls["sign"] >= 1
    assert house.current.chain.not_before > house.clock.now() - 4 * HOUR


async def test_a_storm_of_one_signature_after_the_other_lasts_no_second(build: Build) -> None:
    """The certificates are due again by the Connector's clock as soon as they are there."""
    house = build(shifted(LIFETIME * 0.7))
    await hold(house, age=0.7)
    await house.run_for(6 * HOUR)
    assert all(gap >= 15 * MINUTE for gap in gaps(house))
    assert house.connector.calls["sign"] <= 25


@pytest.mark.parametrize("lifetime", [MINUTE, HOUR, 90 * DAY], ids=str)
async def test_restarts_keep_the_pace(build: Build, lifetime: timedelta) -> None:
    house = build(shifted(lifetime * 0.7), lifetime)
    await hold(house, age=0.7)
    for _ in range(30):
        await house.run_for(SECOND)
        await house.restart()
    assert all(gap >= min(least_pause(lifetime), HOUR) for gap in gaps(house))


@pytest.mark.parametrize(
    "error", [ConnectorUnavailable("500"), ConnectorRejected("no"), KeyError("x"), None], ids=repr
)
async def test_a_request_that_failed_counts_over_restarts_too(build: Build, error: Exception | None) -> None:
    house = build()
    await hold(house, age=0.7)
    if error is not None:
        house.connector.always["sign"] = error
    else:  # a signed answer that verification refuses
        house.connector.lifetime = timedelta(0)
    for _ in range(20):
        await house.run_for(SECOND)
        await house.restart()
    assert house.connector.calls["sign"] >= 2
    assert all(gap >= 10 * SECOND for gap in gaps(house))


async def test_after_a_reboot_one_that_was_due_when_it_came_waits_from_the_start(build: Build) -> None:
    house = build(shifted(LIFETIME * 0.7))
    await hold(house, age=0.7)
    await house.run_for(MINUTE)
    assert house.connector.calls["sign"] == 1
    house.clock.boot_id = "another boot"
    await house.restart()
    house.connector_clock.note(house.clock.now() + LIFETIME * 0.7)
    await house.run_for(14 * MINUTE)
    assert house.connector.calls["sign"] == 1
    await house.run_for(2 * MINUTE)
    assert house.connector.calls["sign"] == 2


async def test_after_a_reboot_one_that_became_due_in_its_time_is_renewed_at_once(build: Build) -> None:
    house = build()
    await hold(house, age=0.7)
    await house.run_for(MINUTE)
    house.clock.suspend(LIFETIME * 0.7)
    house.clock.boot_id = "another boot"
    await house.restart()
    await house.run_for(SECOND)
    assert house.connector.calls["sign"] == 2


async def test_a_manual_renewal_waits_for_no_pace_and_the_loop_counts_it(build: Build) -> None:
    house = build()
    await hold(house, age=0.7)
    await house.scheduler.start()
    house.connector.always["sign"] = ConnectorUnavailable("500")
    for _ in range(3):
        with pytest.raises(SidecarError):
            await house.scheduler.renew()
    assert gaps(house) == [timedelta(0)] * 2
    del house.connector.always["sign"]
    house.attempts._failed = None  # the backoff is another matter
    began = house.clock.elapsed()
    await house.run_for(MINUTE)
    assert house.connector.asked_at[-1] - began >= 10 * SECOND  # type: ignore[attr-defined]


async def test_a_subject_that_changed_is_asked_for_again_in_the_attempt_at_that_pace(
    build: Build,
) -> None:
    house = build()
    await hold(house, age=0.7)
    house.connector.script["sign"].append(SubjectRefused("CSR: Invalid organization provided."))
    await house.run_for(MINUTE)
    assert gaps(house) == [10 * SECOND]
    assert "attempt-failed" not in house.said.names()
    house.connector.script["sign"].append(SubjectRefused("CSR: Invalid organization provided."))
    house.clock.advance(MINUTE)
    await house.scheduler.renew()
    assert gaps(house)[-1] == timedelta(0), "a caller is waiting"


async def test_a_proof_waits_for_no_pace(build: Build) -> None:
    house = build()
    await hold(house, age=0.7)
    house.draw = lambda: 0.0
    house.connector.script["probe"].append(ConnectorUnavailable("down"))
    await house.run_for(SECOND)
    assert house.connector.calls == {"configuration": 1, "sign": 1, "probe": 2}
