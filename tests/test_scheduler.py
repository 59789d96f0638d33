"""The loop over ninety days and more, in milliseconds: a fake clock, a real store, a scripted Connector."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from compass_sidecar.core.credential import Chain
from compass_sidecar.core.policy import Policy
from compass_sidecar.core.status import State, state_of
from compass_sidecar.engine.renewal import Plan
from compass_sidecar.errors import (
    Busy,
    ConnectorRejected,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    CredentialExpired,
    CredentialRevoked,
    MalformedCredential,
    NoCredential,
    NotCurrent,
    RenewedRecently,
    SettingsError,
)
from tests.support.authority import LIFETIME, NOW, Authority
from tests.support.connector import URL
from tests.support.house import House

pytestmark = pytest.mark.anyio
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
DOWN = ConnectorUnavailable("down")
DOWN.arrived = False


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "store", policy=Policy(jitter_ratio=0))
    yield made
    made.close()


def state(house: House) -> State:
    return state_of(house.scheduler.status, house.clock.now())[0]


def reasons(house: House) -> tuple[str, ...]:
    return state_of(house.scheduler.status, house.clock.now())[1]


# --- on time ----------------------------------------------------------------------------------------


async def test_nothing_is_asked_before_the_window_opens(house: House) -> None:
    await house.holding()
    await house.run_for(LIFETIME * 0.66)
    assert not house.connector.calls
    assert state(house) is State.CONNECTED


async def test_a_year_of_ninety_day_certificates_is_renewed_six_times(house: House) -> None:
    await house.holding()
    await house.run_for(365 * DAY)
    assert house.connector.calls["sign"] == 6
    assert house.connector.calls["configuration"] == 6
    assert state(house) is State.CONNECTED


async def test_a_minute_of_life_is_enough(tmp_path: Path) -> None:
    house = House(tmp_path, lifetime=MINUTE)
    await house.holding()
    for _ in range(10):
        await house.run_for(MINUTE)
        assert state(house) is State.CONNECTED
    assert 10 <= house.connector.calls["sign"] <= 30
    house.close()


async def test_a_success_clears_what_failures_left(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    house.connector.script["configuration"].extend([DOWN] * 4)
    await house.run_for(HOUR)
    progress = house.scheduler.status.progress
    assert (progress.consecutive_failures, progress.last_error) == (0, None)
    assert progress.last_success_at is not None
    assert [each for each in house.said.notices if each != "expiring"] == [
        "renewal-failed",
        "renewed",
        "recovered",
    ]


async def test_an_outage_costs_no_credential_and_few_calls(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    house.connector.always["configuration"] = DOWN
    await house.run_for(DAY)
    assert 20 <= house.connector.calls["configuration"] <= 200
    assert state(house) is State.DEGRADED
    assert "renewal-failing" in reasons(house)
    assert house.scheduler.status.progress.last_error.code == "connector-unavailable"
    del house.connector.always["configuration"]
    await house.run_for(2 * HOUR)
    assert state(house) is State.CONNECTED


async def test_an_operator_is_told_of_a_failing_renewal_once_a_day(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    house.connector.always["configuration"] = DOWN
    await house.run_for(3 * DAY)
    assert house.said.notices.count("renewal-failed") == 3


async def test_retry_after_is_heeded(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    house.connector.script["configuration"].append(ConnectorUnavailable("429", retry_after=20 * MINUTE))
    await house.run_for(19 * MINUTE)
    assert house.connector.calls["configuration"] == 1
    await house.run_for(4 * MINUTE)
    assert house.connector.calls["configuration"] == 2


async def test_an_end_that_does_not_move_is_not_chased(tmp_path: Path) -> None:
    house = House(tmp_path, lifetime=90 * DAY, policy=Policy(jitter_ratio=0))
    house.authority = type(house.authority).create(lifetime=2 * DAY)  # one of them is over
    house.connector.authority = house.authority
    await house.holding()
    await house.run_for(DAY - HOUR)
    assert "ca-expires-first" in reasons(house)
    # From the window's beginning on at most every L/20, until the CA ends; never in a loop.
    assert house.connector.calls["sign"] <= 60
    house.close()


async def test_a_token_that_was_not_even_sent_is_tried_again(house: House) -> None:
    await house.scheduler.start()
    house.inputs.one_time = house.token()
    house.connector.script["configuration"].append(ConnectorUntrusted("the server certificate"))
    await house.run_for(5 * MINUTE)
    assert house.said.notices == ["connected"]


async def test_a_first_connection_that_is_resumed_is_told_as_what_it_is(house: House) -> None:
    await house.scheduler.start()
    house.connector.script["sign"].append(ConnectorUnavailable("killed"))
    with pytest.raises(ConnectorUnavailable):
        await house.connect()
    await house.restart()
    await house.run_for(MINUTE)
    assert house.said.notices == ["connected"]


async def test_the_end_does_not_wait_for_a_connector_that_is_silent(house: House) -> None:
    house.inputs.one_time = house.token()
    house.connector.script["probe"].append(DOWN)  # so that it is used without a proof, which comes later
    await house.scheduler.start()
    house.connector.hanging = {"probe"}
    looking = asyncio.create_task(house.scheduler.run())
    await house.connector.hung.wait()
    await house.scheduler.stop(timedelta(0))
    await looking
    assert house.renewal.lock.locked() is False


# --- clocks -----------------------------------------------------------------------------------------


async def test_a_suspend_past_the_due_time_is_noticed_at_the_next_look(house: House) -> None:
    await house.holding()
    await house.run_for(HOUR)
    house.clock.suspend(LIFETIME * 0.7)
    await house.run_for(MINUTE)
    assert house.connector.calls["sign"] == 1


async def test_a_suspend_does_not_leave_a_long_backoff_standing(house: House) -> None:
    house.draw = lambda: 0.99
    await house.holding(age=LIFETIME * 0.7)
    house.connector.always["configuration"] = DOWN
    await house.run_for(12 * HOUR)
    left = house.current.chain.effective_not_after - house.clock.now()
    house.clock.suspend(left - 10 * MINUTE)
    del house.connector.always["configuration"]
    await house.run_for(2 * MINUTE)
    assert house.connector.calls["sign"] == 1


async def test_a_clock_set_forward_renews_early_and_set_back_does_no_harm(house: House) -> None:
    await house.holding()
    house.clock.step(LIFETIME * 0.7)
    await house.run_for(MINUTE)
    assert house.connector.calls["sign"] == 1
    house.clock.step(-LIFETIME * 0.7)
    await house.run_for(HOUR)
    assert house.connector.calls["sign"] == 1


async def test_a_clock_that_falls_behind_the_connectors_does_not_renew_too_late(house: House) -> None:
    await house.holding()
    house.connector_clock.note(house.clock.now())
    house.clock.step(-30 * DAY)
    await house.run_for(LIFETIME * 0.67)
    assert "clock-skew" in reasons(house)
    assert house.connector.calls["sign"] == 1


async def test_a_backoff_does_not_grow_when_the_clock_is_set_back(house: House) -> None:
    house.authority = house.connector.authority = Authority.create(not_before=NOW - LIFETIME)
    await house.holding(age=LIFETIME * 0.8)
    house.connector.script["configuration"].append(DOWN)
    await house.run_for(SECOND / 10)
    house.clock.step(-LIFETIME * 0.05)
    await house.run_for(MINUTE)
    assert house.connector.calls["sign"] == 1


# --- expired, unconnected, revoked ---------------------------------------------------------------------


async def test_expired_one_attempt_goes_out_every_quarter_of_an_hour(house: House) -> None:
    await house.holding(age=LIFETIME + HOUR)
    house.connector.always["configuration"] = ConnectorUnauthenticated("alert 45")
    await house.run_for(2 * HOUR)
    assert 8 <= house.connector.calls["configuration"] <= 9
    assert state(house) is State.EXPIRED
    assert house.said.notices.count("connect-needed") == 1


async def test_expired_by_our_clock_only_is_found_out(house: House) -> None:
    await house.holding(age=LIFETIME + HOUR)
    await house.run_for(MINUTE)
    assert state(house) is State.CONNECTED


async def test_the_first_good_token_leads_out_of_expired(house: House) -> None:
    await house.holding(age=LIFETIME + HOUR)
    house.connector.always["configuration"] = ConnectorUnauthenticated("alert 45")
    await house.run_for(HOUR)
    del house.connector.always["configuration"]
    house.inputs.one_time = house.token()
    await house.run_for(MINUTE)
    assert state(house) is State.CONNECTED
    assert house.connector.doors["configuration"][-1].token == "token-a"
    assert house.said.notices[-1] in {"connected", "recovered"}


async def test_expired_a_token_is_tried_at_every_look_while_the_connector_is_down(house: House) -> None:
    await house.holding(age=LIFETIME + HOUR)
    house.connector.always["configuration"] = DOWN
    house.inputs.one_time = house.token()
    await house.run_for(10 * MINUTE)
    assert 15 <= house.connector.calls["configuration"] <= 25
    del house.connector.always["configuration"]
    await house.run_for(MINUTE)
    assert state(house) is State.CONNECTED


async def test_without_anything_a_token_is_asked_for_once(house: House) -> None:
    await house.scheduler.start()
    await house.run_for(HOUR)
    assert state(house) is State.UNCONNECTED
    assert house.said.notices == ["connect-needed"]
    assert not house.connector.calls


async def test_a_token_connects_by_itself_and_is_used_once(house: House) -> None:
    house.inputs.one_time = house.token()
    await house.scheduler.start()
    await house.run_for(DAY)
    assert state(house) is State.CONNECTED
    assert house.connector.calls["configuration"] == 1
    assert house.said.notices == ["connected"]


async def test_a_token_waits_for_a_connector_that_is_down(house: House) -> None:
    house.inputs.one_time = house.token()
    house.connector.script["configuration"].extend([DOWN] * 5)
    await house.scheduler.start()
    await house.run_for(HOUR)
    assert state(house) is State.CONNECTED


async def test_a_revoked_credential_is_left_by_a_token_only(house: House) -> None:
    await house.holding()
    await house.scheduler.revoke(house.fingerprint)
    assert state(house) is State.REVOKED
    with pytest.raises(CredentialRevoked):
        house.scheduler.renew()
    await house.run_for(DAY)
    assert house.connector.calls["sign"] == 0
    await house.scheduler.connect("token-a", house.token().url)
    assert state(house) is State.CONNECTED


async def test_a_first_connection_that_was_cut_off_is_finished_by_the_loop(house: House) -> None:
    house.inputs.one_time = house.token()
    house.connector.script["sign"].append(DOWN)
    await house.scheduler.start()
    await house.run_for(10 * MINUTE)
    assert state(house) is State.CONNECTED
    assert house.connector.calls["configuration"] == 1


# --- what is signed and not proven -------------------------------------------------------------------


async def test_a_pending_proof_is_a_reason_and_is_tried_until_it_passes(house: House) -> None:
    await house.holding(age=LIFETIME * 0.7)
    house.connector.script["probe"].extend([DOWN] * 3)
    await house.run_for(SECOND / 5)
    assert {"proof-pending"} <= set(reasons(house))
    assert house.scheduler.status.pending is not None
    await house.run_for(HOUR)
    assert state(house) is State.CONNECTED
    assert house.connector.calls["sign"] == 1


async def test_what_was_used_unproven_is_proven_later(house: House) -> None:
    house.inputs.one_time = house.token()
    house.connector.script["probe"].extend([DOWN, DOWN])
    await house.scheduler.start()
    await house.run_for(MINUTE)
    assert {"unproven", "proof-failed"} <= set(reasons(house))
    assert state(house) is State.CONNECTED
    await house.run_for(10 * MINUTE)
    assert reasons(house) == ()
    assert house.current.facts.proven_at is not None


async def test_a_new_ca_is_a_reason_until_it_has_signed_once_more_and_both_are_named(house: House) -> None:
    await house.holding()
    old, new = house.connector.authority, Authority.create()
    house.connector.authority = new
    house.connector.script["probe"].extend([DOWN] * 2)
    with pytest.raises(ConnectorUnavailable):
        await house.scheduler.renew()
    assert {"proof-pending", "trust-anchor-changed"} <= set(reasons(house))
    await house.run_for(HOUR)
    assert house.current.chain.authorities == new.chain
    for _ in range(2):
        assert (state(house), reasons(house)) == (State.CONNECTED, ("trust-anchor-changed",))
        await house.restart()
    for event in (each for each in house.said.events if each["event"] == "trust-anchor-changed"):
        assert digest(new) in str(event["issuer"])
        assert digest(old) in str(event["previous_issuer"])
    house.clock.advance(MINUTE)
    await house.scheduler.renew()
    assert (state(house), reasons(house)) == (State.CONNECTED, ())


def digest(authority: Authority) -> str:
    return f"(SHA-256 {authority.certificate.fingerprint(SHA256()).hex()[:16]})"


# --- callers ------------------------------------------------------------------------------------------


async def test_callers_join_the_renewal_that_runs(house: House) -> None:
    await house.holding()
    tasks = [house.scheduler.renew() for _ in range(1000)]
    answers = await asyncio.gather(*tasks)
    assert len({answer.generation.chain.fingerprint for answer in answers}) == 1
    assert house.connector.calls["sign"] == 1


async def test_a_second_renewal_has_to_wait(house: House) -> None:
    await house.holding()
    await house.scheduler.renew()
    with pytest.raises(RenewedRecently) as caught:
        house.scheduler.renew()
    assert caught.value.retry_after == 10 * SECOND
    house.clock.advance(10 * SECOND)
    await house.scheduler.renew()


async def test_a_backoff_does_not_hold_back_a_caller(house: House) -> None:
    house.draw = lambda: 0.99
    await house.holding(age=LIFETIME * 0.7)
    house.connector.script["configuration"].append(ConnectorRejected("no"))
    await house.run_for(SECOND)
    await house.scheduler.renew()
    assert house.connector.calls["configuration"] == 2


async def test_what_cannot_be_renewed_says_why(house: House) -> None:
    await house.scheduler.start()
    with pytest.raises(NoCredential):
        house.scheduler.renew()
    house.hold(age=LIFETIME + DAY)
    await house.scheduler.start()
    with pytest.raises(CredentialExpired):
        house.scheduler.renew()


async def test_connect_and_revoke_are_never_joined(house: House) -> None:
    await house.holding()
    first = house.scheduler.connect("token-a", house.token().url)
    with pytest.raises(Busy):
        house.scheduler.connect("token-b", house.token().url)
    with pytest.raises(Busy):
        house.scheduler.revoke(house.fingerprint)
    await first
    with pytest.raises(NotCurrent):
        house.scheduler.revoke("0" * 64)


async def test_a_renewal_behind_a_connection_finds_it_done(house: House) -> None:
    await house.holding()
    connecting = house.scheduler.connect("token-a", house.token().url)
    await asyncio.sleep(0)
    renewing = house.scheduler.renew()
    await connecting
    with pytest.raises(RenewedRecently):
        await renewing
    assert house.connector.calls["sign"] == 1
    assert house.scheduler.status.progress.consecutive_failures == 0


async def test_a_refused_token_leaves_a_good_credential_connected(house: House) -> None:
    await house.holding()
    house.connector.always["configuration"] = ConnectorUnauthenticated("400")
    with pytest.raises(ConnectorUnauthenticated):
        await house.scheduler.connect("token-a", house.token().url)
    assert state(house) is State.CONNECTED
    progress = house.scheduler.status.progress
    assert (progress.last_error.code, progress.consecutive_failures) == ("connector-unauthenticated", 0)


async def test_who_waits_is_woken_and_finds_the_new_status(house: House) -> None:
    before = (await house.holding()).fingerprint
    waiting = house.scheduler.changed()
    renewing = house.scheduler.renew()
    await waiting.wait()
    assert house.scheduler.status.generation.chain.fingerprint != before
    await renewing
    assert house.scheduler.changed() is not waiting
    waiting = house.scheduler.changed()
    house.scheduler.begin_stop()
    assert waiting.is_set()
    assert house.scheduler.stopping()


# --- operators ------------------------------------------------------------------------------------------


async def test_wrong_files_stop_the_start_only_without_a_usable_credential(house: House) -> None:
    house.inputs.error = MalformedCredential("COMPASS_CLIENT_KEY_FILE: tls.key is encrypted")
    with pytest.raises(SettingsError, match=r"^COMPASS_CLIENT_KEY_FILE: tls\.key is encrypted$"):
        await house.scheduler.start()
    await house.holding()
    assert state(house) is State.CONNECTED
    assert "import-rejected" in reasons(house)


async def test_a_pair_that_is_not_taken_over_is_logged_with_the_reason(house: House) -> None:
    await house.holding()
    held = house.current
    older = held.chain.not_before - HOUR
    for pair, why in (
        (held.credential, "is the one in use"),
        (house.authority.credential(number=2, not_before=older), "which is not later than the beginning of"),
    ):
        house.inputs.pair = pair
        await house.run_for(2 * MINUTE)
        (said,) = [each for each in house.said.events if each["event"] == "import-ignored"]
        assert why in str(said["detail"])
        house.said.events.clear()
    assert house.current == held
    assert reasons(house) == ()


async def test_the_same_leaf_with_a_fuller_chain_takes_its_place(tmp_path: Path) -> None:
    house = House(tmp_path, plan=Plan(URL, revoke_superseded_after=HOUR))
    whole = house.authority.credential(not_before=house.clock.now())
    house.inputs.pair = replace(whole, chain=Chain.of([whole.chain.leaf]))
    await house.scheduler.start()
    assert house.current.chain.ca_pem is None
    before, waiting = house.current.facts, house.scheduler.changed()
    house.inputs.pair = whole
    await house.run_for(MINUTE)
    assert waiting.is_set()
    assert house.current.credential == whole
    assert house.current.facts == replace(before, activated_at=house.current.facts.activated_at)
    assert house.said.names().count("imported") == 2
    await house.run_for(2 * HOUR)
    assert "revoke" not in house.connector.calls
    assert "revocation-not-scheduled" not in house.said.names()
    house.close()


async def test_a_pair_that_begins_later_is_taken_over_when_it_begins(house: House) -> None:
    await house.holding()
    house.inputs.pair = house.authority.credential(number=2, not_before=house.clock.now() + HOUR)
    await house.run_for(MINUTE)
    assert "import-rejected" in reasons(house)
    (said,) = [each for each in house.said.events if each["event"] == "import-rejected"]
    assert str(said["detail"]).startswith("COMPASS_CLIENT_CERTIFICATE_FILE: ")
    await house.run_for(HOUR)
    assert house.said.names().count("imported") == 1
    assert "import-rejected" not in reasons(house)


async def test_a_pair_that_could_not_be_stored_is_taken_over_when_it_can_be(house: House) -> None:
    await house.holding(age=HOUR)
    house.inputs.pair = house.authority.credential(number=2, not_before=house.clock.now())
    generations = house.directory / "generations"
    aside = generations.rename(house.directory / "aside")
    await house.run_for(MINUTE)
    assert "import-rejected" in reasons(house)
    aside.rename(generations)
    await house.run_for(MINUTE)
    assert house.said.names().count("imported") == 1
    assert "import-rejected" not in reasons(house)


async def test_files_that_became_unreadable_are_not_taken_over_from_memory(house: House) -> None:
    await house.holding()
    house.inputs.pair = house.authority.credential(number=2, not_before=house.clock.now() + HOUR)
    await house.run_for(MINUTE)
    house.inputs.error = MalformedCredential("COMPASS_CLIENT_KEY_FILE: tls.key is empty")
    await house.run_for(MINUTE)
    house.inputs.error = None
    await house.run_for(2 * HOUR)
    assert "imported" not in house.said.names()


async def test_files_without_a_url_stop_the_start(house: House) -> None:
    house.inputs.pair = house.authority.credential()
    with pytest.raises(SettingsError, match="COMPASS_CONNECTOR_URL"):
        await house.scheduler.start()


async def test_newer_files_are_taken_over_while_running(tmp_path: Path) -> None:
    house = House(tmp_path, plan=Plan(URL))
    await house.holding(age=DAY)
    newer = house.authority.credential(number=1, not_before=house.clock.now())
    house.inputs.pair = newer
    await house.run_for(MINUTE)
    assert house.fingerprint == newer.chain.fingerprint
    assert house.scheduler.status.progress.last_success_at is None
    house.close()


async def test_the_end_coming_near_is_told(house: House) -> None:
    await house.holding(age=LIFETIME * 0.89)
    house.connector.always["configuration"] = DOWN
    await house.run_for(HOUR)
    assert "expiring" not in house.said.notices
    await house.run_for(DAY)
    assert house.said.notices.count("expiring") == 1


async def test_the_next_key_is_made_while_nothing_else_happens(house: House) -> None:
    await house.holding()
    assert house.keys.begun == 0
    await house.run_for(MINUTE)
    assert house.keys.begun > 0


async def test_the_next_attempt_is_announced(house: House) -> None:
    await house.holding()
    status = house.scheduler.status
    assert status.next_attempt_at == status.due_at == house.current.chain.not_before + LIFETIME * 0.667


async def test_a_state_that_comes_of_the_clock_alone_is_logged_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "compass_sidecar.engine.sidecar")
    await house.holding()
    house.connector.always["configuration"] = DOWN
    await house.run_for(LIFETIME * 0.8)
    house.connector.always.clear()
    await house.run_for(DAY)
    told = [vars(each) for each in caplog.records if each.message == "state-changed"]
    assert [(each["levelname"], each["state"], each["reasons"]) for each in told] == [
        ("INFO", "connected", []),
        ("WARNING", "degraded", ["renewal-failing"]),
        ("WARNING", "degraded", ["renewal-failing", "renewal-overdue"]),
        ("INFO", "connected", []),
    ]
