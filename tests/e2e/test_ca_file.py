"""COMPASS_CONNECTOR_CA_FILE, through the real process: missing, empty, replaced."""

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.authority import Authority
from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until

UNUSABLE = {
    "missing": "no such file or directory",
    "empty": "it is empty",
    "folder": "it is a folder",
    "pipe": "it is a pipe",
}


def unusable(place: Path, kind: str) -> str:
    make = {"empty": Path.touch, "folder": Path.mkdir, "pipe": os.mkfifo}
    if kind in make:
        make[kind](place)
    return str(place)


def reasons(sidecar: SidecarProcess) -> list[str]:
    found: list[str] = sidecar.status()["reasons"]
    return found


@pytest.mark.parametrize("kind", UNUSABLE)
def test_nothing_starts_without_anchors_and_without_a_credential(
    importing: dict[str, str], tmp_path: Path, kind: str
) -> None:
    path = unusable(tmp_path / "ca.crt", kind)
    sidecar = SidecarProcess({**importing, "COMPASS_CONNECTOR_CA_FILE": path}, log=tmp_path / "log")
    assert sidecar.process.wait(30) == 2
    problem = f"COMPASS_CONNECTOR_CA_FILE: {path} cannot be used: {UNUSABLE[kind]}"
    assert problem in sidecar.log.read_text()
    sidecar.close()


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_stored_credential_is_served_without_anchors_and_the_file_is_named(
    start: Start, importing: dict[str, str], tmp_path: Path, kind: str
) -> None:
    assert start().ready().stop() == 0
    place = tmp_path / "ca.crt"
    sidecar = start(connector_ca_file=unusable(place, kind)).ready()
    assert "connector-ca-unusable" in reasons(sidecar)
    problem = sidecar.client.post("/renew").json()
    assert problem["code"] == "connector-untrusted"
    assert f"{place} cannot be used: {UNUSABLE[kind]}" in problem["detail"]
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    shutil.copy(importing["COMPASS_CONNECTOR_CA_FILE"], place)
    assert sidecar.client.post("/renew").status_code == 200
    wait_until(lambda: "connector-ca-unusable" not in reasons(sidecar), "a look at the file", patience=60)


def test_the_last_anchors_stay_in_use_and_new_ones_count_at_once(
    start: Start, importing: dict[str, str], emulator: EmulatorProcess, tmp_path: Path
) -> None:
    place = tmp_path / "ca.crt"
    shutil.copy(importing["COMPASS_CONNECTOR_CA_FILE"], place)
    sidecar = start(connector_ca_file=str(place)).ready()
    place.unlink()
    assert sidecar.client.post("/renew").status_code == 200
    wait_until(lambda: "connector-ca-unusable" in reasons(sidecar), "a look at the file", patience=60)
    place.write_bytes(Authority.create("Another CA").pem)
    assert sidecar.client.post("/renew").json()["code"] == "connector-untrusted"
