"""Whatever goes wrong in an attempt, it counts as a failure and the next attempt comes."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from compass_sidecar.core.credential import Credential
from compass_sidecar.core.policy import Policy
from compass_sidecar.core.status import State, state_of
from compass_sidecar.errors import ConnectorUnavailable, SidecarError
from tests.support.authority import LIFETIME
from tests.support.house import House

pytestmark = pytest.mark.anyio
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
UNEXPECTED = [
    RuntimeError("can't start new thread"),
    MemoryError(),
    KeyError("x"),
    UnicodeError("label too long"),
    TimeoutError(),
    asyncio.CancelledError(),
]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "store", policy=Policy(jitter_ratio=0))
    yield made
    made.close()


def state(house: House) -> State:
    return state_of(house.scheduler.status, house.clock.now())[0]


def broken_keys(house: House, error: Exception) -> None:
    async def take() -> Any:
        raise error

    house.keys.take = take  # type: ignore[method-assign]


def broken_disk(house: House, error: Exception) -> None:
    async def run(call: Callable[..., Any], *arguments: Any) -> Any:
        raise error

    house.worker.run = run  # type: ignore[method-assign]


def mend(house: House) -> None:
    vars(house.keys).pop("take", None)
    vars(house.worker).pop("run", None)
    house.connector.always.clear()


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
@pytest.mark.parametrize("place", ["configuration", "sign", "probe", "keys", "disk"])
async def test_an_unexpected_failure_counts_with_a_traceback_and_the_next_attempt_comes(
    house: House, place: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    await house.holding(age=LIFETIME * 0.7)
    if place == "keys":
        broken_keys(house, error)
    elif place == "disk":
        broken_disk(house, error)
    else:
        house.connector.always[place] = error
    await house.run_for(2 * MINUTE)
    progress = house.scheduler.status.progress
    assert progress.consecutive_failures >= 3
    assert progress.last_error is not None
    assert progress.last_attempt_at is not None
    if place != "disk" or not isinstance(error, TimeoutError):  # a disk that is slow is a known failure
        assert progress.last_error.code == "internal-error"
        assert any(each.exc_info for each in caplog.records if each.message == "internal-error")
    assert state(house) is State.DEGRADED
    assert house.scheduler.stalled() is None
    mend(house)
    await house.run_for(2 * HOUR)
    assert state(house) is State.CONNECTED
    assert house.scheduler.status.progress.consecutive_failures == 0


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
async def test_a_first_connection_that_fails_unexpectedly_ends_and_the_next_one_may_be_made(
    house: House, error: Exception
) -> None:
    await house.scheduler.start()
    house.connector.script["configuration"].append(error)
    with pytest.raises(SidecarError):
        await house.scheduler.connect("token-a", house.token().url)
    await house.scheduler.connect("token-a", house.token().url)
    assert state(house) is State.CONNECTED


async def test_an_attempt_that_hangs_is_ended_at_its_limit(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    house.attempts._limit = timedelta(milliseconds=50)
    house.connector.hanging = {"sign"}
    with pytest.raises(SidecarError):
        await house.scheduler.renew()
    assert house.scheduler.status.progress.consecutive_failures == 1
    house.connector.hanging = set()
    house.attempts._limit = MINUTE
    await house.scheduler.renew()
    assert state(house) is State.CONNECTED


async def test_a_disk_that_hangs_ends_the_attempt_and_not_the_renewals(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    save, go_on = house.store.save_pending, threading.Event()

    def hang(*arguments: Any) -> None:
        go_on.wait(60)
        save(*arguments)

    house.worker._limit = timedelta(milliseconds=50)
    house.store.save_pending = hang  # type: ignore[method-assign]
    with pytest.raises(SidecarError) as caught:
        await house.scheduler.renew()
    assert caught.value.code == "store-write-failed"
    house.worker._limit = MINUTE
    go_on.set()
    await house.scheduler.renew()
    assert state(house) is State.CONNECTED


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
async def test_what_an_operators_files_raise_keeps_no_renewal_from_being_made(
    house: House, error: Exception
) -> None:
    await house.holding(age=LIFETIME * 0.7)
    house.inputs.error = error  # type: ignore[assignment]
    await house.run_for(MINUTE)
    assert house.connector.calls["sign"] == 1
    assert house.scheduler.stalled() is None


async def test_operators_files_that_hang_keep_no_renewal_from_being_made(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("compass_sidecar.engine.sidecar._CHORES_LIMIT", timedelta(milliseconds=10))
    await house.holding(age=LIFETIME * 0.7)
    house.inputs.credential = hang  # type: ignore[assignment, method-assign]
    await house.run_for(MINUTE)
    assert house.connector.calls["sign"] == 1


@pytest.mark.parametrize("error", UNEXPECTED[:-1], ids=repr)
async def test_what_telling_people_raises_keeps_no_renewal_from_being_made(
    house: House, error: Exception
) -> None:
    def notify(*_: Any, **__: Any) -> None:
        raise error

    await house.holding(age=LIFETIME * 0.95)  # so that its end is announced
    house.said.notify = notify  # type: ignore[method-assign]
    await house.run_for(MINUTE)
    assert house.connector.calls["sign"] == 1


@pytest.mark.parametrize("error", UNEXPECTED[:-1], ids=repr)
async def test_what_fails_after_the_switch_is_no_failure_of_the_attempt(
    house: House, error: Exception
) -> None:
    class Publisher:
        def __init__(self) -> None:
            self.errors = [error]
            self.published: list[str] = []

        def publish(self, credential: Credential) -> bool:
            if self.errors:
                raise self.errors.pop()
            self.published.append(credential.chain.fingerprint)
            return True

    async def retire(_: frozenset[str]) -> None:
        raise error

    before = (await house.holding(age=LIFETIME * 0.7)).fingerprint
    house.connector.retire = retire  # type: ignore[method-assign]
    house.renewal._publisher = publisher = Publisher()
    await house.scheduler.renew()
    assert house.fingerprint != before
    assert house.scheduler.status.progress.consecutive_failures == 0
    await house.run_for(MINUTE)
    assert publisher.published == [house.fingerprint]


async def test_waiting_is_no_lack_of_progress(house: House) -> None:
    house.connector.always["configuration"] = ConnectorUnavailable("busy", retry_after=DAY)
    await house.holding(age=LIFETIME * 0.7)
    for _ in range(20):
        await house.run_for(HOUR)
        assert house.scheduler.stalled() is None


async def test_without_a_token_nothing_stalls(house: House) -> None:
    await house.scheduler.start()
    for _ in range(20):
        await house.run_for(HOUR)
        assert house.scheduler.stalled() is None


async def test_a_loop_that_cannot_decide_makes_no_progress(house: House) -> None:
    class Broken(Policy):
        def due_at(self, *_: Any) -> Any:
            raise OverflowError("date value out of range")

    await house.holding()
    house.scheduler._policy = Broken()
    running = asyncio.create_task(house.scheduler.run())
    while house.clock.elapsed() < 2 * MINUTE:
        await asyncio.sleep(0)
    assert "not turned" in (house.scheduler.stalled() or "")
    await house.scheduler.stop(timedelta(0))
    await running


async def test_nothing_was_attempted_when_nothing_was_due_any_more(house: House) -> None:
    await house.holding()
    connecting = house.scheduler.connect("token-a", house.token().url)
    await asyncio.sleep(0)
    renewing = house.scheduler.renew()
    await connecting
    attempted_at = house.scheduler.status.progress.last_attempt_at
    house.clock.advance(timedelta(seconds=1))
    with pytest.raises(SidecarError):
        await renewing
    assert house.scheduler.status.progress.last_attempt_at == attempted_at
