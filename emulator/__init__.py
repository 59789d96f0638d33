"""A Compass Connector for development and tests: `compass-emulator`, or in-process.

In-process it is `Emulator` where there is an event loop, `BlockingEmulator` where there is none, and the
fixtures of `compass_emulator.pytest_plugin`. On the wire it behaves as the real Connector does, failures
included, and it fails on demand in every way that has been seen. It imports nothing of `compass_sidecar`:
what it says about the protocol is a second opinion.
"""

from .blocking import BlockingEmulator
from .director import TokenForms
from .faults import FAULTS
from .options import EmulatorOptions, Endpoints
from .service import Emulator, EmulatorError

__all__ = [
    "FAULTS",
    "BlockingEmulator",
    "Emulator",
    "EmulatorError",
    "EmulatorOptions",
    "Endpoints",
    "TokenForms",
]
