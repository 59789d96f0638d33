"""Files that an operator names may be pipes, devices, or on a mount that hangs: nothing waits for them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.processes import SidecarProcess

FILES = (
    "TOKEN_FILE",
    "API_TOKEN_FILE",
    "CLIENT_KEY_PASSPHRASE_FILE",
    "CLIENT_CERTIFICATE_FILE",
    "CLIENT_KEY_FILE",
)


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


@pytest.mark.parametrize(
    ("place", "word"),
    [
        (pipe, "it is a pipe"),
        (lambda _: "/dev/zero", "it is a device"),
        (lambda _: "/dev/stdin", "standard input"),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_a_start_with_what_is_no_regular_file_ends_and_names_it(
    name: str, place: Callable[[Path], str], word: str, importing: dict[str, str], tmp_path: Path
) -> None:
    variables = {**importing, f"COMPASS_{name}": place(tmp_path)}
    sidecar = SidecarProcess(variables, log=tmp_path / "log")
    assert sidecar.process.wait(30) == 2
    said = sidecar.log.read_text()
    assert variables[f"COMPASS_{name}"] in said
    assert word in said
    sidecar.close()


def test_a_pair_on_a_mount_that_hangs_holds_up_nothing_but_itself(
    start: Start, importing: dict[str, str], tmp_path: Path
) -> None:
    assert start().ready().stop() == 0
    key = tmp_path / "tls.key"
    shutil.copy(importing["COMPASS_CLIENT_KEY_FILE"], key)
    os.mkfifo(f"{key}.mount")
    variables = {**importing, "HANGING": str(key), "COMPASS_CLIENT_KEY_FILE": str(key)}
    sidecar = SidecarProcess(variables, log=tmp_path / "log", module="tests.support.hanging")
    try:
        sidecar.ready()
        assert sidecar.status()["state"] == "connected"
        assert "import-rejected" in sidecar.status()["reasons"]
        assert "its file system has not answered for 10 s" in sidecar.log.read_text()
        assert sidecar.client.post("/renew").status_code == 200
        assert sidecar.stop() == 0
    finally:
        sidecar.close()


def test_a_secret_on_a_mount_that_hangs_ends_the_start(importing: dict[str, str], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    os.mkfifo(f"{token}.mount")
    variables = {**importing, "HANGING": str(token), "COMPASS_API_TOKEN_FILE": str(token)}
    sidecar = SidecarProcess(variables, log=tmp_path / "log", module="tests.support.hanging")
    try:
        assert sidecar.process.wait(30) == 2
        assert f"COMPASS_API_TOKEN_FILE: '{token}' cannot be read: its file system" in sidecar.log.read_text()
    finally:
        sidecar.close()
