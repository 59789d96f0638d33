"""The policy of interface section 11, at boundary seconds and for lifetimes from a minute to ten years."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from compass_sidecar.core.credential import Chain, Credential
from compass_sidecar.core.generation import Facts, Generation, Origin, Pending, Signed
from compass_sidecar.core.policy import (
    EXPIRED_INTERVAL,
    Connect,
    Decision,
    Failed,
    Pace,
    Policy,
    Renew,
    Situation,
    Wait,
    backoff,
    decide,
    in_danger,
    last_success,
    left,
    lifetime,
    longest_wait,
    moved,
    nearly_over,
    renewal_at,
)
from compass_sidecar.errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    DirectorRefused,
    NotRecognised,
    StoreWriteFailed,
    SubjectRefused,
    UnusableAnswer,
)
from tests.support.authority import NOW, Authority, ec_key

TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)
FLOOR = timedelta(milliseconds=100)
LIFETIMES = [MINUTE, 5 * MINUTE, HOUR, DAY, 90 * DAY, YEAR, 10 * YEAR]
ALMOST_ONE = 1 - 2**-53
INSTANCE = "0f8a"
EXACT = Policy(jitter_ratio=0)  # due at exactly 0.667 of the lifetime

lifetimes = st.sampled_from(LIFETIMES) | st.integers(60, int(10 * YEAR / SECOND)).map(lambda n: n * SECOND)
draws = st.sampled_from([0.0, ALMOST_ONE]) | st.floats(0, 1, exclude_max=True)


@cache
def issued(duration: timedelta, ca_left: timedelta = 40 * YEAR) -> Chain:
    """A leaf of that lifetime from NOW on, whose CA ends that long after NOW."""
    authority = Authority.create(key=ec_key(1), not_before=NOW - DAY, lifetime=ca_left + DAY)
    leaf = authority.issue(key=ec_key(2).public_key(), not_before=NOW, lifetime=duration)
    return Chain.of([leaf, authority.certificate])


def generation(
    chain: Chain,
    *,
    origin: Origin = Origin.RENEW,
    activated_at: datetime = NOW,
    **others: Any,
) -> Generation:
    facts = Facts(
        origin=origin,
        connector_url="https://connector.example/graphql",
        activated_at=activated_at,
        **others,
    )
    return Generation("name", Credential(chain, b"key"), facts)


def pending(origin: Origin, *, signed: bool) -> Pending:
    answer = Signed(issued(YEAR), NOW) if signed else None
    url = "https://connector.example/graphql"
    return Pending(origin, None, NOW, url, url, None, "CN=x", b"key", b"csr", signed=answer)


def situation(
    current: Generation | Chain | None,
    *,
    pending: Pending | None = None,
    failed: Failed | None = None,
    policy: Policy = EXACT,
    pace: Pace = Pace(),  # noqa: B008 - it is frozen
) -> Situation:
    if isinstance(current, Chain):
        current = generation(current)
    return Situation(current, pending, failed, policy, INSTANCE, pace)


def since(ago: timedelta) -> Pace:
    """The credential in use was signed so long ago, and nothing was asked for since."""
    return Pace(request=ago, signature=ago, start=ago)


def waited(wait: timedelta, *, ago: timedelta = timedelta(0), asked: bool = False) -> Failed:
    return Failed(ago, wait, asked_to_wait=asked)


# --- when renewal is due


@given(lifetimes, st.floats(0.001, 0.999), st.floats(0, 0.999), st.text(max_size=20))
def test_renewal_is_due_between_the_window_and_the_window_plus_the_jitter(
    duration: timedelta, window: float, jitter: float, instance: str
) -> None:
    due_at = Policy(window, jitter).due_at(issued(duration), instance)
    spread = min(jitter, (1 - window) / 2)
    latest = NOW + duration * (1 - window)
    assert latest - duration * spread - TICK <= due_at <= latest + TICK
    assert NOW + duration * (1 - window) / 2 - TICK <= due_at < issued(duration).effective_not_after


@given(lifetimes, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
@example(90 * DAY, 0.9, 0.5)
@example(MINUTE, 0.5, 0.25)
def test_one_number_is_drawn_for_a_certificate_and_scaled_by_the_settings(
    duration: timedelta, window: float, jitter: float
) -> None:
    chain = issued(duration)
    drawn = (NOW + duration * 0.5 - Policy(0.5, 0.25).due_at(chain, INSTANCE)) / (duration * 0.25)
    due_at = NOW + duration * (1 - window - drawn * min(jitter, (1 - window) / 2))
    assert abs(Policy(window, jitter).due_at(chain, INSTANCE) - due_at) <= max(10 * TICK, duration * 1e-7)


@pytest.mark.parametrize("duration", LIFETIMES)
def test_without_jitter_the_window_alone_decides(duration: timedelta) -> None:
    assert EXACT.due_at(issued(duration), INSTANCE) == NOW + duration * (1 - 0.333)


def test_the_same_certificate_is_due_at_the_same_time_whenever_asked() -> None:
    assert Policy().due_at(issued(DAY), "a") == Policy().due_at(issued(DAY), "a")


def test_instances_and_certificates_are_due_at_other_times() -> None:
    dues = {Policy().due_at(issued(DAY), str(instance)) for instance in range(100)}
    assert len(dues) == 100
    assert Policy().due_at(issued(DAY), "a") != Policy().due_at(issued(DAY, 20 * YEAR), "a")


def test_a_herd_of_instances_spreads_evenly_over_the_jitter() -> None:
    policy, chain, tenths = Policy(0.5, 0.25), issued(90 * DAY), [0] * 10
    for instance in range(2000):
        before = NOW + 90 * DAY * 0.5 - policy.due_at(chain, str(instance))
        tenths[int(before / (90 * DAY * 0.25) * 10)] += 1
    assert all(100 < each < 300 for each in tenths)


@pytest.mark.parametrize("duration", LIFETIMES)
def test_a_lifetime_ends_with_the_ca_that_expires_first(duration: timedelta) -> None:
    chain = issued(duration, duration / 2)
    assert lifetime(chain) == duration / 2
    assert EXACT.due_at(chain, INSTANCE) == NOW + duration / 2 * (1 - 0.333)


def test_a_ca_that_ended_before_its_leaf_began_leaves_no_lifetime() -> None:
    chain = issued(DAY, -HOUR)
    assert lifetime(chain) == left(chain, NOW) == timedelta(0)
    assert decide(situation(chain), NOW) == Renew("expired")


# --- decisions


@pytest.mark.parametrize("duration", LIFETIMES)
def test_at_the_second_when_it_is_due_it_is_renewed_and_not_before(duration: timedelta) -> None:
    chain = issued(duration)
    due_at = EXACT.due_at(chain, INSTANCE)
    for early in (TICK, SECOND, duration / 3, duration * 2):
        assert decide(situation(chain), due_at - early) == Wait(due_at)
    for late in (timedelta(0), TICK, SECOND, duration / 4):
        assert decide(situation(chain), due_at + late) == Renew("due")


@pytest.mark.parametrize("duration", LIFETIMES)
def test_at_the_second_of_its_end_it_has_expired(duration: timedelta) -> None:
    chain = issued(duration)
    assert decide(situation(chain), NOW + duration - TICK) == Renew("due")
    assert decide(situation(chain), NOW + duration) == Renew("expired")
    assert decide(situation(chain), NOW + duration + YEAR) == Renew("expired")


def test_a_step_of_the_clock_either_way_leads_to_the_decision_of_that_time() -> None:
    chain = issued(90 * DAY)
    due_at = EXACT.due_at(chain, INSTANCE)
    for now in (NOW, NOW - YEAR, NOW + 59 * DAY):
        assert decide(situation(chain), now) == Wait(due_at)
    assert decide(situation(chain), NOW + 80 * DAY) == Renew("due")


@pytest.mark.parametrize(
    ("current", "wanted"),
    [
        (None, Connect("not-connected")),
        (generation(issued(DAY), revoked_at=NOW), Connect("credential-revoked")),
        (generation(issued(DAY, -HOUR), revoked_at=NOW), Connect("credential-revoked")),
        (generation(issued(DAY)), Wait(EXACT.due_at(issued(DAY), INSTANCE))),
        (generation(issued(DAY, -HOUR)), Renew("expired")),
    ],
    ids=["none", "revoked", "revoked and expired", "good", "expired"],
)
def test_without_anything_under_way_the_credential_decides(
    current: Generation | None, wanted: Decision
) -> None:
    assert decide(situation(current), NOW) == wanted
    unsigned = situation(current, pending=pending(Origin.RENEW, signed=False))
    assert decide(unsigned, NOW) == wanted
    for going_on in (
        pending(Origin.RENEW, signed=True),
        pending(Origin.CONNECT, signed=True),
        pending(Origin.CONNECT, signed=False),
    ):
        assert decide(situation(current, pending=going_on), NOW) == Renew("resume")


@pytest.mark.parametrize("current", [None, generation(issued(DAY)), generation(issued(DAY, -HOUR))])
def test_nothing_is_done_before_the_backoff_is_over(current: Generation | None) -> None:
    resume = pending(Origin.CONNECT, signed=True)
    for ago, over in ((0, False), (59, False), (60, True), (600, True)):
        failed = waited(MINUTE, ago=ago * SECOND)
        decision = decide(situation(current, failed=failed, pending=resume), NOW)
        assert decision == (Renew("resume") if over else Wait(NOW + MINUTE - ago * SECOND))


def test_a_failure_long_before_it_is_due_does_not_bring_the_next_attempt_forward() -> None:
    chain = issued(90 * DAY)
    failed = waited(MINUTE, ago=2 * MINUTE)
    assert decide(situation(chain, failed=failed), NOW) == Wait(EXACT.due_at(chain, INSTANCE))


# --- the pace: by elapsed time, whatever the clocks say


@pytest.mark.parametrize(
    ("duration", "pause"), [(MINUTE, 6), (99 * SECOND, 9.9), (100 * SECOND, 10), (90 * DAY, 10)]
)
def test_two_signatures_are_ten_seconds_or_a_tenth_of_the_lifetime_apart(
    duration: timedelta, pause: float
) -> None:
    chain, now = issued(duration), NOW + duration * 0.8
    for ago in (timedelta(0), pause * SECOND - TICK):
        asked = Pace(request=ago, signature=duration)
        assert decide(situation(chain, pace=asked), now) == Wait(now + pause * SECOND - ago)
    assert decide(situation(chain, pace=Pace(request=pause * SECOND)), now) == Renew("due")
    assert decide(situation(chain, pace=Pace(request=None)), now) == Renew("due")


def test_an_operator_may_want_a_longer_pause() -> None:
    policy, now = replace(EXACT, min_interval=5 * MINUTE), NOW + 42 * MINUTE
    asked = Pace(request=2 * MINUTE, signature=42 * MINUTE)
    assert decide(situation(issued(HOUR), policy=policy, pace=asked), now) == Wait(now + 3 * MINUTE)


PAUSES = [
    (10 * SECOND, SECOND),
    (MINUTE, 6 * SECOND),  # a tenth of it, which is more than a twentieth
    (4 * MINUTE, 12 * SECOND),
    (HOUR, 3 * MINUTE),
    (5 * HOUR, 15 * MINUTE),
    (90 * DAY, 15 * MINUTE),
]


def assert_waits(current: Generation, now: datetime, pause: timedelta) -> None:
    """Until `pause` after its signature, in the same boot; in another one, after the start."""
    for ago in (timedelta(0), pause / 2, pause - TICK):
        wait = Wait(now + pause - ago)
        assert decide(situation(current, pace=since(ago)), now) == wait
    assert isinstance(decide(situation(current, pace=since(pause)), now), Renew)


@pytest.mark.parametrize(("duration", "pause"), PAUSES)
@pytest.mark.parametrize("share", [0.667, 0.99, 1, 40], ids=["due", "nearly over", "over", "years ago"])
@pytest.mark.parametrize("whose", ["ours", "the Connector's"])
def test_a_certificate_that_is_due_when_it_comes_is_not_replaced_at_once(
    duration: timedelta, pause: timedelta, share: float, whose: str
) -> None:
    chain, then = issued(duration), NOW + duration * share
    clocks = {"activated_at": then} if whose == "ours" else {"connector_time": then}
    current = generation(chain, **clocks)
    assert_waits(current, then, pause)
    # The pause that does not depend on the boot is the longer one's, if it is that.
    other_boot = Pace(start=timedelta(0))
    least = max(min(15 * MINUTE, duration / 20), SECOND)
    assert decide(situation(current, pace=other_boot), then) == Wait(then + least)
    assert isinstance(decide(situation(current, pace=Pace(start=least)), then), Renew)


@pytest.mark.parametrize(("duration", "pause"), PAUSES)
def test_a_certificate_that_a_clock_makes_due_a_moment_later_is_not_replaced_at_once(
    duration: timedelta, pause: timedelta
) -> None:
    current = generation(issued(duration), activated_at=NOW, connector_time=NOW)
    for later in (duration * 0.67, duration, YEAR):
        assert_waits(current, NOW + later, pause)
    # After a reboot nothing says that it is a clock.
    assert isinstance(decide(situation(current, pace=Pace(start=SECOND)), NOW + duration), Renew)


def test_a_window_that_opens_at_once_is_obeyed() -> None:
    policy = Policy(window_ratio=0.99, jitter_ratio=0, min_interval=timedelta(0))
    current = generation(issued(HOUR), activated_at=NOW, connector_time=NOW)
    for ago in (0 * SECOND, 35 * SECOND):
        decision = decide(situation(current, policy=policy, pace=since(ago)), NOW + ago)
        assert decision == Wait(NOW + 36 * SECOND)
    assert decide(situation(current, policy=policy, pace=since(36 * SECOND)), NOW + 36 * SECOND) == Renew(
        "due"
    )


@pytest.mark.parametrize(("duration", "pause"), PAUSES)
@pytest.mark.parametrize("moved_back", [timedelta(0), SECOND])
def test_a_renewal_that_did_not_move_the_end_is_not_repeated_for_a_while(
    duration: timedelta, pause: timedelta, moved_back: timedelta
) -> None:
    chain = issued(YEAR, duration)
    current = generation(chain, replaced_end=chain.effective_not_after + moved_back)
    assert not moved(current)
    assert_waits(current, NOW + duration * 0.7, pause)


def test_a_renewal_that_moved_the_end_by_a_second_is_one_like_any_other() -> None:
    chain = issued(90 * DAY)
    due_at = EXACT.due_at(chain, INSTANCE)
    current = generation(chain, replaced_end=chain.effective_not_after - SECOND)
    assert moved(current)
    assert decide(situation(current, pace=since(60 * DAY)), due_at) == Renew("due")


def test_one_that_was_proven_late_is_replaced_before_its_end() -> None:
    chain, now = issued(90 * DAY), NOW + 90 * DAY - 10 * MINUTE
    current = generation(chain, activated_at=now)
    assert decide(situation(current, pace=since(89 * DAY)), now) == Renew("due")
    failed_since = Pace(request=timedelta(0), signature=89 * DAY, start=DAY)
    assert decide(situation(current, pace=failed_since), now) == Wait(now + 10 * SECOND)


@pytest.mark.parametrize(("drops", "pause"), [(1, 10), (2, 20), (3, 40), (7, 640), (8, 1280), (9, 24 * 60)])
def test_after_answers_that_could_not_be_proven_the_pause_doubles(drops: int, pause: int) -> None:
    chain = issued(YEAR)
    now = EXACT.due_at(chain, INSTANCE)
    current = generation(chain, drops=drops)
    for ago in (timedelta(0), MINUTE):
        dropped = Pace(drop=ago, start=YEAR)
        assert decide(situation(current, pace=dropped), now) == Wait(now + pause * MINUTE - ago)
    rebooted = Pace(start=MINUTE)
    assert decide(situation(current, pace=rebooted), now) == Wait(now + (pause - 1) * MINUTE)


def test_the_pause_after_a_drop_is_a_tenth_of_what_is_left_at_most() -> None:
    chain = issued(90 * DAY)
    now = chain.effective_not_after - 20 * MINUTE
    dropped = Pace(drop=timedelta(0), signature=89 * DAY)
    assert decide(situation(generation(chain, drops=5), pace=dropped), now) == Wait(now + 2 * MINUTE)


def test_a_proof_waits_for_no_pace() -> None:
    under_way = pending(Origin.RENEW, signed=True)
    current = generation(issued(90 * DAY), drops=3)
    assert decide(situation(current, pending=under_way, pace=since(timedelta(0))), NOW) == Renew("resume")


def test_a_first_connection_that_was_cut_off_asks_again_after_ten_seconds_at_the_earliest() -> None:
    under_way = pending(Origin.CONNECT, signed=False)
    policy = replace(EXACT, min_interval=HOUR)  # longer than the second token lives
    asked = Pace(request=4 * SECOND)
    assert decide(situation(None, pending=under_way, policy=policy, pace=asked), NOW) == Wait(
        NOW + 6 * SECOND
    )
    later = Pace(request=10 * SECOND)
    assert decide(situation(None, pending=under_way, pace=later), NOW) == Renew("resume")


def test_a_first_connection_moved_the_end() -> None:
    assert moved(generation(issued(DAY), origin=Origin.CONNECT))


def test_an_import_is_renewed_without_any_pause() -> None:
    renewed_at = NOW + 80 * DAY
    current = generation(issued(90 * DAY), origin=Origin.IMPORT, activated_at=renewed_at)
    assert decide(situation(current, pace=Pace(start=timedelta(0))), renewed_at) == Renew("due")
    assert last_success(current) is None


@pytest.mark.parametrize("origin", [Origin.RENEW, Origin.CONNECT])
def test_a_renewal_or_connection_is_a_success_of_its_time(origin: Origin) -> None:
    assert last_success(generation(issued(DAY), origin=origin, activated_at=NOW)) == NOW


# --- what a person or a proof must know


@pytest.mark.parametrize("duration", LIFETIMES)
def test_a_tenth_of_the_lifetime_is_nearly_over(duration: timedelta) -> None:
    chain = issued(duration)
    assert not nearly_over(chain, NOW + duration * 9 / 10 - SECOND)
    assert nearly_over(chain, NOW + duration * 9 / 10)
    assert nearly_over(chain, NOW + duration + DAY)


@pytest.mark.parametrize(
    ("duration", "patience"),
    [
        (20 * SECOND, 5 * SECOND),
        (MINUTE, 10 * SECOND),
        (HOUR, 3 * MINUTE),
        (200 * MINUTE, 10 * MINUTE),
        (90 * DAY, 10 * MINUTE),
    ],
)
def test_the_old_one_is_in_danger_in_its_last_minutes(duration: timedelta, patience: timedelta) -> None:
    chain = issued(duration)
    assert not in_danger(chain, NOW + duration - patience)
    assert in_danger(chain, NOW + duration - patience + TICK)
    assert in_danger(chain, NOW + duration + DAY)


def test_who_has_nothing_is_in_danger() -> None:
    assert in_danger(None, NOW)


# --- the backoff

TRANSIENT = [
    ConnectorUnavailable("down"),
    ConnectorTimeout("slow"),
    ConnectorUntrusted("stranger"),
    ConnectorProtocol("nonsense"),
    StoreWriteFailed("full"),
]


def answered(status: int) -> ConnectorUnavailable:
    error = ConnectorUnavailable(f"the Connector answered {status}")
    error.status = status
    return error


TRANSIENT += [answered(status) for status in (429, 500, 502, 503, 504)]
REFUSALS = [
    ConnectorRejected("no"),
    SubjectRefused("no"),
    ConnectorUnauthenticated("who?"),
    NotRecognised("400"),
    DirectorRefused("no token"),
    UnusableAnswer("it does not hold together"),
    answered(403),
    answered(404),
]


def wait_after(
    error: ConnectorError | StoreWriteFailed,
    failures: int,
    *,
    chain: Chain | None,
    now: datetime = NOW,
    draw: float = ALMOST_ONE,
) -> timedelta:
    return backoff(error, failures, chain=chain, now=now, draw=draw)


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: error.code)
@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (8, 128), (9, 256), (10, 300), (10_000, 300)]
)
def test_waits_start_within_a_second_and_double_up_to_five_minutes(
    error: ConnectorError, failures: int, seconds: int
) -> None:
    assert wait_after(error, failures, chain=issued(DAY)) == seconds * SECOND
    assert wait_after(error, failures, chain=issued(DAY), draw=0.5) == seconds * SECOND / 2
    assert wait_after(error, failures, chain=issued(DAY), draw=0) == FLOOR


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("failures", "minutes"), [(1, 1), (2, 2), (3, 4), (4, 5), (5, 5), (10_000, 5)])
def test_waits_after_a_refusal_start_within_a_minute(
    error: ConnectorError, failures: int, minutes: int
) -> None:
    assert wait_after(error, failures, chain=issued(DAY)) == minutes * MINUTE
    assert wait_after(error, failures, chain=issued(DAY), draw=0.25) == minutes * MINUTE / 4


@pytest.mark.parametrize(
    ("duration", "gone", "cap"),
    [
        (MINUTE, timedelta(0), 6 * SECOND),
        (MINUTE, 50 * SECOND, SECOND),
        (MINUTE, 59 * SECOND, FLOOR),
        (MINUTE, 59.9 * SECOND, FLOOR),
        (HOUR, 10 * MINUTE, 5 * MINUTE),
        (HOUR, 50 * MINUTE, MINUTE),
        (DAY, timedelta(0), 5 * MINUTE),
        (2500 * MINUTE, timedelta(0), 5 * MINUTE),
        (5000 * MINUTE, timedelta(0), 10 * MINUTE),
        (500 * HOUR, timedelta(0), HOUR),
        (90 * DAY, timedelta(0), HOUR),
        (90 * DAY, 90 * DAY - 5 * HOUR, 30 * MINUTE),
        (10 * YEAR, 10 * YEAR - 10 * HOUR, HOUR),
        (10 * YEAR, 10 * YEAR - 10 * MINUTE, MINUTE),
    ],
)
def test_no_wait_is_longer_than_a_tenth_of_what_is_left_or_the_cap_of_the_lifetime(
    duration: timedelta, gone: timedelta, cap: timedelta
) -> None:
    assert longest_wait(issued(duration), NOW + gone) == cap
    for error in (*TRANSIENT, *REFUSALS):
        assert wait_after(error, 50, chain=issued(duration), now=NOW + gone) == cap


@pytest.mark.parametrize("failures", [1, 5, 50])
@pytest.mark.parametrize(
    "error", [*TRANSIENT, *REFUSALS, ConnectorUnavailable("busy", retry_after=SECOND)], ids=str
)
def test_an_expired_credential_is_tried_every_fifteen_minutes(error: ConnectorError, failures: int) -> None:
    for late in (timedelta(0), SECOND, YEAR):
        for draw in (0.0, ALMOST_ONE):
            wait = wait_after(error, failures, chain=issued(DAY), now=NOW + DAY + late, draw=draw)
            assert wait == 15 * MINUTE == EXPIRED_INTERVAL


def test_without_a_credential_waits_double_up_to_fifteen_minutes() -> None:
    waits = [wait_after(ConnectorTimeout("slow"), failures, chain=None) for failures in (1, 2, 10, 11, 99)]
    assert waits == [SECOND, 2 * SECOND, 512 * SECOND, 15 * MINUTE, 15 * MINUTE]


@pytest.mark.parametrize(
    ("asked", "heeded"),
    [
        (30 * SECOND, 30 * SECOND),
        (HOUR, HOUR),
        (6 * HOUR, 6 * HOUR),
        (6 * HOUR + SECOND, 6 * HOUR),
        (YEAR, 6 * HOUR),
        (timedelta.max, 6 * HOUR),
        (timedelta(0), FLOOR),
    ],
    ids=str,
)
def test_a_wait_that_was_asked_for_is_heeded_up_to_a_quarter_of_what_is_left(
    asked: timedelta, heeded: timedelta
) -> None:
    error = ConnectorUnavailable("busy", retry_after=asked)
    for failures in (1, 50):
        assert wait_after(error, failures, chain=issued(DAY), draw=0) == heeded
    assert wait_after(error, 1, chain=issued(DAY), draw=0.5) == max(heeded, SECOND / 2) * 1.05
    assert wait_after(error, 1, chain=issued(DAY)) <= max(heeded, SECOND) * 1.1


@pytest.mark.parametrize("asked", [timedelta(0), SECOND, MINUTE])
def test_a_wait_that_was_asked_for_is_no_shorter_than_the_backoff(asked: timedelta) -> None:
    error = ConnectorUnavailable("busy", retry_after=asked)
    assert wait_after(error, 8, chain=issued(DAY), draw=0.5) == 64 * SECOND * 1.05
    refused = answered(403)
    refused.retry_after = asked
    assert wait_after(refused, 1, chain=issued(DAY)) >= MINUTE


def test_a_wait_that_was_asked_for_is_a_quarter_of_an_hour_at_most_without_a_credential() -> None:
    error = ConnectorUnavailable("busy", retry_after=DAY)
    assert wait_after(error, 1, chain=None, draw=0) == 15 * MINUTE
    assert 15 * MINUTE < wait_after(error, 1, chain=None) <= 16.5 * MINUTE


def test_a_wait_that_was_asked_for_in_the_last_second_is_short_and_not_nothing() -> None:
    error = ConnectorUnavailable("busy", retry_after=HOUR)
    assert wait_after(error, 1, chain=issued(MINUTE), now=NOW + 58 * SECOND, draw=0) == SECOND / 2
    assert wait_after(error, 1, chain=issued(MINUTE), now=NOW + MINUTE - TICK) == FLOOR


errors = st.sampled_from([*TRANSIENT, *REFUSALS]) | st.timedeltas(timedelta(0), timedelta.max).map(
    lambda asked: ConnectorUnavailable("busy", retry_after=asked)
)


@given(lifetimes, st.floats(0, 1.5), errors, st.integers(1, 2**70), draws)
def test_no_wait_is_nothing_and_none_longer_than_the_longest_of_its_kind(
    duration: timedelta, share: float, error: ConnectorError, failures: int, draw: float
) -> None:
    chain, now = issued(duration), NOW + duration * share
    asked = isinstance(error, ConnectorUnavailable) and error.retry_after is not None
    longest = max(left(chain, now) / 4 * 1.1 + TICK, FLOOR) if asked else longest_wait(chain, now)
    wait = wait_after(error, failures, chain=chain, now=now, draw=draw)
    assert FLOOR <= wait <= max(longest, EXPIRED_INTERVAL if left(chain, now) == 0 * SECOND else FLOOR)


# --- the loop: at least ten attempts always remain


def attempts_until_expiry(chain: Chain, now: datetime, error: ConnectorError, *, failures: int) -> int:
    """How many attempts the loop still makes after a failure at `now`, if each fails at once with the
    longest wait."""
    attempts, asked = 0, isinstance(error, ConnectorUnavailable) and error.retry_after is not None
    while attempts < 10:
        wait = backoff(error, failures + attempts, chain=chain, now=now, draw=ALMOST_ONE)
        decision = decide(situation(chain, failed=waited(wait, asked=asked)), now)
        assert isinstance(decision, Wait)
        assert decision.until > now
        passed = decision.until - now
        now = decision.until
        if now >= chain.effective_not_after:
            break
        assert decide(situation(chain, failed=waited(wait, ago=passed, asked=asked)), now) == Renew("due")
        attempts += 1
    return attempts


@given(lifetimes, st.floats(0, 1), errors, st.integers(1, 100))
@example(MINUTE, 1.0, TRANSIENT[0], 1)
@example(MINUTE, 1.0, REFUSALS[0], 50)
@example(10 * YEAR, 1.0, ConnectorUnavailable("busy", retry_after=YEAR), 50)
@example(10 * YEAR, 0.0, ConnectorUnavailable("busy", retry_after=YEAR), 50)
def test_ten_attempts_always_remain_in_what_is_left_of_a_lifetime(
    duration: timedelta, share: float, error: ConnectorError, failures: int
) -> None:
    chain = issued(duration)
    # Below the floor of a tenth of a second no ten fit: two seconds is where this promise begins.
    latest = chain.effective_not_after - 2 * SECOND
    due_at = EXACT.due_at(chain, INSTANCE)
    now = due_at + (latest - due_at) * share
    assert attempts_until_expiry(chain, now, error, failures=failures) == 10


@given(st.integers(10, 2000).map(lambda n: n * timedelta(milliseconds=1)))
def test_in_the_last_seconds_there_are_as_many_attempts_as_tenths_of_a_second(rest: timedelta) -> None:
    chain = issued(MINUTE)
    made = attempts_until_expiry(chain, NOW + MINUTE - rest, TRANSIENT[0], failures=50)
    assert made >= min(10, rest // FLOOR - 1)


@settings(deadline=None)
@given(lifetimes, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_after_a_suspend_the_wait_is_cut_to_what_is_left_now(
    duration: timedelta, before: float, after: float, asked: bool
) -> None:
    chain = issued(duration)
    due_at = EXACT.due_at(chain, INSTANCE)
    failed_at = due_at + (chain.effective_not_after - due_at) * before
    now = failed_at + (chain.effective_not_after - failed_at) * after
    assume(now < chain.effective_not_after - SECOND)
    error = ConnectorUnavailable("busy", retry_after=YEAR if asked else None)
    wait = backoff(error, 50, chain=chain, now=failed_at, draw=ALMOST_ONE)
    # A clock that does not run during the suspend saw only a moment pass.
    decision = decide(situation(chain, failed=waited(wait, ago=TICK, asked=asked)), now)
    share = 0.276 if asked else 0.1
    assert isinstance(decision, Wait)
    assert now < decision.until <= now + max(left(chain, now) * share, FLOOR)


def test_a_wait_drawn_when_there_was_time_is_cut_when_there_is_none() -> None:
    chain, now = issued(90 * DAY), NOW + 90 * DAY - 10 * MINUTE
    hour, asked = waited(HOUR, ago=SECOND), waited(20 * DAY, ago=SECOND, asked=True)
    assert decide(situation(chain, failed=hour), now) == Wait(now + MINUTE - SECOND)
    assert decide(situation(chain, failed=asked), now) == Wait(now + 2.75 * MINUTE - SECOND)


def test_a_wait_drawn_before_the_end_is_a_quarter_of_an_hour_at_most_after_it() -> None:
    chain, now = issued(90 * DAY), NOW + 91 * DAY
    assert decide(situation(chain, failed=waited(HOUR)), now) == Wait(now + 15 * MINUTE)
    assert decide(situation(chain, failed=waited(9 * HOUR, asked=True)), now) == Wait(now + 16.5 * MINUTE)
    assert decide(situation(chain, failed=waited(HOUR, ago=15 * MINUTE)), now) == Renew("expired")


def test_a_suspend_of_hours_ends_the_wait_by_the_clock_that_ran_on() -> None:
    chain = issued(90 * DAY)
    now = NOW + 80 * DAY
    assert decide(situation(chain, failed=waited(HOUR, ago=8 * HOUR)), now) == Renew("due")


def test_a_success_leaves_nothing_to_wait_for() -> None:
    assert decide(situation(issued(90 * DAY), failed=None), NOW + 80 * DAY) == Renew("due")


generations = st.none() | st.builds(
    generation,
    st.sampled_from([issued(MINUTE), issued(DAY), issued(90 * DAY), issued(DAY, HOUR), issued(DAY, -HOUR)]),
    origin=st.sampled_from(Origin),
    activated_at=st.sampled_from([NOW - YEAR, NOW, NOW + HOUR, NOW + YEAR]),
    replaced_end=st.sampled_from([None, NOW, NOW + 80 * YEAR]),
    revoked_at=st.sampled_from([None, None, NOW]),
)
failures = st.none() | st.builds(
    waited,
    st.timedeltas(FLOOR, 90 * DAY),
    ago=st.timedeltas(timedelta(0), YEAR),
    asked=st.booleans(),
)
under_way = st.none() | st.builds(
    pending, st.sampled_from([Origin.RENEW, Origin.CONNECT]), signed=st.booleans()
)


@settings(deadline=None)
@given(generations, under_way, failures, st.timedeltas(-YEAR, YEAR))
def test_every_wait_ends_later_than_now_and_leads_to_something_to_do(
    current: Generation | None, going_on: Pending | None, failed: Failed | None, passed: timedelta
) -> None:
    now = NOW + passed
    first = decide(situation(current, pending=going_on, failed=failed), now)
    if not isinstance(first, Wait):
        return
    assert first.until > now
    over = replace(failed, ago=failed.ago + (first.until - now)) if failed is not None else None
    then = decide(situation(current, pending=going_on, failed=over), first.until)
    if isinstance(then, Wait):  # the backoff is over, and it is not due yet
        assert failed is not None
        assert current is not None
        wanted = renewal_at(situation(current), current, first.until)
        assert then == Wait(wanted)
