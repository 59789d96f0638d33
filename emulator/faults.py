"""The table of faults: a new kind of misbehaviour is a new row in one of the modules below.

A row is its kind (the point at which it steps in, `fault_kinds.py`), a name, what it stands for, and what
it does.
"""

from collections.abc import Mapping
from types import MappingProxyType

from . import date_faults, graphql_faults, http_faults, message_faults
from .fault_kinds import Fault

_ROWS: tuple[Fault, ...] = (
    *http_faults.TLS,
    *http_faults.EDGE,
    *http_faults.GATE,
    *message_faults.MESSAGES,
    *graphql_faults.CONFIGURATIONS,
    *graphql_faults.CHAINS,
    *graphql_faults.REWRITES,
    *date_faults.DATES,
    *http_faults.TRANSPORT,
)
FAULTS: Mapping[str, Fault] = MappingProxyType({row.name: row for row in _ROWS})
