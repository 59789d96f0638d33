"""An emulator for the whole module, a sidecar for each test."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.log_lines import faults_of, logged
from tests.support.processes import EmulatorProcess, SidecarProcess

Start = Callable[..., SidecarProcess]


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
def importing(emulator: EmulatorProcess, tmp_path: Path) -> dict[str, str]:
    """The environment of a sidecar that imports the emulator's first credential."""
    endpoints = emulator.endpoints
    return {
        "COMPASS_CONNECTOR_URL": endpoints["connector_url"],
        "COMPASS_CONNECTOR_CA_FILE": endpoints["ca_file"],
        "COMPASS_CLIENT_CERTIFICATE_FILE": endpoints["client_certificate_file"],
        "COMPASS_CLIENT_KEY_FILE": endpoints["client_key_file"],
        "COMPASS_STORE_DIR": str(tmp_path / "store"),
        "COMPASS_PUBLISH_DIR": str(tmp_path / "published"),
        "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
    }


@pytest.fixture
def start(importing: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a sidecar with the importing environment and what is given; ended with the test.

    `environ` has variables without the prefix of ours.
    """
    started: list[SidecarProcess] = []

    def begin(*, environ: Mapping[str, str] | None = None, **environment: str) -> SidecarProcess:
        variables = {f"COMPASS_{name.upper()}": value for name, value in environment.items()}
        whole = {**importing, **variables, **(environ or {})}
        sidecar = SidecarProcess(whole, log=tmp_path / f"log{len(started)}")
        started.append(sidecar)
        return sidecar

    yield begin
    for sidecar in started:
        sidecar.close()
    assert [fault for sidecar in started for fault in faults_of(logged(sidecar.log))] == []
