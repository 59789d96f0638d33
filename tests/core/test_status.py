"""The state is the first that fits, at the second when it begins to fit, and its reasons are named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_sidecar.core.credential import Chain, Credential
from compass_sidecar.core.generation import Facts, Generation, Origin
from compass_sidecar.core.policy import Policy
from compass_sidecar.core.status import Progress, State, Status, degraded_reasons, state_of
from tests.support.authority import NOW, Authority, ec_key

TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
LIFETIME = 100 * DAY
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280's word for "without an end"
CONNECTED = (State.CONNECTED, ())


@cache
def generation(
    *, end: datetime = NOW + LIFETIME, ca_left: timedelta = LAST - NOW, revoked_at: datetime | None = None
) -> Generation:
    authority = Authority.create(key=ec_key(1), not_before=NOW - DAY, lifetime=ca_left + DAY)
    leaf = authority.issue(key=ec_key(2).public_key(), not_before=NOW, lifetime=end - NOW)
    facts = Facts(Origin.RENEW, "https://connector.example/graphql", NOW, revoked_at=revoked_at)
    return Generation("name", Credential(Chain.of([leaf, authority.certificate]), b"key"), facts)


def status(current: Generation | None = None, **changes: object) -> Status:
    good = Status(version="1", started_at=NOW, generation=current or generation(), due_at=NOW + LIFETIME / 2)
    return replace(good, **changes)  # type: ignore[arg-type]


def test_a_good_credential_is_connected_without_a_reason() -> None:
    assert state_of(status(), NOW) == CONNECTED


@pytest.mark.parametrize(
    ("late", "state", "reasons"),
    [
        (-SECOND, State.DEGRADED, ("renewal-overdue",)),
        (-TICK, State.DEGRADED, ("renewal-overdue",)),
        (timedelta(0), State.EXPIRED, ("credential-expired", "renewal-overdue")),
        (DAY, State.EXPIRED, ("credential-expired", "renewal-overdue")),
    ],
)
def test_it_expires_at_the_second_of_its_end(late: timedelta, state: State, reasons: tuple[str, ...]) -> None:
    assert state_of(status(), NOW + LIFETIME + late) == (state, reasons)


def test_it_expires_with_the_ca_that_ends_first() -> None:
    current = status(generation(ca_left=DAY), due_at=None)
    assert state_of(current, NOW + DAY - TICK) == (State.DEGRADED, ("ca-expires-first",))
    assert state_of(current, NOW + DAY) == (State.EXPIRED, ("credential-expired", "ca-expires-first"))


def test_a_renewal_that_did_not_move_the_end_is_the_fault_of_a_ca_that_cuts_it() -> None:
    end = NOW + LIFETIME
    for ca_left, reasons in ((LIFETIME, ("ca-expires-first",)), (LIFETIME * 10, ())):
        current = generation(end=end, ca_left=ca_left)
        unmoved = replace(current, facts=replace(current.facts, replaced_end=end))
        assert state_of(status(unmoved), NOW)[1] == reasons


@pytest.mark.parametrize("ca_left", [DAY, LIFETIME * 10])
@pytest.mark.parametrize("now", [NOW, NOW + 2 * LIFETIME])
def test_what_was_revoked_stays_revoked_even_when_it_has_expired(ca_left: timedelta, now: datetime) -> None:
    state, reasons = state_of(status(generation(ca_left=ca_left, revoked_at=NOW)), now)
    assert state is State.REVOKED
    assert reasons[0] == "credential-revoked"


def test_without_a_credential_it_is_unconnected_and_says_what_else_is_wrong() -> None:
    empty = Status(version="1", started_at=NOW)
    assert state_of(empty, NOW) == (State.UNCONNECTED, ("not-connected",))
    failing = replace(empty, progress=Progress(consecutive_failures=3), warnings=("token-unusable",))
    reasons = ("not-connected", "renewal-failing", "token-unusable")
    assert state_of(failing, NOW) == (State.UNCONNECTED, reasons)


@pytest.mark.parametrize(("failures", "degraded"), [(0, False), (2, False), (3, True), (1000, True)])
def test_three_failures_in_a_row_degrade(failures: int, degraded: bool) -> None:
    failing = status(progress=Progress(consecutive_failures=failures))
    assert state_of(failing, NOW) == ((State.DEGRADED, ("renewal-failing",)) if degraded else CONNECTED)


@pytest.mark.parametrize(
    ("past_due", "degraded"),
    [(-SECOND, False), (timedelta(0), False), (5 * DAY, False), (5 * DAY + TICK, True), (9 * DAY, True)],
)
def test_a_twentieth_of_the_lifetime_past_due_degrades(past_due: timedelta, degraded: bool) -> None:
    now = NOW + LIFETIME / 2 + past_due
    assert state_of(status(), now) == ((State.DEGRADED, ("renewal-overdue",)) if degraded else CONNECTED)


def test_a_certificate_without_an_end_can_be_overdue() -> None:
    current = generation(end=LAST)
    due_at = Policy(window_ratio=0.01, jitter_ratio=0).due_at(current.chain, "instance")
    assert state_of(status(current, due_at=due_at), due_at + DAY) == CONNECTED


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("skew", "degraded"),
    [(timedelta(0), False), (2 * MINUTE, False), (2 * MINUTE + TICK, True), (DAY, True)],
)
def test_a_clock_two_minutes_wrong_either_way_degrades(sign: int, skew: timedelta, degraded: bool) -> None:
    skewed = status(clock_skew=sign * skew)
    assert state_of(skewed, NOW) == ((State.DEGRADED, ("clock-skew",)) if degraded else CONNECTED)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"pending": "ab"}, ("proof-pending",)),
        ({"generation": generation(ca_left=50 * DAY)}, ("ca-expires-first",)),
        ({"generation": generation(ca_left=LIFETIME - SECOND)}, ("ca-expires-first",)),
    ],
)
def test_a_signed_answer_without_a_proof_and_a_ca_that_ends_first_degrade(
    changes: dict[str, object], reasons: tuple[str, ...]
) -> None:
    assert state_of(status(**changes), NOW) == (State.DEGRADED, reasons)


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": generation(ca_left=LIFETIME)},
        {"progress": Progress(in_progress=True)},
        {"due_at": None},
        {"announced_url": "https://elsewhere.example"},
        {"connector_url": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_nothing_else_degrades(changes: dict[str, object]) -> None:
    assert state_of(status(**changes), NOW) == CONNECTED


def test_warnings_are_reasons_that_leave_the_state_alone() -> None:
    warnings = ("import-rejected", "publish-failed")
    assert state_of(status(warnings=warnings), NOW) == (State.CONNECTED, warnings)
    degraded = status(warnings=warnings, pending="ab")
    assert state_of(degraded, NOW) == (State.DEGRADED, ("proof-pending", *warnings))


def test_every_reason_is_named_at_once() -> None:
    everything = status(
        generation(ca_left=90 * DAY),
        pending="ab",
        clock_skew=DAY,
        progress=Progress(consecutive_failures=3),
        due_at=NOW,
    )
    assert degraded_reasons(everything, NOW + 20 * DAY) == (
        "renewal-failing",
        "renewal-overdue",
        "proof-pending",
        "clock-skew",
        "ca-expires-first",
    )


def test_states_are_tried_in_the_order_of_the_interface() -> None:
    assert [str(state) for state in State] == ["revoked", "unconnected", "expired", "degraded", "connected"]


@given(
    st.sampled_from([None, generation(), generation(ca_left=DAY), generation(revoked_at=NOW)]),
    st.integers(0, 5),
    st.sampled_from([None, "ab"]),
    st.none() | st.timedeltas(-DAY, DAY),
    st.timedeltas(-LIFETIME, 2 * LIFETIME),
)
def test_connected_is_whatever_has_no_reason_and_only_that(
    current: Generation | None, failures: int, pending: str | None, skew: timedelta | None, passed: timedelta
) -> None:
    progress = Progress(consecutive_failures=failures)
    looked_at = replace(status(), generation=current, pending=pending, clock_skew=skew, progress=progress)
    state, reasons = state_of(looked_at, NOW + passed)
    assert (state is State.CONNECTED) == (reasons == ())
    assert len(set(reasons)) == len(reasons)
