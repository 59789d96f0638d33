"""What every test may rely on: asyncio as the only backend, and SIGINT; and a profile for `make fuzz`."""

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.log_lines import Catalogued

settings.register_profile(
    "fuzz", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

# A shell's background job ignores SIGINT, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def catalogued() -> Iterator[None]:
    """What the sidecar logs is in the catalogue, whatever a test is about."""
    handler, logger = Catalogued(), logging.getLogger("compass_sidecar")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert handler.faults == []
