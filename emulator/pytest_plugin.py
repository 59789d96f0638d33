"""Fixtures for the tests of other projects: `pytest_plugins = ["compass_emulator.pytest_plugin"]`."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .blocking import BlockingEmulator
from .options import EmulatorOptions


@pytest.fixture(scope="session")
def compass_emulator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an emulator that was started once: each test copies its CAs and its first credential."""
    folder = tmp_path_factory.mktemp("compass-emulator") / "template"
    with BlockingEmulator.start(EmulatorOptions(dir=folder)):
        return folder


@pytest.fixture
def compass_emulator_options() -> dict[str, Any]:
    """Options of `EmulatorOptions`, `dir` excepted: override it in a module or a conftest.py."""
    return {}


@pytest.fixture
def compass_emulator(
    compass_emulator_folder: Path, compass_emulator_options: dict[str, Any], tmp_path: Path
) -> Iterator[BlockingEmulator]:
    """A Connector of this test's own, with a credential, on free ports of 127.0.0.1."""
    folder = Path(shutil.copytree(compass_emulator_folder, tmp_path / "compass-emulator"))
    with BlockingEmulator.start(EmulatorOptions(dir=folder, **compass_emulator_options)) as emulator:
        yield emulator
