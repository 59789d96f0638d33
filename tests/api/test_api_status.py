"""`/status`, the health checks, the metrics."""

from dataclasses import replace
from datetime import timedelta

import pytest

from compass_sidecar.core.status import LastError, Progress
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import local_client
from tests.support.authority import NOW

pytestmark = pytest.mark.anyio


async def test_status_without_a_credential() -> None:
    async with local_client(FakeSidecar(None)) as client:
        answer = (await client.get("/status")).json()
    assert answer == {
        "state": "unconnected",
        "reasons": ["not-connected"],
        "certificate": None,
        "remaining_seconds": None,
        "renewal": {
            "due_at": None,
            "next_attempt_at": None,
            "last_attempt_at": None,
            "last_success_at": None,
            "consecutive_failures": 0,
            "last_error": None,
            "in_progress": False,
        },
        "connector": {"url": None, "director_url": None},
        "clock_skew_seconds": None,
        "events": [],
        "version": "0.1.0",
        "started_at": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
    }


async def test_status_tells_everything_that_is_known() -> None:
    current = generation()
    proven = replace(
        current, facts=replace(current.facts, proven_at=NOW + timedelta(seconds=1, microseconds=5))
    )
    sidecar = FakeSidecar(proven)
    error = LastError("connector-timeout", "too slow", True, NOW + timedelta(hours=1))
    sidecar.status = replace(
        sidecar.status,
        due_at=NOW + timedelta(days=60),
        next_attempt_at=NOW + timedelta(days=2),
        progress=Progress(NOW, NOW, 3, error, True),
        connector_url="https://c.example.org",
        director_url="https://d.example.org",
        announced_url="https://other.example.org",
        clock_skew=timedelta(seconds=-1.5),
        events=tuple({"event": "renewed", "number": number} for number in range(30)),
    )
    async with local_client(sidecar) as client:
        answer = (await client.get("/status")).json()
        chain = (await client.get("/certificate")).json()
    shown = {name: chain[name] for name in chain if name not in {"leaf", "chain", "ca"}}
    assert answer["certificate"] == shown | {"proven_at": f"{NOW + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"}
    assert (answer["state"], answer["reasons"]) == ("degraded", ["renewal-failing"])
    assert answer["remaining_seconds"] == 89 * 86400
    assert answer["renewal"]["last_error"] == {
        "code": "connector-timeout",
        "detail": "too slow",
        "retryable": True,
        "at": f"{NOW + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
    }
    assert (answer["renewal"]["in_progress"], answer["renewal"]["consecutive_failures"]) == (True, 3)
    assert answer["connector"] == {
        "url": "https://c.example.org",
        "director_url": "https://d.example.org",
        "announced_url": "https://other.example.org",
    }
    assert answer["clock_skew_seconds"] == -1.5
    assert [event["number"] for event in answer["events"]] == list(range(10, 30))


async def test_what_has_expired_has_no_seconds_left() -> None:
    sidecar = FakeSidecar(generation())
    sidecar.clock += timedelta(days=400)
    async with local_client(sidecar) as client:
        answer = (await client.get("/status")).json()
    assert (answer["state"], answer["remaining_seconds"]) == ("expired", 0)


async def test_livez_is_about_the_loop_and_nothing_else() -> None:
    sidecar = FakeSidecar(None)
    async with local_client(sidecar) as client:
        assert (await client.get("/livez")).status_code == 200
        sidecar.stall = "The renewal loop has not turned for 90 seconds."
        reply = await client.get("/livez")
    assert (reply.status_code, reply.json()["code"]) == (503, "stalled")


async def test_readyz_is_about_the_credential_served() -> None:
    sidecar = FakeSidecar(None)
    async with local_client(sidecar) as client:
        codes = [(await client.get("/readyz")).json()["code"]]
        sidecar.use(generation())
        assert (await client.get("/readyz")).text == "ok\n"
        sidecar.clock = generation().chain.effective_not_after
        codes.append((await client.get("/readyz")).json()["code"])
        sidecar.revoke_now()
        codes.append((await client.get("/readyz")).json()["code"])
    assert codes == ["not-connected", "credential-expired", "credential-revoked"]


async def test_readyz_lists_its_checks_to_people() -> None:
    sidecar = FakeSidecar(generation())
    async with local_client(sidecar) as client:
        assert (await client.get("/readyz?verbose")).text == "[+] connected\n[+] not-revoked\n[+] unexpired\n"
        sidecar.revoke_now()
        reply = await client.get("/readyz?verbose")
    assert reply.status_code == 503
    assert reply.json()["checks"] == {"connected": True, "not-revoked": False, "unexpired": True}


async def test_startupz_stays_good_after_the_first_credential() -> None:
    sidecar = FakeSidecar(None)
    async with local_client(sidecar) as client:
        assert (await client.get("/startupz")).status_code == 503
        sidecar.use(generation())
        assert (await client.get("/startupz")).status_code == 200
        sidecar.revoke_now()
        assert (await client.get("/startupz")).status_code == 200


async def test_metrics_are_what_main_gives() -> None:
    async with local_client(FakeSidecar(None), metrics=lambda: b"a 1\n") as client:
        metrics = await client.get("/metrics")
    assert metrics.content == b"a 1\n"
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_metrics_that_main_does_not_give_are_not_there() -> None:
    async with local_client(FakeSidecar(None)) as client:
        assert (await client.get("/metrics")).status_code == 404


@pytest.mark.parametrize(
    "path", ["/status", "/livez", "/readyz", "/startupz", "/metrics", "/", "/openapi.json"]
)
async def test_head_is_get_without_a_body(path: str) -> None:
    sidecar = FakeSidecar(generation())
    async with local_client(sidecar, metrics=lambda: b"a 1\n") as client:
        got, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content, head.headers) == (200, b"", got.headers)
