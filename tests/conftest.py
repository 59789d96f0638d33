"""What every test may rely on: asyncio as the only backend; and a profile for `make fuzz`."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fuzz", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
