"""A fresh emulator for each test, from a folder whose authorities were made once."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from compass_emulator import Emulator, EmulatorOptions


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an emulator that was started once: its RSA keys are what takes time."""
    folder = tmp_path_factory.mktemp("emulator") / "template"

    async def start_once() -> None:
        async with Emulator.start(EmulatorOptions(dir=folder)):
            pass

    asyncio.run(start_once())
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "emulator"))


@pytest.fixture
async def emulator(folder: Path) -> AsyncIterator[Emulator]:
    async with Emulator.start(EmulatorOptions(dir=folder)) as running:
        yield running
