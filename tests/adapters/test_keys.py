"""Keys are made ahead of time, in a thread, and handed out once."""

import asyncio
import threading

import pytest

from compass_sidecar.adapters.keys import KeyMaker

pytestmark = pytest.mark.anyio


async def test_each_key_is_handed_out_once() -> None:
    maker = KeyMaker(2048)
    first, second = await maker.take(), await maker.take()
    assert first.private_numbers() != second.private_numbers()
    assert first.key_size == 2048


async def test_a_key_that_is_ready_is_taken_without_waiting() -> None:
    maker = KeyMaker(2048)
    await maker.ready()
    taking = asyncio.create_task(maker.take())
    for _ in range(3):
        await asyncio.sleep(0)
    assert taking.done()


async def test_a_caller_who_leaves_loses_no_key() -> None:
    maker = KeyMaker(3072)
    taking = asyncio.create_task(maker.take())
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert (await maker.take()).key_size == 3072


async def test_the_event_loop_turns_while_a_key_is_made() -> None:
    maker = KeyMaker(4096)
    maker.begin()
    turns = 0
    ready = asyncio.create_task(maker.ready())
    while not ready.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert turns > 10


@pytest.mark.parametrize("bits", [1, 511])
async def test_a_key_that_cannot_be_made_is_an_error_each_time_and_no_wait_without_end(bits: int) -> None:
    maker = KeyMaker(bits)
    maker.begin()
    for _ in range(2):
        with pytest.raises(ValueError, match="key_size"):
            async with asyncio.timeout(30):
                await maker.take()


async def test_the_next_key_is_made_after_one_that_could_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = KeyMaker(2048)

    def starved(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", starved)
        with pytest.raises(RuntimeError, match="new thread"):
            await maker.take()
    async with asyncio.timeout(60):
        assert (await maker.take()).key_size == 2048
