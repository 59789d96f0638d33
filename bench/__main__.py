"""`python -m bench [api|renewal|latency|footprint] [--quick] [--rounds N]`: measure, print tables, end."""

import argparse
import os
import platform
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench import api, footprint, latency, renewal
from bench.stage import CLIENT_CORE, SERVER_CORE, Effort, Stage

PARTS = {"api": api.measure, "renewal": renewal.measure, "latency": latency.measure}
PARTS |= {"footprint": footprint.measure}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="one part only; default: all four")
    parser.add_argument("--quick", action="store_true", help="minutes in place of half an hour; noisier")
    parser.add_argument("--rounds", type=int, help="alternating runs of each (default: 5, --quick: 3)")
    options = parser.parse_args()
    effort = Effort(quick=options.quick, rounds=options.rounds or (3 if options.quick else 5))
    print(about(effort), flush=True)
    for name in [options.part] if options.part else PARTS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
            PARTS[name](Stage(Path(folder), stack), effort)


def about(effort: Effort) -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {model}, {os.cpu_count()} cores, "
        f"Linux {platform.release()}, Python {platform.python_version()}; servers on core {SERVER_CORE}, "
        f"load on core {CLIENT_CORE}; medians of {effort.rounds} alternating runs; "
        f"load average before: {load}"
    )


if __name__ == "__main__":
    main()
