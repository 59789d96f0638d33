"""What is known about a request, or a connection, when faults are chosen."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

DoorName = Literal["token", "mtls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstance:
    """The operation is `connect` for a connection; the age is that of the presented certificate."""

    operation: str
    door: DoorName
    now: datetime
    response_key: str = "result"
    certificate_age: float | None = None
