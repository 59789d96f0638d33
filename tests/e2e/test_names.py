"""Name lookups that hang, and names that are looked up while no thread can be started."""

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.processes import EmulatorProcess, wait_until

HANGING = "https://hangs.test/connector/graphql"
PRELOADED = Path(__file__).parents[1] / "support" / "preload.c"


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make the library that lookups go through")
    library = tmp_path_factory.mktemp("preload") / "preload.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, PRELOADED, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


def test_a_name_is_looked_up_without_a_new_thread(
    start: Start, emulator: EmulatorProcess, preload: Mapping[str, str], tmp_path: Path
) -> None:
    url = emulator.endpoints["connector_url"].replace("127.0.0.1", "localhost")
    shortage = tmp_path / "no-threads"
    sidecar = start(connector_url=url, environ={**preload, "NO_THREADS": str(shortage)}).ready()
    shortage.touch()
    for _ in range(3):
        assert sidecar.client.post("/renew").status_code == 200, sidecar.log.read_text()


def test_more_lookups_than_threads_are_failures_and_not_the_end(
    start: Start, emulator: EmulatorProcess, preload: Mapping[str, str], tmp_path: Path
) -> None:
    shortage = tmp_path / "no-threads"
    environ = {**preload, "NO_THREADS": str(shortage)}
    sidecar = start(connector_url=HANGING, connector_timeout="300ms", environ=environ).ready()
    assert sidecar.client.post("/renew").json()["code"] == "connector-timeout"
    shortage.touch()
    codes = {sidecar.client.post("/renew").json()["code"] for _ in range(5)}
    assert {"connector-unavailable"} <= codes <= {"connector-timeout", "connector-unavailable"}
    assert "there is no thread for the lookup" in sidecar.log.read_text()
    assert sidecar.client.get("/livez").status_code == 200


def test_sigterm_ends_a_sidecar_whose_lookups_hang(start: Start, preload: Mapping[str, str]) -> None:
    sidecar = start(connector_url=HANGING, connector_timeout="500ms", environ=preload).ready()
    assert sidecar.client.post("/renew").json()["code"] == "connector-timeout"
    sidecar.client.post("/renew", headers={"Prefer": "respond-async"})
    assert sidecar.stop() == 0


def test_sigterm_ends_a_start_that_looks_up_the_name_to_listen_on(
    start: Start, preload: Mapping[str, str]
) -> None:
    sidecar = start(host="hangs.test", environ=preload)
    wait_until(lambda: "imported" in sidecar.log.read_text(), "the import")
    time.sleep(0.5)  # by then it looks the name up; were it not, the outcome would have to be the same
    assert sidecar.stop() == 0


def test_a_name_whose_lookup_hangs_holds_up_no_other(
    start: Start, emulator: EmulatorProcess, preload: Mapping[str, str]
) -> None:
    url = emulator.endpoints["connector_url"].replace("127.0.0.1", "localhost")
    hook = {"notify_webhook": "https://hangs.test/hook"}
    sidecar = start(connector_url=url, environ=preload, **hook).ready()
    for _ in range(8):
        assert sidecar.client.post("/renew").status_code == 200


def test_check_ends_although_a_lookup_hangs(start: Start, preload: Mapping[str, str]) -> None:
    sidecar = start(connector_url=HANGING, connector_timeout="500ms", environ=preload).ready()
    done = sidecar.command("check")
    assert done.returncode == 1
    assert "no connection to hangs.test within 0.5 s" in done.stdout
