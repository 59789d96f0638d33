"""wrk, on the clients' core."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from bench.stage import CLIENT_CORE, on_core, run_time

CONNECTIONS = 32
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True)
class Result:
    """Requests per second, the 99th percentile in milliseconds, and the server's CPU seconds for each."""

    rate: float
    p99: float
    cost: float


def load(url: str, server: int, *, seconds: float, headers: Mapping[str, str] | None = None) -> Result:
    """`server` is the process whose CPU time is looked at."""
    given = [part for name, value in (headers or {}).items() for part in ("-H", f"{name}: {value}")]
    size = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency"]
    before = run_time(server)
    with on_core(CLIENT_CORE):
        text = subprocess.run(["wrk", *size, *given, url], check=True, capture_output=True, text=True).stdout
    spent = run_time(server) - before
    assert "Non-2xx" not in text, f"{url}: {text}"
    assert "Socket errors" not in text, f"{url}: {text}"
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", text)
    p99 = re.search(r"99%\s+([0-9.]+)(us|ms|s)", text)
    assert rate is not None, text
    count = re.search(r"([0-9]+) requests in", text)
    assert p99 is not None, text
    assert count is not None, text
    return Result(float(rate[1]), float(p99[1]) * _UNITS[p99[2]], spent / int(count[1]))
