"""A signed answer waits for its proof; one that can never be proven is dropped, and renewals go on."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from compass_sidecar.core.policy import Policy
from compass_sidecar.core.status import State, state_of
from compass_sidecar.errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    NotRecognised,
    PairRefused,
    SidecarError,
    StoreDamaged,
    UnexpectedFailure,
    UnusableAnswer,
    UnusableURL,
)
from tests.support.authority import LIFETIME
from tests.support.connector import URL
from tests.support.house import House

pytestmark = pytest.mark.anyio
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
MOVED = "https://moved.example/connector/graphql"


def answered(status: int) -> ConnectorUnavailable:
    error = ConnectorUnavailable(f"the Connector answered {status}")
    error.status = status
    return error


REFUSALS = [
    ConnectorUnauthenticated("alert 48"),
    NotRecognised("400"),
    ConnectorRejected("no"),
    ConnectorProtocol("nonsense"),
    answered(401),
    answered(403),
    answered(404),
]
UNEXPECTED = [UnexpectedFailure("IDNAError"), UnicodeError("label too long"), MemoryError(), KeyError("x")]
PASSING = [
    ConnectorUnavailable("no such host"),
    *map(answered, (408, 429, 500, 502, 503, 504)),
    ConnectorTimeout("slow"),
    ConnectorUntrusted("the server certificate"),
    StoreDamaged("tls.crt cannot be read: permission denied"),
]
NEVER = [UnusableURL("xn--a"), PairRefused("ca key too small")]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "store", policy=Policy(jitter_ratio=0))
    yield made
    made.close()


async def fail_once(house: House) -> Exception:
    """One more attempt, which fails."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind
        await house.attempt()
    return caught.value


async def fail_for(house: House, duration: timedelta, *, attempts: int) -> None:
    """So many attempts, the first one now and the last one when the time is over."""
    began = house.clock.elapsed()
    for number in range(attempts):
        await fail_once(house)
        passed = house.clock.elapsed() - began
        next_at = duration * (number + 1) / max(attempts - 1, 1)
        if number + 1 < attempts:
            house.clock.advance(max(next_at - passed, timedelta(0)))


# --- what counts


@pytest.mark.parametrize("error", [*REFUSALS, *UNEXPECTED], ids=repr)
async def test_what_failed_for_ten_minutes_and_three_times_is_dropped(house: House, error: Exception) -> None:
    before = (await house.holding(age=DAY)).fingerprint
    house.refuse_new_pairs(error)
    await fail_for(house, 10 * MINUTE, attempts=3)
    assert house.renewal.pending is None
    assert house.store.pending() is None
    assert house.fingerprint == before
    assert house.connector.calls["sign"] == 1
    assert "pending-dropped" in house.said.names()


@pytest.mark.parametrize("error", [*REFUSALS, *UNEXPECTED], ids=repr)
@pytest.mark.parametrize(("minutes", "attempts"), [(9.5, 3), (9.5, 20), (60, 2)], ids=str)
async def test_what_failed_for_less_or_less_often_is_kept(
    house: House, error: Exception, minutes: float, attempts: int
) -> None:
    await house.holding(age=DAY)
    house.refuse_new_pairs(error)
    await fail_for(house, minutes * MINUTE - 10 * SECOND, attempts=attempts)
    assert house.renewal.pending is not None
    house.accept_new_pairs()
    await house.attempt()
    assert house.connector.calls["sign"] == 1


@pytest.mark.parametrize("error", PASSING, ids=repr)
async def test_what_says_nothing_about_the_pair_never_counts(house: House, error: Exception) -> None:
    await house.holding(age=DAY)
    house.refuse_new_pairs(error)
    await fail_for(house, 10 * HOUR, attempts=20)
    assert house.renewal.pending is not None
    house.accept_new_pairs()
    await house.attempt()
    assert house.connector.calls["sign"] == 1


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
async def test_a_refusal_of_both_pairs_never_counts(house: House, error: Exception) -> None:
    await house.holding(age=DAY)
    house.connector.always["probe"] = error
    await fail_for(house, 10 * HOUR, attempts=20)
    assert house.renewal.pending is not None
    del house.connector.always["probe"]
    await house.attempt()
    assert house.connector.calls["sign"] == 1


async def test_the_old_pair_is_asked_about_at_the_same_url(house: House) -> None:
    before = (await house.holding(age=DAY)).fingerprint
    house.connector.connector_url = MOVED
    house.refuse_new_pairs(ConnectorUnauthenticated("400"))
    await fail_once(house)
    last = house.connector.doors["probe"][-1]
    assert (last.url, last.pair and last.pair.fingerprint) == (MOVED, before)


async def test_what_counted_is_counted_over_restarts_and_anew_after_a_reboot(house: House) -> None:
    await house.holding(age=DAY)
    house.refuse_new_pairs(ConnectorUnauthenticated("400"))
    for _ in range(2):
        await fail_once(house)
        house.clock.advance(4 * MINUTE)
        await house.restart()
    house.clock.boot_id = "another boot"
    await house.restart()
    await fail_for(house, 9 * MINUTE, attempts=3)
    assert house.renewal.pending is not None
    house.clock.advance(MINUTE)
    await fail_once(house)
    assert house.renewal.pending is None


async def test_a_wall_clock_that_is_set_drops_nothing(house: House) -> None:
    await house.holding(age=10 * DAY)
    house.refuse_new_pairs(ConnectorUnauthenticated("400"))
    for _ in range(5):
        await fail_once(house)
        house.clock.step(HOUR)
    house.clock.step(-9 * HOUR)
    await fail_once(house)
    assert house.renewal.pending is not None


async def test_without_a_good_credential_nothing_is_dropped(house: House) -> None:
    await house.holding(age=LIFETIME - 2 * HOUR)
    house.refuse_new_pairs(ConnectorTimeout("slow"))
    await fail_once(house)
    house.clock.advance(3 * HOUR)
    house.refuse_new_pairs(ConnectorUnauthenticated("400"))
    await fail_for(house, HOUR, attempts=5)
    assert house.renewal.pending is not None
    house.accept_new_pairs()
    await house.attempt()
    assert house.connector.calls["sign"] == 1


# --- what can never be used


@pytest.mark.parametrize("error", NEVER, ids=repr)
async def test_what_can_never_be_used_is_dropped_at_once(house: House, error: ConnectorError) -> None:
    before = (await house.holding(age=DAY)).fingerprint
    house.refuse_new_pairs(error)
    failure = await fail_once(house)
    assert isinstance(failure, UnusableAnswer)
    assert failure.code == "connector-protocol"
    assert house.store.pending() is None
    assert house.fingerprint == before
    house.accept_new_pairs()
    await house.attempt()
    assert house.fingerprint != before


@pytest.mark.parametrize(
    "error",
    [UnusableURL("xn--a"), *UNEXPECTED, ConnectorProtocol("nonsense"), answered(404), ConnectorTimeout("")],
    ids=repr,
)
async def test_where_the_announced_url_fails_the_known_one_serves(house: House, error: Exception) -> None:
    await house.holding(age=DAY)
    house.connector.connector_url = MOVED
    house.refuse_new_pairs(error, url=MOVED)
    after = await house.attempt()
    assert after.facts.connector_url == URL
    assert after.facts.proven_at is not None
    assert "announced-url-unusable" in house.said.names()


async def test_an_unusable_url_is_dropped_only_if_the_known_one_refuses(house: House) -> None:
    await house.holding(age=DAY)
    house.connector.connector_url = MOVED
    errors = {MOVED: UnusableURL("xn--a"), URL: ConnectorTimeout("slow")}
    house.connector.refuse = lambda door: errors.get(door.url)
    assert isinstance(await fail_once(house), ConnectorTimeout)
    assert house.renewal.pending is not None
    errors[URL] = answered(404)
    assert isinstance(await fail_once(house), UnusableAnswer)
    assert house.renewal.pending is None


async def test_a_first_connection_with_an_unusable_url_is_refused(house: House) -> None:
    await house.scheduler.start()
    house.connector.refuse = lambda _: UnusableURL("xn--a")
    with pytest.raises(UnusableAnswer):
        await house.connect()
    assert house.renewal.generation is None
    assert house.renewal.pending is None


# --- after a drop


async def test_after_a_drop_the_next_signature_waits_longer_each_time(house: House) -> None:
    await house.holding(age=LIFETIME * 0.667)
    house.refuse_new_pairs(ConnectorUnauthenticated("400"))
    signed_at, dropped_at = [], []
    while len(dropped_at) < 6:
        signatures, drops = house.connector.calls["sign"], house.said.names().count("pending-dropped")
        await house.run_for(10 * SECOND)
        if house.connector.calls["sign"] > signatures:
            signed_at.append(house.clock.elapsed())
        if house.said.names().count("pending-dropped") > drops:
            dropped_at.append(house.clock.elapsed())
    pauses = [later - earlier for earlier, later in zip(dropped_at, signed_at[1:], strict=False)]
    for number, pause in enumerate(pauses):
        least = 10 * MINUTE * 2**number
        # The backoff is up to half an hour by then.
        assert least - 10 * SECOND <= pause <= max(least, HOUR / 2) + MINUTE, pauses
    house.accept_new_pairs()
    await house.run_for(6 * HOUR)
    assert state_of(house.scheduler.status, house.clock.now())[0] is State.CONNECTED
    assert house.current.facts.drops == 0


async def test_the_wait_after_a_drop_outlives_restarts_and_holds_back_no_caller(house: House) -> None:
    await house.holding(age=LIFETIME * 0.667)
    house.refuse_new_pairs(PairRefused("ca key too small"))
    await fail_once(house)
    for _ in range(9):
        await house.restart()
        await house.run_for(MINUTE)
    assert house.connector.calls["sign"] == 1
    house.accept_new_pairs()
    await house.scheduler.renew()
    assert house.connector.calls["sign"] == 2
    assert state_of(house.scheduler.status, house.clock.now())[0] is State.CONNECTED


@pytest.mark.parametrize("error", [REFUSALS[0], UNEXPECTED[0], UNEXPECTED[-1], *NEVER], ids=repr)
async def test_answers_that_cannot_be_proven_never_end_the_renewals(house: House, error: Exception) -> None:
    """The Connector is at fault for a week, and is cured long before the old certificate ends."""
    await house.holding(age=LIFETIME * 0.667)
    house.refuse_new_pairs(error)
    await house.run_for(8 * DAY)
    assert house.connector.calls["sign"] <= 20
    await house.restart()
    house.accept_new_pairs()
    await house.run_for(DAY)
    assert state_of(house.scheduler.status, house.clock.now())[0] is State.CONNECTED


# --- when time runs out


async def test_a_refused_pair_is_not_used_even_if_the_old_one_ends(house: House) -> None:
    before = (await house.holding(age=LIFETIME - 5 * MINUTE)).fingerprint
    house.refuse_new_pairs(ConnectorUnauthenticated("400"))
    with pytest.raises(ConnectorUnauthenticated):
        await house.attempt()
    assert house.fingerprint == before
    assert house.renewal.pending is None


@pytest.mark.parametrize("error", [answered(403), ConnectorProtocol("x")], ids=repr)
async def test_one_that_was_not_looked_at_is_used_if_the_old_one_ends(
    house: House, error: ConnectorError
) -> None:
    before = (await house.holding(age=LIFETIME - 5 * MINUTE)).fingerprint
    house.connector.always["probe"] = error  # whichever pair comes
    after = await house.attempt()
    assert after.chain.fingerprint != before
    assert after.facts.proven_at is None


# --- no way out


async def test_a_refused_answer_does_not_keep_a_new_token_from_being_used(house: House) -> None:
    await house.holding(age=LIFETIME - 2 * HOUR)
    house.refuse_new_pairs(ConnectorTimeout("slow"))
    await fail_once(house)
    house.clock.advance(3 * HOUR)
    pending = house.renewal.pending
    assert pending is not None
    assert pending.signed is not None
    refused = pending.signed.chain.fingerprint
    house.connector.refuse = lambda door: (
        ConnectorUnauthenticated("alert 45") if door.pair and door.pair.fingerprint == refused else None
    )
    await house.run_for(HOUR)
    assert house.fingerprint != refused
    house.inputs.one_time = house.token()
    await house.run_for(HOUR)
    assert state_of(house.scheduler.status, house.clock.now())[0] is State.CONNECTED
    assert house.connector.doors["configuration"][-1].token == "token-a"


async def test_an_error_of_the_tree_stays_what_it_is(house: House) -> None:
    await house.holding(age=DAY)
    for error in (*REFUSALS, *PASSING):
        house.refuse_new_pairs(error)
        assert await fail_once(house) is error
    assert all(isinstance(error, SidecarError) for error in (*REFUSALS, *PASSING))
