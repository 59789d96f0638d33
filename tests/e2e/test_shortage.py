"""A process short of memory and threads: each attempt ends, and the first one after the shortage renews."""

import resource
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.conftest import Start
from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until

MIB = 1024 * 1024


def starve(sidecar: SidecarProcess, *, left: int) -> None:
    """Allow so many bytes of further address space; a thread's stack takes 8 MiB."""
    pages = int(Path(f"/proc/{sidecar.process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + left
    resource.prlimit(sidecar.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def feed(sidecar: SidecarProcess) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(sidecar.process.pid, resource.RLIMIT_AS, unlimited)


def test_no_shortage_of_memory_or_threads_stops_the_renewals(start: Start, emulator: EmulatorProcess) -> None:
    sidecar = start(key_size="4096").ready()
    for left in (4 * MIB, 0):
        starve(sidecar, left=left)
        answers = [sidecar.client.post("/renew").status_code for _ in range(3)]
        feed(sidecar)
        assert set(answers) <= {200, 500, 502, 503, 507}, answers
        wait_until(lambda: sidecar.client.post("/renew").status_code == 200, "a renewal")
        assert sidecar.client.get("/livez").status_code == 200
        assert sidecar.status()["renewal"]["consecutive_failures"] == 0


def test_a_first_connection_in_a_shortage_ends(start: Start, emulator: EmulatorProcess) -> None:
    sidecar = start(client_certificate_file="", client_key_file="", api_token="a-token-of-the-api").started()
    headers = {"Authorization": "Bearer a-token-of-the-api"}

    def connect() -> int:
        token = emulator.control("POST", "/tokens", {})["token"]
        body = {"token": token, "connector_url": emulator.endpoints["token_connector_url"]}
        return sidecar.client.post("/connect", json=body, headers=headers).status_code

    starve(sidecar, left=0)
    assert connect() in {200, 202, 409, 500, 502, 503, 507}
    feed(sidecar)
    wait_until(lambda: connect() == 200, "a connection")


def test_clients_leave_the_descriptors_that_a_renewal_needs(
    importing: dict[str, str], tmp_path: Path
) -> None:
    """An operator may allow far fewer than 2,000 connections take."""
    wrapper = ("sh", "-c", 'ulimit -n 256 && exec "$@"', "sh")
    sidecar = SidecarProcess(importing, log=tmp_path / "log", wrapper=wrapper).ready()
    try:
        with ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(socket.create_connection(("127.0.0.1", sidecar.port)))
            assert sidecar.client.post("/renew").status_code == 200
    finally:
        sidecar.close()
