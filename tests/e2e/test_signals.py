"""SIGTERM ends the process whatever hangs, and SIGHUP makes it look at its inputs now."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.authority import NOW, Authority
from tests.support.processes import ROOT, EmulatorProcess, SidecarProcess, wait_until
from tests.support.silent_dns import queries

NAMESPACES = ("unshare", "-rnm")
SILENT_DNS = (*NAMESPACES, sys.executable, "-m", "tests.support.silent_dns")


@pytest.fixture(scope="module")
def _namespaces() -> None:
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACES, "true"], check=False).returncode:
        pytest.skip("namespaces of its own are not allowed here")


@pytest.fixture
def due(tmp_path: Path) -> dict[str, str]:
    """The environment of a sidecar whose import is due for renewal, at a Connector that has a name."""
    credential = Authority.create().credential(not_before=NOW - timedelta(days=89))
    (tmp_path / "tls.crt").write_bytes(credential.chain.pem)
    (tmp_path / "tls.key").write_bytes(credential.key_pem)
    return {
        "COMPASS_CONNECTOR_URL": "https://connector.example.org/connector/graphql",
        "COMPASS_CLIENT_CERTIFICATE_FILE": str(tmp_path / "tls.crt"),
        "COMPASS_CLIENT_KEY_FILE": str(tmp_path / "tls.key"),
        "COMPASS_STORE_DIR": str(tmp_path / "store"),
    }


@pytest.fixture
def begun() -> Iterator[list[SidecarProcess]]:
    started: list[SidecarProcess] = []
    yield started
    for each in started:
        each.close()


@pytest.mark.usefixtures("_namespaces")
@pytest.mark.parametrize("where", ["the Connector", "our own address"])
def test_sigterm_ends_a_sidecar_whose_name_lookup_hangs(
    where: str, due: dict[str, str], begun: list[SidecarProcess], tmp_path: Path
) -> None:
    host = {} if where == "the Connector" else {"COMPASS_HOST": "sidecar.example.org"}
    sidecar = SidecarProcess({**due, **host}, log=tmp_path / "log", wrapper=SILENT_DNS)
    begun.append(sidecar)
    wait_until(lambda: queries(sidecar.process.pid), "a question to the name server")
    assert ("serving" in sidecar.log.read_text()) == (where == "the Connector")
    assert sidecar.stop() == 0


def test_sigterm_ends_a_sidecar_that_hangs_at_its_end(importing: dict[str, str], tmp_path: Path) -> None:
    hangs = (
        "import time, compass_sidecar.adapters.filestore, compass_sidecar.__main__\n"
        "compass_sidecar.adapters.filestore.Store.close = lambda self: time.sleep(60)\n"
        "compass_sidecar.__main__.serve()\n"
    )
    (tmp_path / "hangs.py").write_text(hangs)
    sidecar = SidecarProcess(
        {**importing, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, log=tmp_path / "log", module="hangs"
    )
    try:
        assert sidecar.ready().stop() == 0
    finally:
        sidecar.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_during_a_start_end_it_with_status_0(
    number: signal.Signals, importing: dict[str, str], begun: list[SidecarProcess], tmp_path: Path
) -> None:
    """At any moment from the first handler on; that is there before anything is loaded."""
    for moment in range(6):
        store = str(tmp_path / f"store-{moment}")
        sidecar = SidecarProcess({**importing, "COMPASS_STORE_DIR": store}, log=tmp_path / "log")
        begun.append(sidecar)
        # Python itself handles SIGINT, from before our first line on.
        wait_until(partial(handles, sidecar.process.pid, signal.SIGTERM), "a handler")
        time.sleep(moment * 0.1)
        sidecar.process.send_signal(number)
        assert sidecar.process.wait(10) == 0


def handles(pid: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_sighup_ends_nothing_and_has_the_inputs_looked_at_now(
    start: Start, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    sidecar = start(client_certificate_file="", client_key_file="", connector_url="", token_file=str(token))
    wait_until(lambda: handles(sidecar.process.pid, signal.SIGHUP), "a handler")
    sidecar.process.send_signal(signal.SIGHUP)  # during the start
    sidecar.started()
    made = emulator.control("POST", "/tokens", {})
    token.write_text(
        json.dumps({"token": made["token"], "connectorURL": emulator.endpoints["token_connector_url"]})
    )
    sidecar.process.send_signal(signal.SIGHUP)
    wait_until(lambda: sidecar.status()["state"] == "connected", "a connection", patience=20)
    assert "look-requested" in sidecar.log.read_text()
    assert sidecar.stop() == 0
