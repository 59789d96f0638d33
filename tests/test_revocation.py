"""Revoking: a lost answer, an outage or a bad moment leaves nothing unrevoked, and calls nothing revoked."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from compass_sidecar.core.door import Door
from compass_sidecar.core.status import State, state_of
from compass_sidecar.engine.renewal import Plan
from compass_sidecar.errors import (
    Busy,
    ConnectorError,
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    CredentialRevoked,
    NotCurrent,
    NotRecognised,
    SidecarError,
    StoreWriteFailed,
)
from tests.support.authority import LIFETIME
from tests.support.house import House

pytestmark = pytest.mark.anyio

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=each) for each in (1, 60, 3600, 86400))


def answered(kind: type[ConnectorError], status: int | None, *, arrived: bool = True) -> ConnectorError:
    """An error as the adapter raises it."""
    error = kind("it failed")
    error.status, error.arrived = status, arrived
    return error


def lost() -> ConnectorError:
    return answered(ConnectorUnavailable, None)


def empty_400() -> ConnectorError:
    return answered(NotRecognised, 400)


# What says nothing about whether a certificate is revoked.
NO_PROOF = {
    "refused connection": lambda: answered(ConnectorUnavailable, None, arrived=False),
    "TLS alert": lambda: answered(ConnectorUnauthenticated, None, arrived=False),
    "untrusted server": lambda: answered(ConnectorUntrusted, None, arrived=False),
    "timeout": lambda: answered(ConnectorTimeout, None),
    "500": lambda: answered(ConnectorUnavailable, 500),
    "502": lambda: answered(ConnectorUnavailable, 502),
    "503": lambda: answered(ConnectorUnavailable, 503),
    "504": lambda: answered(ConnectorUnavailable, 504),
    "conflict": lambda: answered(ConnectorUnavailable, 200),
    "another 400": lambda: answered(ConnectorProtocol, 400),
}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, plan=Plan(revoke_superseded_after=HOUR))
    yield house
    house.close()


@pytest.fixture
def short(tmp_path: Path) -> Iterator[House]:
    """Certificates of 90 s that are revoked 5 s after they are superseded."""
    house = House(tmp_path, lifetime=90 * SECOND, plan=Plan(revoke_superseded_after=5 * SECOND))
    yield house
    house.close()


def state(house: House) -> State:
    return state_of(house.scheduler.status, house.clock.now())[0]


def reasons(house: House) -> tuple[str, ...]:
    return state_of(house.scheduler.status, house.clock.now())[1]


def revoked(house: House) -> list[str]:
    """With which certificates a revocation was called."""
    return [door.pair.fingerprint for door in house.connector.doors["revoke"] if door.pair is not None]


def details(house: House, event: str) -> list[object]:
    return [each.get("detail") for each in house.said.events if each["event"] == event]


async def renew(house: House) -> str:
    """The fingerprint of the superseded certificate."""
    before = house.fingerprint
    house.clock.advance(MINUTE)
    await house.scheduler.renew()
    return before


# --- superseded certificates --------------------------------------------------------------------------


async def test_a_superseded_certificate_is_revoked_with_its_own_key_when_its_time_comes(house: House) -> None:
    await house.holding()
    before = await renew(house)
    await house.run_for(HOUR - MINUTE)
    assert revoked(house) == []
    await house.run_for(2 * MINUTE)
    assert revoked(house) == [before]
    assert before != house.fingerprint
    await house.run_for(DAY)
    assert revoked(house) == [before]
    assert state(house) is State.CONNECTED


async def test_every_short_lived_certificate_is_revoked_a_few_seconds_after_it_was_superseded(
    short: House,
) -> None:
    await short.holding()
    activated: list[timedelta] = []
    called: list[timedelta] = []
    for operation, times in (("sign", activated), ("revoke", called)):
        original = getattr(short.connector, operation)

        async def noted(door: Door, *args: object, _call=original, _times=times) -> object:
            _times.append(short.clock.elapsed())
            return await _call(door, *args)

        setattr(short.connector, operation, noted)
    await short.run_for(15 * MINUTE)
    assert len(activated) >= 10
    assert len(called) in {len(activated), len(activated) - 1}
    assert all(called[n] - activated[n] < 10 * SECOND for n in range(len(called)))
    assert len(set(revoked(short))) == len(called)


async def test_the_store_is_not_read_while_a_certificate_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.holding()
    await renew(house)
    reads: list[str] = []
    monkeypatch.setattr(house.store, "generations", lambda: reads.append("generations") or ())
    monkeypatch.setattr(house.store, "load", lambda: reads.append("load"))
    await house.run_for(HOUR - 5 * MINUTE)
    assert reads == []


async def test_it_waits_over_restarts_and_further_renewals(house: House) -> None:
    await house.holding()
    superseded = [await renew(house) for _ in range(3)]
    await house.restart()
    await house.run_for(2 * HOUR)
    assert sorted(revoked(house)) == sorted(superseded)
    await house.restart()
    await house.run_for(HOUR)
    assert len(revoked(house)) == 3


async def test_a_kill_at_the_switch_forgets_no_revocation(house: House) -> None:
    """What the disk holds at the moment of the switch is enough."""
    await house.holding()
    before = house.fingerprint
    activate = house.store.activate

    def switch(credential, facts):  # type: ignore[no-untyped-def]
        activate(credential, facts)
        raise RuntimeError

    house.store.activate = switch  # type: ignore[method-assign]
    house.clock.advance(MINUTE)
    with pytest.raises(RuntimeError):
        await house.renewal.attempt("id")
    await house.restart()
    assert house.fingerprint != before
    await house.run_for(2 * HOUR)
    assert revoked(house) == [before]


async def test_a_switch_that_fails_leaves_the_credential_in_use_unrevoked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.holding()

    def fail(*_: object) -> None:
        raise StoreWriteFailed("no space left on device")

    monkeypatch.setattr(house.store, "activate", fail)
    with pytest.raises(StoreWriteFailed):
        await house.renewal.attempt("id")
    await house.run_for(2 * HOUR)
    monkeypatch.undo()
    await house.restart()
    await house.run_for(MINUTE)
    assert house.fingerprint not in revoked(house)


async def test_one_that_fails_delays_no_other_and_has_its_own_backoff(house: House) -> None:
    await house.holding()
    stuck, *others = [await renew(house) for _ in range(4)]
    call = house.connector.revoke

    async def revoke(door: Door) -> None:
        await call(door)
        if door.pair is not None and door.pair.fingerprint == stuck:
            raise answered(ConnectorUnavailable, 503)

    house.connector.revoke = revoke  # type: ignore[method-assign]
    await house.run_for(HOUR + 10 * MINUTE)
    assert set(others) <= set(revoked(house))
    assert "revocation-failed" in reasons(house)
    assert state(house) is State.CONNECTED
    tries = revoked(house).count(stuck)
    await house.run_for(DAY)
    assert 20 < revoked(house).count(stuck) - tries < 400
    assert details(house, "revocation-failed") == ["it failed"]
    house.connector.revoke = call  # type: ignore[method-assign]
    await house.run_for(HOUR)
    assert "revocation-failed" not in reasons(house)
    assert len(details(house, "superseded-revoked")) == 4


async def test_one_that_hangs_holds_up_neither_the_others_nor_a_renewal_nor_the_end(house: House) -> None:
    await house.holding()
    stuck, *others = [await renew(house) for _ in range(3)]
    call = house.connector.revoke

    async def revoke(door: Door) -> None:
        await call(door)
        if door.pair is not None and door.pair.fingerprint == stuck:
            await asyncio.Event().wait()

    house.connector.revoke = revoke  # type: ignore[method-assign]
    house.clock.busy = lambda: bool(house.attempts.running())
    async with asyncio.timeout(60):
        await house.run_for(HOUR + MINUTE)
        assert set(others) <= set(revoked(house))
        before = house.fingerprint
        house.clock.advance(LIFETIME)
        await house.run_for(HOUR)
    assert house.fingerprint != before


async def test_one_that_expires_leaves(house: House) -> None:
    await house.holding()
    await renew(house)
    house.connector.always["revoke"] = answered(ConnectorRejected, 200)
    await house.run_for(2 * HOUR)
    assert "revocation-failed" in reasons(house)
    house.clock.suspend(LIFETIME)
    tries = len(revoked(house))
    house.connector.always["configuration"] = answered(ConnectorUnavailable, 503)
    await house.run_for(2 * HOUR)
    assert "revocation-failed" not in reasons(house)
    assert len(revoked(house)) == tries


async def test_an_empty_400_means_done_if_the_current_pair_is_accepted_directly_afterwards(
    house: House,
) -> None:
    await house.holding()
    before = await renew(house)
    probes = house.connector.calls["probe"]
    house.connector.script["revoke"].extend([lost(), empty_400()])
    await house.run_for(HOUR + 10 * MINUTE)
    assert revoked(house) == [before] * 2
    assert house.connector.calls["probe"] == probes + 1
    assert house.connector.doors["probe"][-1].pair.fingerprint == house.fingerprint  # type: ignore[union-attr]
    assert "accepts the one in use" in str(details(house, "superseded-revoked"))
    await house.restart()
    await house.run_for(DAY)
    assert len(revoked(house)) == 2


async def test_an_empty_400_for_both_pairs_is_tried_again(house: House) -> None:
    await house.holding()
    await renew(house)
    house.connector.always["revoke"] = house.connector.always["probe"] = empty_400()
    await house.run_for(HOUR + 30 * MINUTE)
    assert details(house, "superseded-revoked") == []
    tries = len(revoked(house))
    assert 2 <= tries <= 30
    del house.connector.always["probe"]
    await house.run_for(2 * HOUR)
    assert len(details(house, "superseded-revoked")) == 1


@pytest.mark.parametrize("failure", NO_PROOF)
async def test_nothing_else_means_that_a_superseded_one_is_revoked(house: House, failure: str) -> None:
    await house.holding()
    await renew(house)
    house.connector.always["revoke"] = NO_PROOF[failure]()
    await house.run_for(3 * HOUR)
    assert details(house, "superseded-revoked") == []
    del house.connector.always["revoke"]
    await house.run_for(2 * HOUR)
    assert details(house, "superseded-revoked") == [None]


async def test_a_bug_is_a_failure_with_a_backoff(house: House) -> None:
    await house.holding()
    await renew(house)
    house.connector.always["revoke"] = RuntimeError("a bug")
    await house.run_for(2 * HOUR)
    assert 3 <= len(revoked(house)) <= 40
    assert "revocation-failed" in reasons(house)


# --- the certificate in use ---------------------------------------------------------------------------


async def test_a_revoked_certificate_stays_so_over_a_restart_and_is_not_revoked_again(house: House) -> None:
    fingerprint = (await house.holding()).fingerprint
    await house.scheduler.revoke(fingerprint)
    assert revoked(house) == [fingerprint]
    assert state(house) is State.REVOKED
    assert details(house, "revoked") == [None]
    with pytest.raises(CredentialRevoked):
        house.scheduler.revoke(fingerprint)
    await house.restart()
    await house.run_for(DAY)
    assert state(house) is State.REVOKED
    assert revoked(house) == [fingerprint]


async def test_another_fingerprint_is_refused_even_if_it_was_current_a_moment_ago(house: House) -> None:
    before = (await house.holding()).fingerprint
    with pytest.raises(NotCurrent):
        house.scheduler.revoke("0" * 64)
    renewing = house.scheduler.renew()
    revoking = house.scheduler.revoke(before)
    with pytest.raises(Busy):
        house.scheduler.revoke(before)
    await renewing
    with pytest.raises(NotCurrent):
        await revoking
    assert revoked(house) == []


async def test_after_a_lost_answer_two_empty_400s_a_minute_apart_mean_done(house: House) -> None:
    fingerprint = (await house.holding()).fingerprint
    house.connector.script["revoke"].append(lost())
    house.connector.always["revoke"] = empty_400()
    with pytest.raises(ConnectorUnavailable) as caught:
        await house.scheduler.revoke(fingerprint)
    assert "may be revoked already, and the sidecar tries again" in caught.value.detail
    assert "revocation-failed" in reasons(house)
    assert state(house) is State.CONNECTED
    await house.run_for(MINUTE)
    assert state(house) is State.CONNECTED
    await house.run_for(4 * MINUTE)
    assert state(house) is State.REVOKED
    assert details(house, "revoked") == ["the answer was lost; the Connector refuses this certificate now"]
    assert house.said.notices[0] == "revoked"
    assert "revocation-failed" not in reasons(house)
    assert len(revoked(house)) == 3
    await house.restart()
    assert state(house) is State.REVOKED


async def test_repeated_calls_within_a_minute_are_no_proof(house: House) -> None:
    fingerprint = (await house.holding()).fingerprint
    house.connector.script["revoke"].append(lost())
    house.connector.always["revoke"] = empty_400()
    for _ in range(5):
        with pytest.raises(ConnectorError):
            await house.scheduler.revoke(fingerprint)
        house.clock.advance(10 * SECOND)
    assert state(house) is State.CONNECTED
    house.clock.advance(20 * SECOND)
    await house.scheduler.revoke(fingerprint)
    assert state(house) is State.REVOKED


async def test_a_revocation_whose_answer_was_lost_is_resumed_after_a_kill(house: House) -> None:
    fingerprint = (await house.holding()).fingerprint
    house.connector.script["revoke"].append(lost())
    with pytest.raises(ConnectorUnavailable):
        await house.scheduler.revoke(fingerprint)
    await house.restart()
    house.connector.always["revoke"] = empty_400()
    await house.run_for(5 * MINUTE)
    assert state(house) is State.REVOKED


async def test_a_kill_during_the_call_is_a_lost_answer_too(house: House) -> None:
    await house.holding()
    generation = house.directory / "current" / "generation.json"
    seen: list[object] = []

    async def revoke(door: Door) -> None:
        seen.append(json.loads(generation.read_bytes())["revoke_sent_at"])

    house.connector.revoke = revoke  # type: ignore[method-assign]
    await house.scheduler.revoke(house.fingerprint)
    assert seen != [None]


async def test_empty_400s_without_a_lost_answer_mean_nothing(house: House) -> None:
    fingerprint = (await house.holding()).fingerprint
    house.connector.always["revoke"] = empty_400()
    for _ in range(3):
        with pytest.raises(ConnectorUnauthenticated):
            await house.scheduler.revoke(fingerprint)
        await house.run_for(5 * MINUTE)
    assert state(house) is State.CONNECTED
    assert len(revoked(house)) == 3
    assert "revocation-failed" not in reasons(house)


@pytest.mark.parametrize("failure", NO_PROOF)
async def test_nothing_but_the_empty_400_means_that_the_certificate_is_revoked(
    house: House, failure: str
) -> None:
    fingerprint = (await house.holding()).fingerprint
    house.connector.script["revoke"].append(lost())
    house.connector.always["revoke"] = NO_PROOF[failure]()
    with pytest.raises(SidecarError):
        await house.scheduler.revoke(fingerprint)
    await house.run_for(HOUR)
    assert state(house) is State.CONNECTED
    del house.connector.always["revoke"]
    await house.run_for(HOUR)
    assert state(house) is State.REVOKED


@pytest.mark.parametrize("failure", ["refused connection", "TLS alert", "untrusted server", "conflict"])
async def test_a_revocation_that_certainly_failed_is_left_to_the_caller(house: House, failure: str) -> None:
    fingerprint = (await house.holding()).fingerprint
    house.connector.always["revoke"] = NO_PROOF[failure]()
    with pytest.raises(SidecarError) as caught:
        await house.scheduler.revoke(fingerprint)
    assert caught.value.detail == "it failed"
    await house.restart()
    await house.run_for(HOUR)
    assert len(revoked(house)) == 1
    assert details(house, "revocation-failed") == ["it failed"]


async def test_what_was_to_be_revoked_is_revoked_after_it_was_superseded(
    tmp_path: Path,
) -> None:
    house = House(tmp_path)
    before = (await house.holding()).fingerprint
    house.connector.always["revoke"] = lost()
    with pytest.raises(ConnectorUnavailable):
        await house.scheduler.revoke(before)
    await renew(house)
    del house.connector.always["revoke"]
    await house.run_for(HOUR)
    assert state(house) is State.CONNECTED
    assert house.fingerprint != before
    assert details(house, "superseded-revoked") == [None]
    house.close()
