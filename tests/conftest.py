"""What every test may rely on: asyncio as the only backend."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
