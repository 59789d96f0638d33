"""3.3: what somebody who reads notices of renewals and of the making of keys."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.load import PATHS
from bench.stage import CLIENT_CORE, Effort, Stage, median, on_core, table, verdict
from tests.support.processes import ROOT, SidecarProcess

RATE = 500


@dataclass(slots=True)
class Renewing:
    """Back to back, so that a key is being made nearly all the time."""

    durations: list[float] = field(default_factory=list)
    windows: list[tuple[float, float]] = field(default_factory=list)


def measure(stage: Stage, effort: Effort) -> None:
    # It shares a core with the load generator, whose lateness must not be what we measure.
    emulator = stage.emulator(nice=10)
    sidecar = stage.sidecar(stage.environment(emulator), nice=0)
    seconds = effort.pick(20, 8)
    quiet, busy = [], []
    load(sidecar, 2)
    renewed = 0
    for turn in range(effort.rounds):
        for disturbed in (turn % 2 == 0, turn % 2 == 1):
            if disturbed:
                with renewals(sidecar) as done:
                    busy.append(load(sidecar, seconds))
                renewed += len(done.durations)
            else:
                quiet.append(load(sidecar, seconds))
    show(quiet, busy, renewed)
    sidecar.stop()
    show_stalls(stage, effort)


def load(sidecar: SidecarProcess, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.load", str(sidecar.port), str(seconds), str(RATE)]
    with on_core(CLIENT_CORE):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=seconds + 60)
    result: dict[str, Any] = json.loads(output)
    assert result["unanswered"] == 0, result
    return result


@contextmanager
def renewals(sidecar: SidecarProcess) -> Iterator[Renewing]:
    done, stop = Renewing(), threading.Event()

    def renew() -> None:
        url = f"http://127.0.0.1:{sidecar.port}/renew"
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not stop.is_set():
                began = time.monotonic()
                answer = client.post(url)
                assert answer.status_code == 200, answer.text
                done.windows.append((began, time.monotonic()))
                done.durations.append(done.windows[-1][1] - began)

    thread = threading.Thread(target=renew)
    with on_core(CLIENT_CORE):
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def show(quiet: list[dict[str, Any]], busy: list[dict[str, Any]], renewed: int) -> None:
    rows = []
    for path in (*PATHS, "own"):
        before, after = (
            {name: median([run[path][name] for run in runs]) for name in ("p50", "p99", "p999", "max")}
            for runs in (quiet, busy)
        )
        ratio = after["p99"] / before["p99"]
        rows.append(
            (
                "lateness of the load generator" if path == "own" else f"`{path}`",
                *(f"{each['p50']:.2f}, {each['p99']:.2f}, {each['p999']:.2f}" for each in (before, after)),
                f"{ratio:.2f}",
            )
        )
    head = ("at 500 requests/s", "quiet: p50, p99, p99.9 ms", "renewing", "ratio of p99")
    table(f"Latency while keys are made and renewals run ({renewed} of them)", head, rows)


def show_stalls(stage: Stage, effort: Effort) -> None:
    """From inside; `bench.monitored` says how."""
    sidecar = stage.monitored(stage.environment(stage.emulator(nice=10)))
    seconds = effort.pick(60, 15)
    phases = {"500 requests/s": now_and_after(lambda: load(sidecar, seconds))}
    with renewals(sidecar) as alone:
        phases["renewals"] = now_and_after(lambda: time.sleep(seconds))
    with renewals(sidecar) as both:
        phases["renewals and 500 requests/s"] = now_and_after(lambda: load(sidecar, seconds))
    seen = sidecar.seen()
    counts = {"renewals": len(alone.windows), "renewals and 500 requests/s": len(both.windows)}
    rows = []
    for name, (begin, end) in phases.items():
        late = sorted(1000 * each for at, each in seen["late"] if begin <= at <= end)
        rank = int(0.999 * len(late))
        target = verdict(late[-1], 20) if "renewals" in name else ""
        rows.append((name, counts.get(name, 0), f"{late[rank]:.2f}", f"{late[-1]:.1f}", target))
    head = ("while", "renewals", "p99.9 of 1 ms naps, late by ms", "longest stall ms", "target")
    table("The event loop, seen from inside", head, rows)


def now_and_after(work: Any) -> tuple[float, float]:
    began = time.monotonic()
    work()
    return began, time.monotonic()
