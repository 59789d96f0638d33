"""The kinds of fault, which of them are active, and which of them a request or a connection meets.

A kind is the point at which a fault steps in, in the order of a request's life. At each point the first
active fault of that kind is taken, so faults of different kinds combine (`slow:2` with `wrong-key`), and
a fault that ends the request early leaves the later ones unused.

A fault is named `NAME[@operation][*count][:parameter]`, for instance `empty-400@sign*3` or `slow:2s`:
without an operation it applies wherever it makes sense, without a count until it is cleared.
"""

import random
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cryptography import x509

from ..connection import Connection, Wire
from ..http import Answer
from ..options import ListenerName
from ..tls import ContextFactory

if TYPE_CHECKING:
    from .chains import ChainBuilder

OPERATIONS = ("configuration", "sign", "probe", "revoke", "director", "connect", "any")
_SPEC = re.compile(r"([a-z0-9-]+)(?:@([a-z]+))?(?:\*(\d+))?(?::(.*))?", re.DOTALL)
_PARTS = re.compile(r"^[a-z0-9-]*|@[a-z]+|\*\d+|:[^@*]*")
_FORM = "NAME[@operation][*count][:parameter] in this order, such as slow@sign*3:2s"
_CONNECT_SHARE = (
    0.25  # of the chaos rate: connections are fewer than calls, and their faults cost clients more
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The operation is `connect` for a connection; the age is that of the presented certificate."""

    operation: str
    listener: ListenerName
    now: datetime
    response_key: str = "result"
    certificate_age: float | None = None


def _always(_situation: Situation, _param: str) -> bool:
    return True


def _at_once(_param: str) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table.

    `default` is the parameter if none is given, None where the fault takes none; `check` raises ValueError
    for a bad one. `operation` is the only one that it makes sense for, or `any`; `weight` is its share in
    chaos, 0 for what chaos should leave alone; `when` narrows it further.
    """

    name: str
    meaning: str
    _: KW_ONLY
    default: str | None = None
    check: Callable[[str], object] = str
    operation: str = "any"
    weight: float = 1.0
    when: Callable[[Situation, str], bool] = _always


@dataclass(frozen=True, slots=True)
class ConnectionFault(Fault):
    """Below TLS or in the handshake; the connection ends with it."""

    act: Callable[[Connection, ssl.SSLContext, str], Awaitable[None]]
    operation: str = field(default="connect", kw_only=True)


@dataclass(frozen=True, slots=True)
class TLSFault(Fault):
    """The handshake is genuine, with another certificate or another trust anchor than the listener's own."""

    act: ContextFactory
    operation: str = field(default="connect", kw_only=True)


@dataclass(frozen=True, slots=True)
class EdgeAnswer(Fault):
    """Ingress or Oathkeeper answers before token and certificate were looked at: no token is consumed."""

    act: Callable[[Situation, str], Answer]


@dataclass(frozen=True, slots=True)
class EdgeDisconnect(Fault):
    """The connection breaks before anything was done: no token is consumed."""

    act: Callable[[Connection, Wire, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class GatewayAnswer(Fault):
    """The hydrator or the gateway answers: a token is consumed, and the Connector does not act."""

    act: Callable[[Situation, str], Answer]


@dataclass(frozen=True, slots=True)
class ErrorMessage(Fault):
    """The Connector answers 200 with this GraphQL error, perhaps late; nothing is minted or signed."""

    act: Callable[[Situation, str], str]
    delay: Callable[[str], float] = field(default=_at_once, kw_only=True)


@dataclass(frozen=True, slots=True)
class ConfigurationResult(Fault):
    """The Connector mints, and answers something odd."""

    act: Callable[[dict[str, Any], str], dict[str, Any]]
    operation: str = field(default="configuration", kw_only=True)


@dataclass(frozen=True, slots=True)
class SignResult(Fault):
    """The Connector signs, and answers something odd."""

    act: "Callable[[ChainBuilder, x509.Certificate, str], dict[str, str]]"
    operation: str = field(default="sign", kw_only=True)


@dataclass(frozen=True, slots=True)
class Rewrite(Fault):
    """The Connector acted; its answer arrives changed."""

    act: Callable[[Answer, Situation, str], Answer]


@dataclass(frozen=True, slots=True)
class DateHeader(Fault):
    """The answer has another `Date` header, whichever part of the system gives it; None leaves it out."""

    act: Callable[[datetime, str, int], str | None]


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """The Connector acted; the answer takes this many seconds longer."""

    act: Callable[[str], float]


@dataclass(frozen=True, slots=True)
class LostAnswer(Fault):
    """The Connector acted; the answer does not arrive, or not whole."""

    act: Callable[[Connection, Wire, str], Awaitable[None]]


F = TypeVar("F", bound=Fault)


@dataclass(slots=True)
class Active:
    """An active fault: `left` is how often it still happens (None: no limit), `times` how often it did."""

    fault: Fault
    operation: str
    param: str
    left: int | None
    spec: str
    times: int = 0

    def applies(self, situation: Situation) -> bool:
        """Whether it applies here, whatever its kind."""
        connecting = situation.operation == "connect"
        if self.left == 0 or connecting != (self.fault.operation == "connect"):
            return False
        if self.operation not in ("any", situation.operation):
            return False
        return self.fault.when(situation, self.param)


@dataclass(frozen=True, slots=True)
class Taken(Generic[F]):
    """A fault that happens now, and how often it happened before."""

    fault: F
    param: str
    before: int


class RequestFaults:
    """One request or connection: what it takes from the plan, and the names of what it took."""

    def __init__(self, actives: list[Active], situation: Situation) -> None:
        self._actives = actives
        self._situation = situation
        self.names: list[str] = []

    def take(self, kind: type[F]) -> Taken[F] | None:
        """The first active fault of this kind that applies here, counted down."""
        for active in self._actives:
            if isinstance(active.fault, kind) and active.applies(self._situation):
                if active.left is not None:
                    active.left -= 1
                active.times += 1
                self.names.append(active.fault.name)
                return Taken(active.fault, active.param, active.times - 1)
        return None


class FaultPlan:
    """The active faults, and chaos: with a rate above 0, at most one random fault more per
    request or connection.

    With the same seed the same calls in the same order meet the same faults.
    """

    def __init__(self, table: Mapping[str, Fault], *, chaos: float = 0.0, seed: int | None = None) -> None:
        self._table = table
        self._actives: list[Active] = []
        self.set_chaos(chaos, seed)

    def set_chaos(self, rate: float, seed: int | None = None) -> None:
        """From now on, and from the beginning of a seed: a random one if none is given."""
        self.chaos = rate
        self.seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        self._rng = random.Random(self.seed)

    def add(self, spec: str) -> None:
        """Activates a fault; raises ValueError, saying what is wrong with the specification."""
        self._actives.append(parse_fault(spec, self._table))

    def clear(self) -> None:
        """Deactivates all, chaos included."""
        self._actives.clear()
        self.chaos = 0.0

    def listing(self) -> list[dict[str, Any]]:
        """What is active: JSON for the control endpoint."""
        return [
            {"fault": active.spec, "left": active.left, "meaning": active.fault.meaning}
            for active in self._actives
            if active.left != 0
        ]

    def faults_for(self, situation: Situation) -> RequestFaults:
        """What a request or a connection may meet."""
        self._actives = [active for active in self._actives if active.left != 0]
        return RequestFaults([*self._actives, *self._random(situation)], situation)

    def no_faults(self, situation: Situation) -> RequestFaults:
        """Those of a request that no fault applies to: none."""
        return RequestFaults([], situation)

    def _random(self, situation: Situation) -> list[Active]:
        share = _CONNECT_SHARE if situation.operation == "connect" else 1.0
        if self._rng.random() >= self.chaos * share:
            return []
        candidates = [
            active
            for fault in self._table.values()
            if fault.weight > 0
            and (active := Active(fault, fault.operation, fault.default or "", 1, fault.name)).applies(
                situation
            )
        ]
        return self._rng.choices(candidates, [one.fault.weight for one in candidates]) if candidates else []


def parse_fault(spec: str, table: Mapping[str, Fault]) -> Active:
    """A specification as an active fault; raises ValueError, with the order of the parts if it is wrong."""
    try:
        return _parsed(spec, table)
    except ValueError as error:
        ordered = _in_order(spec, table)
        raise ValueError(f"{error}; did you mean {ordered!r}?" if ordered else str(error)) from error


def _in_order(spec: str, table: Mapping[str, Fault]) -> str | None:
    """The parts of a specification in their order, where that makes a good one of a bad one."""
    name, *parts = _PARTS.findall(spec)
    ordered = "".join([name, *sorted(parts, key=lambda part: "@*:".index(part[0]))])
    if "".join([name, *parts]) != spec or ordered == spec:
        return None
    try:
        _parsed(ordered, table)
    except ValueError:
        return None
    return ordered


def _parsed(spec: str, table: Mapping[str, Fault]) -> Active:
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(f"{spec!r} is not {_FORM}")
    name, operation, count, param = match.groups()
    fault = table.get(name)
    if fault is None:
        near = get_close_matches(name, table, n=1)
        raise ValueError(f"there is no fault {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return Active(
        fault=fault,
        operation=_operation(fault, operation),
        param=_parameter(fault, param),
        left=int(count) if count else None,
        spec=spec,
    )


def _operation(fault: Fault, operation: str | None) -> str:
    if operation is None or operation == "any":
        return fault.operation
    if operation not in OPERATIONS:
        raise ValueError(f"there is no operation {operation!r}; there are {', '.join(OPERATIONS)}")
    if fault.operation not in ("any", operation) or (fault.operation == "any" and operation == "connect"):
        suited = "every operation but connect" if fault.operation == "any" else fault.operation
        raise ValueError(f"{fault.name} is a fault of {suited}, not of {operation}")
    return operation


def _parameter(fault: Fault, param: str | None) -> str:
    if fault.default is None:
        if param is not None:
            raise ValueError(f"{fault.name} takes no parameter")
        return ""
    chosen = fault.default if param is None else param
    try:
        fault.check(chosen)
    except ValueError as error:
        raise ValueError(f"{fault.name}: {error}") from error
    return chosen
