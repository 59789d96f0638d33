"""`GET /certificate?wait=`, over real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from compass_sidecar.api.longpoll import parse_wait
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import Reply, Running, Wire, ask, local_client, serving

pytestmark = pytest.mark.anyio


async def etag(port: int) -> str:
    return (await ask(port, "GET /certificate HTTP/1.1", "Host: localhost")).headers["etag"]


def waiting(tag: str | None, wait: str = "60s") -> tuple[str, ...]:
    condition = (f"If-None-Match: {tag}",) if tag else ()
    return (f"GET /certificate?wait={wait} HTTP/1.1", "Host: localhost", *condition)


@asynccontextmanager
async def waiters(running: Running, number: int, tag: str | None) -> AsyncIterator[list[Wire]]:
    wires = [await Wire.open(running.port) for _ in range(number)]
    for wire in wires:
        wire.write("\r\n".join((*waiting(tag), "", "")).encode())
    try:
        yield wires
    finally:
        for wire in wires:
            await wire.close()


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.01)


def taken(sidecar: FakeSidecar) -> int:
    """How many wait on the event that tells of changes."""
    return len(sidecar.changed()._waiters)


async def test_a_waiter_is_answered_as_soon_as_the_certificate_is_another_one() -> None:
    sidecar = FakeSidecar(generation(0))
    async with serving(sidecar) as running, waiters(running, 1, await etag(running.port)) as (wire,):
        await until(lambda: taken(sidecar) == 1)
        sidecar.use(generation(1))
        reply = await asyncio.wait_for(wire.reply(), 1)
    assert reply.status == 200
    assert reply.json()["fingerprint_sha256"] == generation(1).chain.fingerprint


async def test_a_wait_that_is_over_says_not_modified() -> None:
    async with serving(FakeSidecar(generation())) as running:
        tag, began = await etag(running.port), time.monotonic()
        reply = await ask(running.port, *waiting(tag, "300ms"))
        assert (reply.status, reply.headers["etag"], reply.body) == (304, tag, b"")
        assert time.monotonic() - began > 0.25


async def test_the_first_credential_is_waited_for() -> None:
    sidecar = FakeSidecar(None)
    async with serving(sidecar) as running:
        reply = await ask(running.port, *waiting(None, "100ms"))
        assert (reply.status, reply.json()["code"]) == (503, "not-connected")
        async with waiters(running, 1, None) as (wire,):
            await until(lambda: taken(sidecar) == 1)
            sidecar.use(generation())
            assert (await asyncio.wait_for(wire.reply(), 1)).status == 200


@pytest.mark.parametrize("condition", [{}, {"If-None-Match": '"other"'}])
async def test_who_has_not_the_current_one_is_answered_at_once(condition: dict[str, str]) -> None:
    async with local_client(FakeSidecar(generation())) as client:
        assert (await client.get("/certificate?wait=60s", headers=condition)).status_code == 200


async def test_a_waiter_outlives_a_revocation_and_never_gets_the_revoked_one() -> None:
    sidecar = FakeSidecar(generation(0))
    async with serving(sidecar) as running:
        tag = await etag(running.port)
        async with waiters(running, 1, tag) as (wire,):
            await until(lambda: taken(sidecar) == 1)
            sidecar.revoke_now()
            await until(lambda: taken(sidecar) == 1)
            reply = await ask(running.port, *waiting(tag, "50ms"))
            assert (reply.status, reply.json()["code"]) == (503, "credential-revoked")
            sidecar.use(generation(1))
            assert (await asyncio.wait_for(wire.reply(), 1)).status == 200


@pytest.mark.parametrize("wait", ["", "soon", "-1s", "1w", "nan", "1e3"])
async def test_a_wait_that_is_no_duration_is_refused(wait: str) -> None:
    async with local_client(FakeSidecar(generation())) as client:
        reply = await client.get("/certificate", params={"wait": wait})
    assert (reply.status_code, reply.json()["code"]) == (400, "bad-request")
    assert "wait" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("2", 2), ("500ms", 0.5), ("5m", 300), ("1h", 300), ("9" * 400, 300)]
)
def test_nobody_waits_longer_than_five_minutes(text: str, seconds: float) -> None:
    assert parse_wait(text).total_seconds() == seconds


@pytest.mark.parametrize("wait", ["0", "0s"])
async def test_no_time_at_all_is_an_answer_at_once(wait: str) -> None:
    async with local_client(FakeSidecar(generation())) as client:
        tag = (await client.get("/certificate")).headers["etag"]
        reply = await client.get("/certificate", params={"wait": wait}, headers={"If-None-Match": tag})
    assert reply.status_code == 304


async def test_500_waiters_are_all_answered_by_a_renewal() -> None:
    sidecar = FakeSidecar(generation(0))
    async with serving(sidecar) as running, waiters(running, 500, await etag(running.port)) as wires:
        await until(lambda: taken(sidecar) == 500)
        assert (await ask(running.port, "GET /livez HTTP/1.1", "Host: localhost")).status == 200
        sidecar.use(generation(1))
        replies = await asyncio.gather(*(wire.reply() for wire in wires))
    assert {reply.status for reply in replies} == {200}
    assert {reply.json()["fingerprint_sha256"] for reply in replies} == {generation(1).chain.fingerprint}


async def test_the_1001st_waiter_is_refused_and_who_leaves_frees_a_place() -> None:
    sidecar = FakeSidecar(generation())
    async with serving(sidecar) as running:
        tag = await etag(running.port)
        async with waiters(running, 1000, tag) as wires:
            await until(lambda: taken(sidecar) == 1000)
            refused = await ask(running.port, *waiting(tag))
            assert (refused.status, refused.json()["code"]) == (503, "too-many-waiters")
            assert refused.json()["retryable"] is True
            # Whoever need not wait is not refused.
            assert (await ask(running.port, *waiting(None))).status == 200
            for wire in wires[:10]:
                await wire.close()
            await until(lambda: taken(sidecar) == 990)
            assert (await ask(running.port, *waiting(tag, "50ms"))).status == 304
        await until(lambda: taken(sidecar) == 0)


@pytest.mark.parametrize("connected", [True, False])
async def test_the_end_of_the_process_answers_everybody_at_once(connected: bool) -> None:
    sidecar = FakeSidecar(generation() if connected else None)
    replies: list[Reply] = []
    async with serving(sidecar) as running:
        tag = await etag(running.port) if connected else None
        async with waiters(running, 1000, tag) as wires:
            await until(lambda: taken(sidecar) == 1000)
            running.stop.set()
            replies += await asyncio.gather(*(wire.reply() for wire in wires))
            await running.task
    assert {reply.status for reply in replies} == {304 if connected else 503}
