"""An emulator for the whole module, and sidecars without a process that talk to it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from compass_sidecar.engine.renewal import Plan
from tests.faults.stage import Stage
from tests.support.processes import EmulatorProcess

OpenStage = Callable[..., Awaitable[Stage]]


@pytest.fixture(scope="module")
def emulator_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    made = EmulatorProcess(tmp_path_factory.mktemp("emulator"))
    yield made
    made.stop()


@pytest.fixture
def emulator(emulator_for_all: EmulatorProcess) -> Iterator[EmulatorProcess]:
    yield emulator_for_all
    emulator_for_all.heal()


@pytest.fixture
async def open_stage(emulator: EmulatorProcess, tmp_path: Path) -> AsyncIterator[OpenStage]:
    opened: list[Stage] = []

    async def begin(
        *, timeout: float = 20.0, connector: EmulatorProcess = emulator, url: str | None = None
    ) -> Stage:
        stage = Stage(
            tmp_path / f"store{len(opened)}",
            emulator=connector,
            timeout=timedelta(seconds=timeout),
            plan=Plan(connector_url=url),
        )
        opened.append(stage)
        await stage.begin()
        return stage

    yield begin
    for stage in opened:
        await stage.end()
