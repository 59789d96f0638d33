"""Debian's Chromium without a window, one for each worker, and pages of real sidecars in it."""

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import emulator, emulator_for_all, importing, start
from tests.support.browser import Browser

__all__ = ["emulator", "emulator_for_all", "importing", "start"]

Open = Callable[..., Browser]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """What a test changes is changed back, and nothing may have been refused by the policy."""
    chromium.reset()
    yield chromium
    assert chromium.violations() == []
