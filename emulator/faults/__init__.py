"""The table of faults: a new fault is a new row in one of the modules of this package.

A row is its kind (`plan.py`), a name, what it stands for, and what it does.
"""

from collections.abc import Mapping
from types import MappingProxyType

from . import answers, chains, configurations, connections, delivery
from .plan import Fault

_ROWS: tuple[Fault, ...] = (
    *connections.TLS,
    *answers.EDGE,
    *answers.GATEWAY,
    *answers.MESSAGES,
    *configurations.CONFIGURATIONS,
    *chains.CHAINS,
    *delivery.REWRITES,
    *answers.DATES,
    *delivery.TRANSPORT,
)
FAULTS: Mapping[str, Fault] = MappingProxyType({row.name: row for row in _ROWS})
