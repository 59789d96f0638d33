"""From the outside: how a start can be ended, and what probes find."""

import fcntl
import time
from pathlib import Path

from compass_sidecar.api.paths import PROBES
from tests.e2e.conftest import Start
from tests.support.processes import free_port, wait_until


def handles_sigterm(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> 14 & 1)


def test_sigterm_ends_a_sidecar_that_waits_for_the_lock_of_its_store(start: Start, tmp_path: Path) -> None:
    """As process 1 of a container it would outlive the signal, were it not handled."""
    store = tmp_path / "store"
    store.mkdir()
    with (store / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sidecar = start()
        wait_until(lambda: handles_sigterm(sidecar.process.pid), "a handler")
        time.sleep(1)  # by then it waits; were it still loading, the outcome would have to be the same
        assert sidecar.stop() == 0


def test_the_health_listener_answers_every_path_that_the_manifests_ask_for(start: Start) -> None:
    port = free_port()
    sidecar = start(health_port=str(port)).ready()
    for path in sorted(PROBES):
        assert sidecar.client.get(f"http://127.0.0.1:{port}{path}").status_code == 200, path
