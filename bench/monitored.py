"""The sidecar with a watch inside: how late its event loop is, and how long its steps take.

`python -m bench.monitored` is `python -m app` plus a task that sleeps 1 ms and notes its lateness, and
timers around the calls to Connector, store and disk. At the end it writes them to $BENCH_REPORT as JSON;
times are CLOCK_MONOTONIC, which other processes can compare with theirs.
"""

import asyncio
import functools
import inspect
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from compass_sidecar.adapters.connector import Connector
from compass_sidecar.adapters.filestore import Store
from compass_sidecar.adapters.logs import JSONLines, configure_logging
from compass_sidecar.adapters.reader import Reader
from compass_sidecar.core import chain
from compass_sidecar.engine import renewal
from compass_sidecar.main import run
from compass_sidecar.settings import Settings, find_store_dir

_NAP = 0.001
_STORE = ("activate", "pair", "pending_pair", "save_pending", "drop_pending")
_CONNECTOR = ("configuration", "sign", "probe", "retire")
Steps = list[tuple[str, float, float]]


async def watch(late: list[tuple[float, float]]) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(_NAP)
        now = time.monotonic()
        late.append((now, now - began - _NAP))


def time_calls(owner: Any, name: str, steps: Steps) -> None:
    """Replaces the function by one that notes when it began and how long it took."""
    call: Callable[..., Any] = getattr(owner, name)
    label = f"{owner.__name__.rpartition('.')[2]}.{name}"

    @functools.wraps(call)
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.monotonic()
        try:
            return call(*arguments, **named)
        finally:
            steps.append((label, began, time.monotonic() - began))

    @functools.wraps(call)
    async def timed_task(*arguments: Any, **named: Any) -> Any:
        began = time.monotonic()
        try:
            return await call(*arguments, **named)
        finally:
            steps.append((label, began, time.monotonic() - began))

    setattr(owner, name, timed_task if inspect.iscoroutinefunction(call) else timed)


async def watched(settings: Settings, report: Path) -> None:
    steps: Steps = []
    late: list[tuple[float, float]] = []
    for owner, names in ((Store, _STORE), (Connector, _CONNECTOR), (os, ("fsync",))):
        for name in names:
            time_calls(owner, name, steps)
    time_calls(chain, "verify", steps)
    time_calls(renewal, "make_csr", steps)
    time_calls(renewal, "render_private_key", steps)
    watcher = asyncio.create_task(watch(late))
    try:
        await run(settings, os.environ)
    finally:
        watcher.cancel()
        report.write_text(json.dumps({"late": late, "steps": steps}))


def main() -> None:
    report = Path(os.environ.pop("BENCH_REPORT"))
    settings = Settings.from_environment(
        os.environ, read=Reader("settings").read, default_store_dir=find_store_dir()
    )
    configure_logging(level="warning", formatter=JSONLines())
    logging.captureWarnings(capture=True)
    uvloop.run(watched(settings, report))


if __name__ == "__main__":
    main()
