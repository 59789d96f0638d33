"""The kinds of fault: at which point of a request each one steps in, and what it needs for that.

In the order of a request's life. At each point the first active fault of that kind is taken, so faults of
different kinds combine (`slow:2` with `wrong-key`), and a fault that ends the request early leaves the
later ones unused.
"""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509

from .answers import Answer
from .circumstance import Circumstance
from .deliveries import Wire
from .forgeries import Forge
from .line import Line
from .server_tls import Disguise


def _always(_circumstance: Circumstance, _param: str) -> bool:
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
    when: Callable[[Circumstance, str], bool] = _always


@dataclass(frozen=True, slots=True)
class Misconnection(Fault):
    """Below TLS or in the handshake; the connection ends with it."""

    act: Callable[[Line, ssl.SSLContext, str], Awaitable[None]]
    operation: str = field(default="connect", kw_only=True)


@dataclass(frozen=True, slots=True)
class Disguised(Fault):
    """The handshake is genuine, with another certificate or other trust than the door's own."""

    act: Disguise
    operation: str = field(default="connect", kw_only=True)


@dataclass(frozen=True, slots=True)
class EdgeAnswer(Fault):
    """Ingress or Oathkeeper answers before anybody looked at token or certificate: nothing is burnt."""

    act: Callable[[Circumstance, str], Answer]


@dataclass(frozen=True, slots=True)
class EdgeDelivery(Fault):
    """The connection breaks before anybody acted: nothing is burnt."""

    act: Callable[[Line, Wire, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class GateAnswer(Fault):
    """Somebody answers after a token was consumed, before the Connector acts: the token is burnt."""

    act: Callable[[Circumstance, str], Answer]


@dataclass(frozen=True, slots=True)
class Message(Fault):
    """The Connector answers 200 with this GraphQL error, perhaps late; nothing is minted or signed."""

    act: Callable[[Circumstance, str], str]
    delay: Callable[[str], float] = field(default=_at_once, kw_only=True)


@dataclass(frozen=True, slots=True)
class ConfigurationResult(Fault):
    """The Connector mints, and answers something odd."""

    act: Callable[[dict[str, Any], str], dict[str, Any]]
    operation: str = field(default="configuration", kw_only=True)


@dataclass(frozen=True, slots=True)
class SignResult(Fault):
    """The Connector signs, and answers something odd."""

    act: Callable[[Forge, x509.Certificate, str], dict[str, str]]
    operation: str = field(default="sign", kw_only=True)


@dataclass(frozen=True, slots=True)
class Rewrite(Fault):
    """The Connector acted; its answer is spoilt on the way."""

    act: Callable[[Answer, Circumstance, str], Answer]


@dataclass(frozen=True, slots=True)
class DateHeader(Fault):
    """The answer, whoever gives it, has another `Date` header; None leaves it out."""

    act: Callable[[datetime, str, int], str | None]


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """The Connector acted; the answer takes this many seconds longer."""

    act: Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Delivery(Fault):
    """The Connector acted; the answer does not arrive, or not whole."""

    act: Callable[[Line, Wire, str], Awaitable[None]]
