"""Which faults a request meets: specifications, counts, operations, and chaos that can be repeated."""

from datetime import UTC, datetime

import pytest

from compass_emulator import FAULTS, Emulator
from compass_emulator.faults.plan import (
    ConnectionFault,
    Delay,
    EdgeAnswer,
    ErrorMessage,
    Fault,
    FaultPlan,
    GatewayAnswer,
    LostAnswer,
    SignResult,
    Situation,
    parse_fault,
)
from tests.emulator.talking import CONFIGURATION, PROBE, SIGN, ask, first_client_id, make_csr


def plan(*specs: str, chaos: float = 0.0, seed: int = 1) -> FaultPlan:
    made = FaultPlan(FAULTS, chaos=chaos, seed=seed)
    for spec in specs:
        made.add(spec)
    return made


def situation(operation: str) -> Situation:
    return Situation(operation=operation, listener="mtls", now=datetime.now(UTC))


def names(made: FaultPlan, operation: str, *kinds: type[Fault]) -> list[str]:
    faults = made.faults_for(situation(operation))
    for kind in kinds or (Fault,):
        faults.take(kind)
    return faults.names


@pytest.mark.parametrize(
    ("spec", "operation", "left", "param"),
    [
        ("empty-400", "any", None, ""),
        ("empty-400@sign*3", "sign", 3, ""),
        ("slow:2s", "any", None, "2s"),
        ("slow@probe*1:0.5", "probe", 1, "0.5"),
        ("wrong-key", "sign", None, ""),
        ("wrong-key@any", "sign", None, ""),
        ("alert", "connect", None, "48"),
        ("redirect:https://a:1/b@c*2", "any", None, "https://a:1/b@c*2"),
        ("odd-subject:", "configuration", None, ""),
    ],
)
def test_a_specification_says_where_how_often_and_with_what(
    spec: str, operation: str, left: int | None, param: str
) -> None:
    active = parse_fault(spec, FAULTS)
    assert (active.operation, active.left, active.param) == (operation, left, param)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("nonsense", "there is no fault 'nonsense'"),
        ("empty400", "did you mean 'empty-400'"),
        ("empty-400@nowhere", "there is no operation 'nowhere'"),
        ("wrong-key@probe", "wrong-key is a fault of sign, not of probe"),
        ("alert@sign", "alert is a fault of connect, not of sign"),
        ("empty-400@connect", "every operation but connect"),
        ("empty-400:5", "takes no parameter"),
        ("slow:soon", "is not a duration"),
        ("alert:bell", "is not the number of a TLS alert"),
        ("status:7", "is not an HTTP status"),
        ("huge-body:0", "is not a number of MiB"),
        ("empty-400*x", r"is not NAME\[@operation\]\[\*count\]\[:parameter\] in this order, such as "),
        ("empty-400*3@sign", r"is not NAME.*; did you mean 'empty-400@sign\*3'\?"),
        ("slow:2s@sign*3", r"is not a duration.*; did you mean 'slow@sign\*3:2s'\?"),
        ("slow*3:2s@sign", r"did you mean 'slow@sign\*3:2s'\?"),
        ("slow:2s@nowhere", "is not a duration: [^;]*$"),
        ("@sign*3", "is not NAME"),
        ("", "is not NAME"),
    ],
)
def test_a_bad_specification_is_refused_with_a_reason(spec: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_fault(spec, FAULTS)


def test_a_counted_fault_happens_so_often() -> None:
    made = plan("429*2")
    assert [names(made, "sign", EdgeAnswer) for _ in range(3)] == [["429"], ["429"], []]
    assert made.listing() == []


def test_a_fault_of_an_operation_leaves_the_others_alone() -> None:
    made = plan("empty-400@sign")
    assert names(made, "configuration", GatewayAnswer) == []
    assert names(made, "sign", GatewayAnswer) == ["empty-400"]


def test_the_first_of_a_kind_goes_first_and_kinds_combine() -> None:
    made = plan("empty-400*1", "502-empty", "slow", "half-answer")
    assert names(made, "probe", GatewayAnswer, Delay, LostAnswer) == ["empty-400", "slow", "half-answer"]
    assert names(made, "probe", GatewayAnswer, Delay, LostAnswer) == ["502-empty", "slow", "half-answer"]


def test_a_fault_of_connections_does_not_touch_requests() -> None:
    made = plan("reset-connect")
    assert names(made, "probe", ConnectionFault) == []
    assert names(made, "connect", ConnectionFault) == ["reset-connect"]


def test_chaos_is_repeatable_and_keeps_its_rate() -> None:
    first, second = (
        [names(played, "sign") for _ in range(50)] for played in (plan(chaos=0.5, seed=7) for _ in range(2))
    )
    assert first == second
    assert len({tuple(met) for met in first}) > 5
    made = plan(chaos=0.3)
    met = sum(bool(names(made, "sign")) for _ in range(2_000))
    assert 500 < met < 700
    made.clear()
    assert not any(names(made, "sign") for _ in range(100))


def test_chaos_without_a_seed_chooses_one_that_repeats_it() -> None:
    made = FaultPlan(FAULTS, chaos=0.5)
    met = [names(made, "probe") for _ in range(50)]
    made.set_chaos(0.5, made.seed)
    assert [names(made, "probe") for _ in range(50)] == met
    assert FaultPlan(FAULTS, chaos=0.5).seed != made.seed


def test_chaos_suits_the_operation() -> None:
    made = plan(chaos=1.0)
    for _ in range(300):
        assert names(made, "probe", SignResult) == []
    met = {name for _ in range(2_000) for name in names(made, "connect")}
    assert met <= {name for name, row in FAULTS.items() if row.operation == "connect"}
    assert len(met) > 8


@pytest.mark.anyio
async def test_faults_reach_the_operation_they_name(emulator: Emulator) -> None:
    emulator.fault("empty-400@sign*1")
    assert (await ask(emulator, CONFIGURATION)).status_code == 200
    assert (await ask(emulator, PROBE)).status_code == 200
    csr = make_csr(first_client_id(emulator))
    assert (await ask(emulator, SIGN, {"csr": csr})).status_code == 400
    assert (await ask(emulator, SIGN, {"csr": csr})).status_code == 200
    assert emulator.counters["faults"] == {"empty-400": 1}


@pytest.mark.anyio
async def test_a_fault_that_ends_a_request_early_leaves_later_ones_unused(emulator: Emulator) -> None:
    emulator.fault("429*1")
    emulator.fault("internal-system-error*1")
    assert (await ask(emulator, PROBE)).status_code == 429
    assert "internal system error" in (await ask(emulator, PROBE)).text
    assert names(plan("internal-system-error"), "probe", ErrorMessage) == ["internal-system-error"]
