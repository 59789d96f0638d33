"""What every benchmark needs: processes on the core where they belong, medians, and Markdown tables."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT, EmulatorProcess, SidecarProcess, free_port, wait_until

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]
NICE = -10


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. `pick` chooses between the thorough and the quick number."""

    quick: bool
    rounds: int

    def pick(self, thorough: float, quick: float) -> float:
        return quick if self.quick else thorough


class MonitoredSidecar(SidecarProcess):
    """The sidecar inside `bench.monitored`, which writes what it saw to `report` at the end."""

    def __init__(self, environment: dict[str, str], *, log: Path, report: Path) -> None:
        self.report = report
        super().__init__({**environment, "BENCH_REPORT": str(report)}, log=log)

    def start(self) -> None:
        command = [sys.executable, "-m", "bench.monitored"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=log)

    def seen(self) -> dict[str, Any]:
        """Ends the sidecar."""
        self.stop()
        content: dict[str, Any] = json.loads(self.report.read_text())
        return content


class Stage:
    """A folder, and processes that end with the stack."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._count = 0

    def _path(self, name: str) -> Path:
        self._count += 1
        return self.folder / f"{name}{self._count}"

    def emulator(self, *options: str, nice: int = NICE) -> EmulatorProcess:
        """On the clients' core."""
        with on_core(CLIENT_CORE, nice=nice):
            emulator = EmulatorProcess(self._path("emulator"), *options)
        self._stack.callback(emulator.stop)
        return emulator

    def environment(self, emulator: EmulatorProcess, *, store: Path | None = None) -> dict[str, str]:
        """For a sidecar that imports the emulator's first credential, with keys of the usual size."""
        endpoints = emulator.endpoints
        return {
            "COMPASS_CONNECTOR_URL": endpoints["connector_url"],
            "COMPASS_CONNECTOR_CA_FILE": endpoints["ca_file"],
            "COMPASS_CLIENT_CERTIFICATE_FILE": endpoints["client_certificate_file"],
            "COMPASS_CLIENT_KEY_FILE": endpoints["client_key_file"],
            "COMPASS_STORE_DIR": str(store or self._path("store")),
            "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
            "COMPASS_KEY_SIZE": "4096",
            "COMPASS_LOG_LEVEL": "warning",
        }

    def sidecar(self, environment: dict[str, str], *, nice: int = NICE) -> SidecarProcess:
        with on_core(SERVER_CORE, nice=nice):
            sidecar = SidecarProcess(environment, log=self._path("log"))
        self._stack.callback(sidecar.close)
        return sidecar.ready()

    def monitored(self, environment: dict[str, str]) -> MonitoredSidecar:
        with on_core(SERVER_CORE):
            sidecar = MonitoredSidecar(environment, log=self._path("log"), report=self._path("report"))
        self._stack.callback(sidecar.close)
        sidecar.ready()
        return sidecar

    def memory_folder(self) -> Path | None:
        """A folder on tmpfs, where fsync costs nothing; None where there is none."""
        if not Path("/dev/shm").is_dir():  # noqa: S108 - asked for by name: it is memory
            return None
        folder = Path("/dev/shm") / self.folder.name  # noqa: S108
        folder.mkdir(mode=0o700)
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def server(self, *command: str, port: int) -> "subprocess.Popen[bytes]":
        """Any other server, once it listens on the port."""
        process = begin(*command)
        self._stack.callback(end, process)
        wait_until(lambda: listens(port), f"the start of {command}")
        return process

    def bare(self, kind: str, *arguments: str) -> tuple[int, int]:
        """A server of `bench.bare`: its port and process."""
        port = free_port()
        process = self.server(sys.executable, "-m", "bench.bare", kind, str(port), *arguments, port=port)
        return port, process.pid

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


def begin(*command: str) -> "subprocess.Popen[bytes]":
    """A process on the servers' core."""
    with on_core(SERVER_CORE):
        return subprocess.Popen(command, cwd=ROOT)


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
    process.wait(10)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def on_core(core: int, *, nice: int = NICE) -> Iterator[None]:
    """Processes that are started inside are pinned to the core, and so is this thread for the while.

    Where we may, they go before what else runs on the machine.
    """
    before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    os.sched_setaffinity(0, {core})
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before[0])
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before[1])


def cpu_seconds(process: int) -> float:
    """Of all threads, ended ones included."""
    text = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")


def run_time(process: int) -> float:
    """Seconds of CPU that the process's living threads have had, to the nanosecond."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def settle(process: int, *, limit: float = 30) -> None:
    """Until the process is idle: no key is being made, and nothing is tidied up."""
    stop, idle, last = time.monotonic() + limit, 0, cpu_seconds(process)
    while idle < 3 and time.monotonic() < stop:
        time.sleep(0.2)
        now = cpu_seconds(process)
        idle, last = (idle + 1 if now - last <= 0.02 else 0), now


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


def verdict(value: float, limit: float, *, least: bool = False) -> str:
    holds = value >= limit if least else value <= limit
    return f"{'≥' if least else '≤'} {limit:g} {'holds' if holds else '**missed**'}"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("| " + " | ".join(["---"] + ["---:"] * (len(head) - 1)) + " |")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
