"""3.4: memory, start and idle CPU, against an application that only has the same libraries."""

import http.client
import sys
import time
from pathlib import Path
from typing import Any

from bench import wrk
from bench.stage import (
    SERVER_CORE,
    Effort,
    Stage,
    begin,
    end,
    median,
    on_core,
    run_time,
    settle,
    table,
    verdict,
)
from tests.support.processes import SidecarProcess, free_port

_KINDS = ("Rss", "Pss", "Private_Dirty")


def measure(stage: Stage, effort: Effort) -> None:
    environment = stage.environment(stage.emulator())
    sidecar = stage.sidecar(environment)
    show_start(sidecar, effort)
    settle(sidecar.process.pid)
    port = free_port()
    bare = stage.server(*bare_command(port), port=port)
    pids = {"sidecar": sidecar.process.pid, "bare": bare.pid}
    idle = cpu_share(pids, effort.pick(60, 10))
    fresh = {name: memory(pid) for name, pid in pids.items()}
    minutes = effort.pick(10, 0.5)
    # In turns: one core for two servers would leave each half of it.
    for _ in range(effort.rounds):
        each = 60 * minutes / effort.rounds / 2
        wrk.load(f"http://127.0.0.1:{sidecar.port}/certificate", pids["sidecar"], seconds=max(1, each))
        wrk.load(f"http://127.0.0.1:{sidecar.port}/status", pids["sidecar"], seconds=max(1, each / 10))
        wrk.load(f"http://127.0.0.1:{port}/readyz", bare.pid, seconds=max(1, each))
    loaded = {name: memory(pid) for name, pid in pids.items()}
    renewed = sidecar.client.post("/renew")
    assert renewed.status_code == 200, renewed.text
    settle(sidecar.process.pid)
    after = {"sidecar": memory(sidecar.process.pid), "bare": memory(bare.pid)}
    show_memory(minutes, fresh, loaded, after)
    difference = idle["sidecar"] - idle["bare"]
    row = ("CPU while idle", f"{idle['sidecar']:.3f} %", f"{idle['bare']:.3f} %", f"{difference:+.3f} %")
    table("Idle", ("", "sidecar", "bare", "difference", "target"), [(*row, verdict(difference, 0.1))])


def bare_command(port: int) -> tuple[str, ...]:
    return sys.executable, "-m", "bench.bare", "idle", str(port)


def show_start(sidecar: SidecarProcess, effort: Effort) -> None:
    """With a credential in the store, from the process's start to the first 200."""
    ours, bare = [], []
    for _ in range(2 * effort.rounds):
        sidecar.stop()
        ours.append(time_sidecar(sidecar))
        bare.append(time_bare())
    ratio = median([mine / theirs for mine, theirs in zip(ours, bare, strict=True)])
    row = ("start to first ready", f"{median(ours):.3f} s", f"{median(bare):.3f} s", f"{ratio:.2f}")
    table("Start", ("", "sidecar", "bare", "ratio", "target"), [(*row, verdict(ratio, 1.25))])


def time_sidecar(sidecar: SidecarProcess) -> float:
    began = time.perf_counter()
    with on_core(SERVER_CORE):
        sidecar.start()
    wait_ready(sidecar.port)
    return time.perf_counter() - began


def time_bare() -> float:
    port = free_port()
    began = time.perf_counter()
    process = begin(*bare_command(port))
    wait_ready(port)
    took = time.perf_counter() - began
    end(process)
    return took


def wait_ready(port: int, *, limit: float = 30) -> None:
    stop = time.monotonic() + limit
    while time.monotonic() < stop:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.002)
    raise TimeoutError(f"nothing is ready on port {port}")


def cpu_share(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """Per cent of one core, to the nanosecond."""
    before = {name: run_time(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    return {name: 100 * (run_time(pid) - before[name]) / seconds for name, pid in pids.items()}


def memory(pid: int) -> dict[str, float]:
    """MiB. Shared libraries count in full in Rss, and by their share in Pss."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = (line.split() for line in text.splitlines())
    sizes = {parts[0].rstrip(":"): int(parts[1]) / 1024 for parts in fields if parts[-1] == "kB"}
    return {kind: sizes[kind] for kind in _KINDS}


def show_memory(minutes: float, *moments: Any) -> None:
    names = ("after the start", f"after {minutes:g} min of load", "and one renewal")
    rows = []
    for name, sizes in zip(names, moments, strict=True):
        for kind in ("Rss", "Private_Dirty"):
            ours, bare = sizes["sidecar"][kind], sizes["bare"][kind]
            target = verdict(ours / bare, 1.15) if kind == "Rss" and name == names[1] else ""
            row = (f"{kind}, {name}", f"{ours:.1f} MiB", f"{bare:.1f} MiB", f"{ours / bare:.3f}", target)
            rows.append(row)
    table("Memory", ("", "sidecar", "bare", "ratio", "target"), rows)
