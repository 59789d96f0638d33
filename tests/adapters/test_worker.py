"""Blocking calls in a thread: in order, and no caller waits without an end."""

import asyncio
import subprocess
import sys
import threading
from contextvars import ContextVar
from datetime import timedelta

import pytest

from compass_sidecar.adapters.worker import Worker

pytestmark = pytest.mark.anyio
PATIENCE = timedelta(seconds=30)
A_MOMENT = timedelta(milliseconds=50)


async def test_calls_are_made_one_after_the_other_in_their_order() -> None:
    worker, made = Worker("test", limit=PATIENCE), []
    go_on = threading.Event()
    worker.submit(go_on.wait, 30)
    for number in range(10):
        worker.submit(made.append, number)
    assert made == []
    go_on.set()
    await worker.run(lambda: None)
    assert made == list(range(10))


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), KeyboardInterrupt()], ids=repr)
async def test_what_a_call_raises_reaches_its_caller_and_the_next_call_is_made(error: BaseException) -> None:
    def fail() -> None:
        raise error

    worker = Worker("test", limit=PATIENCE)
    with pytest.raises(type(error)):
        worker.submit(fail).result(30)
    assert await worker.run(lambda: 3) == 3


async def test_a_caller_gives_up_and_what_waits_behind_a_hanging_call_is_not_made_later() -> None:
    worker, go_on = Worker("test", limit=A_MOMENT), threading.Event()
    made: list[str] = []
    with pytest.raises(TimeoutError):
        await worker.run(go_on.wait, 30)
    with pytest.raises(TimeoutError):
        await worker.run(made.append, "late")
    go_on.set()
    worker.drain(PATIENCE)
    assert made == []


async def test_without_a_thread_the_caller_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # A limit on processes does not bind root, whom the suite may run as.
    def starved(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    worker = Worker("test", limit=PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", starved)
        with pytest.raises(RuntimeError, match="new thread"):
            await worker.run(lambda: 1)
    assert await worker.run(lambda: 1) == 1


async def test_a_call_belongs_to_the_context_of_its_caller() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("ours")
    assert await Worker("test", limit=PATIENCE).run(variable.get) == "ours"


async def test_draining_a_worker_that_hangs_ends() -> None:
    worker, go_on = Worker("test", limit=PATIENCE), threading.Event()
    worker.submit(go_on.wait, 30)
    await asyncio.to_thread(worker.drain, A_MOMENT)
    go_on.set()


def test_a_process_ends_although_a_call_hangs() -> None:
    program = (
        "from datetime import timedelta; import threading\n"
        "from compass_sidecar.adapters.worker import Worker\n"
        "Worker('test', limit=timedelta(1)).submit(threading.Event().wait)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
