"""A Compass Connector for development and tests: `python -m emulator`, or in-process with `Emulator.start`.

It behaves on the wire as the real Connector does (`connector-contract.md`), including its failures, and it
can be told to fail in every way that has been seen. It imports nothing of `app`: what it says about the
protocol is a second opinion, not an echo.
"""

from .endpoints import Endpoints
from .faults import FAULTS
from .options import EmulatorOptions
from .service import Emulator, EmulatorError
from .tokens import TokenForms

__all__ = ["FAULTS", "Emulator", "EmulatorError", "EmulatorOptions", "Endpoints", "TokenForms"]
