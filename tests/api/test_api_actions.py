"""`POST /renew`, `/connect`, `/revoke`: what they answer, and that nobody who leaves disturbs them."""

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from compass_sidecar import errors
from compass_sidecar.api.guard import Access
from compass_sidecar.api.problems import problem_of, status_of
from compass_sidecar.core.catalogue import CODES
from tests.api.fakes import FakeSidecar, generation
from tests.api.serving import BEARER, TOKEN, Wire, local_client, serving

pytestmark = pytest.mark.anyio
LOCKED = Access(api_token=TOKEN)


async def test_a_renewal_says_what_was_replaced_by_what() -> None:
    async with local_client(FakeSidecar(generation(0))) as client:
        reply = await client.post("/renew")
        status = (await client.get("/status")).json()
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    assert reply.json() == {
        "renewed": True,
        "previous_fingerprint_sha256": generation(0).chain.fingerprint,
        "certificate": status["certificate"],
        "duration_seconds": pytest.approx(0.4125, abs=0.001),
    }


async def test_calls_that_arrive_while_one_runs_join_it() -> None:
    sidecar = FakeSidecar(generation())
    sidecar.gate.clear()
    async with local_client(sidecar) as client:
        calls = [asyncio.create_task(client.post("/renew")) for _ in range(50)]
        await asyncio.sleep(0.1)
        sidecar.gate.set()
        replies = await asyncio.gather(*calls)
    assert sidecar.attempts == 1
    assert len({reply.content for reply in replies}) == 1


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ("respond-async, wait=0", "respond-async, wait=0"),
    ],
)
async def test_who_does_not_want_to_wait_is_told_where_to_look(prefer: str, applied: str) -> None:
    sidecar = FakeSidecar(generation())
    sidecar.gate.clear()
    async with local_client(sidecar) as client:
        reply = await client.post("/renew", headers={"Prefer": prefer})
        assert reply.status_code == 202
        assert reply.json() == {"renewed": False, "pending": None}
        assert (reply.headers["location"], reply.headers["preference-applied"]) == ("/status", applied)
        sidecar.gate.set()
        for patient in ("wait=5", "respond-async, wait=5"):
            done = await client.post("/renew", headers={"Prefer": patient})
            assert (done.status_code, done.headers["preference-applied"]) == (200, "wait=5")
    assert sidecar.attempts <= 2


async def test_a_caller_who_leaves_cancels_nothing() -> None:
    sidecar = FakeSidecar(generation(0))
    sidecar.gate.clear()
    async with serving(sidecar) as running:
        wire = await Wire.open(running.port)
        wire.write(b"POST /renew HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not sidecar.attempts:
            await asyncio.sleep(0.01)
        await wire.close()
        await asyncio.sleep(0.05)
        sidecar.gate.set()
        await asyncio.wait({sidecar.renew()})
    assert sidecar.attempts == 1
    assert sidecar.status.generation is generation(1)


@pytest.mark.parametrize("finishes", [True, False])
async def test_the_end_of_the_process_answers_a_caller_who_waits(finishes: bool) -> None:
    sidecar = FakeSidecar(generation())
    sidecar.gate.clear()
    async with serving(sidecar) as running:
        wire = await Wire.open(running.port)
        wire.write(b"POST /renew HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not sidecar.attempts:
            await asyncio.sleep(0.01)
        running.stop.set()
        await asyncio.sleep(0.3)
        if finishes:
            sidecar.gate.set()
        reply = await asyncio.wait_for(wire.reply(), 3)
        assert reply.status == (200 if finishes else 202)
        await asyncio.wait_for(running.task, 5)
        await wire.close()
    sidecar.gate.set()


FAILURES: list[tuple[errors.SidecarError, int]] = [
    (errors.ConnectorRejected("no"), 502),
    (errors.SubjectRefused("no"), 502),
    (errors.ConnectorUnauthenticated("who?"), 502),
    (errors.ConnectorProtocol("what?"), 502),
    (errors.ConnectorUntrusted("who are you?"), 502),
    (errors.ConnectorUnavailable("later"), 503),
    (errors.ConnectorUnavailable("later", retry_after=timedelta(seconds=90.2)), 503),
    (errors.ConnectorTimeout("too slow"), 504),
    (errors.StoreWriteFailed("full"), 507),
]
REFUSALS: list[tuple[errors.SidecarError, int]] = [
    (errors.NoCredential("none"), 409),
    (errors.CredentialExpired("old"), 409),
    (errors.CredentialRevoked("gone"), 409),
    (errors.Busy("busy"), 409),
    (errors.NotCurrent("another"), 409),
    (errors.RenewedRecently("just now", retry_after=timedelta(seconds=7)), 429),
    (errors.RequestRefused("nonsense"), 400),
]


@pytest.mark.parametrize(("error", "status"), [*FAILURES, *REFUSALS], ids=lambda each: type(each).__name__)
async def test_a_failure_keeps_its_code_and_says_until_when_the_old_one_is_good(
    error: errors.SidecarError, status: int
) -> None:
    sidecar = FakeSidecar(generation())
    if isinstance(error, errors.ConnectorError | errors.StoreWriteFailed):
        sidecar.failure = error
    else:
        sidecar.refusal = error
    async with local_client(sidecar) as client:
        reply = await client.post("/renew")
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    end = f"{generation().chain.effective_not_after:%Y-%m-%dT%H:%M:%SZ}"
    assert reply.json() == {
        "type": f"urn:compass-sidecar:problem:{error.code}",
        "title": CODES[error.code].words,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "retryable": error.retryable,
        "valid_until": end,
    }
    retry_after = getattr(error, "retry_after", None)
    expected = {90.2: "91", 7.0: "7"}[retry_after.total_seconds()] if retry_after else None
    assert reply.headers.get("retry-after") == expected


async def test_without_a_usable_credential_there_is_no_end_to_tell() -> None:
    sidecar = FakeSidecar(generation())
    sidecar.revoke_now()
    sidecar.refusal = errors.CredentialRevoked("gone")
    async with local_client(sidecar) as client:
        assert "valid_until" not in (await client.post("/renew")).json()


async def test_a_mistake_of_ours_is_a_500_and_its_trace_is_in_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sidecar = FakeSidecar(generation())
    sidecar.failure = ZeroDivisionError("inside")
    async with local_client(sidecar) as client:
        reply = await client.post("/renew")
    assert (reply.status_code, reply.json()["code"]) == (500, "internal-error")
    assert "inside" not in reply.text
    assert "ZeroDivisionError: inside" in caplog.text
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == [
        "compass_sidecar.api"
    ]


async def test_connecting_hands_token_and_url_on_and_answers_like_a_renewal() -> None:
    sidecar = FakeSidecar(None)
    async with local_client(sidecar, LOCKED) as client:
        body = {"token": "t0ken", "connector_url": "https://c.example.org/graphql"}
        reply = await client.post("/connect", json=body, headers=BEARER)
    assert sidecar.connections == [("t0ken", "https://c.example.org/graphql")]
    assert reply.json()["connected"] is True
    assert reply.json()["previous_fingerprint_sha256"] is None
    assert reply.json()["certificate"]["fingerprint_sha256"] == generation(1).chain.fingerprint


SECRET = "very-secret-one-time-token"
BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", "JSON object"),
    (b"{", "JSON object"),
    (b"[]", "JSON object"),
    (b"null", "JSON object"),
    (b'"very-secret-one-time-token"', "JSON object"),
    (b"\xff\xfe", "JSON"),
    (b"[" * 60_000, "JSON"),
    (b"{}", "`token` is missing"),
    (b'{"token": 5}', "`token` is not"),
    (b'{"token": ""}', "`token` is not"),
    (b'{"token": null}', "`token` is not"),
    (b'{"token": ["very-secret-one-time-token"]}', "`token` is not"),
    (b'{"token": "\\ud800"}', "`token` is not"),
    (b'{"token": "t", "connector_url": ["very-secret-one-time-token"]}', "`connector_url` is not"),
    (b'{"token": "t", "very-secret-one-time-token": 1}', "not known"),
]


@pytest.mark.parametrize(("body", "detail"), BAD_BODIES)
async def test_a_bad_body_is_explained_and_never_repeated(
    body: bytes, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    sidecar = FakeSidecar(None)
    async with local_client(sidecar, LOCKED) as client:
        headers = BEARER | {"Content-Type": "application/json"}
        reply = await client.post("/connect", content=body, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (400, "bad-request")
    assert detail in reply.json()["detail"]
    assert SECRET not in reply.text + caplog.text
    assert not sidecar.connections


async def test_revoking_needs_the_right_fingerprint() -> None:
    sidecar = FakeSidecar(generation())
    fingerprint = generation().chain.fingerprint
    async with local_client(sidecar, LOCKED) as client:
        wrong = await client.post("/revoke", json={"confirm": "0" * 64}, headers=BEARER)
        assert (wrong.status_code, wrong.json()["code"]) == (409, "not-current")
        right = await client.post("/revoke", json={"confirm": fingerprint}, headers=BEARER)
        assert right.json() == {"revoked": True, "fingerprint_sha256": fingerprint}
        assert (await client.get("/certificate")).json()["code"] == "credential-revoked"
        assert (await client.get("/status")).json()["state"] == "revoked"
        assert (await client.get("/readyz")).status_code == 503


def tree(kind: type[errors.SidecarError]) -> Iterator[type[errors.SidecarError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from tree(each)


def test_every_known_error_has_a_row_in_the_table() -> None:
    # The command line has errors of its own, which no answer tells of.
    known = {kind.code for kind in tree(errors.SidecarError) if kind.__module__ == "compass_sidecar.errors"}
    assert known <= set(CODES)
    assert all(400 <= status_of(code) < 600 for code in CODES)


def test_a_problem_is_compact_json_with_the_members_of_the_rfc() -> None:
    body: dict[str, Any] = json.loads(problem_of(errors.Busy("wait"), method="POST").body)
    assert set(body) == {"type", "title", "status", "detail", "code", "retryable"}
