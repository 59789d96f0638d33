"""Whatever ends a long-lived task, it is started again; and `/livez` says when there is no progress."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from compass_sidecar.engine.supervision import Liveness, Supervisor
from tests.support.clock import FakeClock

pytestmark = pytest.mark.anyio
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
QUICKLY = timedelta(milliseconds=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def supervisor(clock: FakeClock) -> AsyncIterator[Supervisor]:
    made = Supervisor(clock.monotonic, first_pause=QUICKLY)
    yield made
    await made.aclose()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


class Task:
    """Fails with each of these in turn, and then runs until it is cancelled."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.starts = 0
        self.running = False

    async def run(self) -> None:
        self.starts += 1
        if self.errors:
            raise self.errors.pop(0)
        self.running = True
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), MemoryError(), RuntimeError("can't start new thread"), asyncio.CancelledError()],
)
async def test_a_task_that_fails_is_started_again_and_the_log_says_why(
    supervisor: Supervisor, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    task = Task(error, error)
    supervisor.start("worker", task.run)
    await until(lambda: task.running)
    said = [vars(each) for each in caplog.records if each.message == "task-failed"]
    assert [(each["task"], each["failures"]) for each in said] == [("worker", 1), ("worker", 2)]
    assert all(each["exc_info"] for each in said)
    assert task.starts == 3
    assert supervisor.stalled() is None


async def test_a_task_that_returns_is_done(supervisor: Supervisor) -> None:
    async def once() -> None:
        done.append(1)

    done: list[int] = []
    supervisor.start("once", once)
    await until(lambda: done)
    await asyncio.sleep(0.02)
    assert done == [1]
    assert supervisor.stalled() is None


async def test_a_task_that_cannot_be_kept_running_is_named_until_it_has_run_for_a_minute(
    supervisor: Supervisor, clock: FakeClock
) -> None:
    task = Task(*[ValueError("x")] * 5)
    supervisor.start("worker", task.run)
    await until(lambda: task.running)
    assert "`worker`" in (supervisor.stalled() or "")
    clock.advance(MINUTE)
    assert supervisor.stalled() is None


async def test_failures_that_are_far_apart_are_first_ones(supervisor: Supervisor, clock: FakeClock) -> None:
    starts: list[int] = []

    async def lasts_a_minute() -> None:
        starts.append(1)
        await asyncio.sleep(0)
        clock.advance(MINUTE)
        raise ValueError("x")

    supervisor.start("worker", lasts_a_minute)
    await until(lambda: len(starts) >= 10)
    assert supervisor.stalled() is None


async def test_a_task_whose_coroutine_cannot_even_be_made_is_tried_again(supervisor: Supervisor) -> None:
    task = Task()
    begun: list[int] = []

    def work():  # type: ignore[no-untyped-def]
        begun.append(1)
        if len(begun) < 3:
            raise MemoryError
        return task.run()

    supervisor.start("worker", work)
    await until(lambda: task.running)


async def test_the_end_waits_for_no_task_that_refuses_to_end(clock: FakeClock) -> None:
    supervisor, end = Supervisor(clock.monotonic), asyncio.Event()

    async def stubborn() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    supervisor.start("stubborn", stubborn)
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await supervisor.aclose()
    end.set()


async def test_nothing_is_started_again_after_the_end(clock: FakeClock) -> None:
    supervisor, task = Supervisor(clock.monotonic, first_pause=QUICKLY), Task()
    supervisor.start("worker", task.run)
    await until(lambda: task.running)
    await supervisor.aclose()
    await asyncio.sleep(0.02)
    assert task.starts == 1


# --- progress ---------------------------------------------------------------------------------------


async def test_a_loop_that_has_not_turned_for_ninety_seconds_makes_no_progress(clock: FakeClock) -> None:
    liveness = Liveness(clock.monotonic)
    clock.advance(89 * SECOND)
    assert liveness.stalled() is None
    clock.advance(SECOND)
    assert "not turned" in (liveness.stalled() or "")
    liveness.turned()
    assert liveness.stalled() is None


async def test_a_suspend_is_no_lack_of_progress(clock: FakeClock) -> None:
    liveness = Liveness(clock.monotonic)
    clock.suspend(timedelta(days=3))
    assert liveness.stalled() is None


async def test_a_decision_has_to_lead_to_an_attempt_within_five_minutes(clock: FakeClock) -> None:
    liveness = Liveness(clock.monotonic)
    for _ in range(5):
        liveness.decided()
        clock.advance(MINUTE)
        liveness.turned()
    assert "decided" in (liveness.stalled() or "")
    with liveness.attempt():
        assert liveness.stalled() is None
    liveness.decided()
    liveness.undecided()
    for _ in range(10):
        clock.advance(MINUTE)
        liveness.turned()
    assert liveness.stalled() is None


async def test_an_attempt_may_not_last_longer_than_its_limit(clock: FakeClock) -> None:
    liveness = Liveness(clock.monotonic)
    with liveness.attempt():
        for _ in range(15):
            clock.advance(MINUTE)
            liveness.turned()
        assert liveness.stalled() is None
        clock.advance(MINUTE)
        liveness.turned()
        assert "attempt" in (liveness.stalled() or "")
    assert liveness.stalled() is None
