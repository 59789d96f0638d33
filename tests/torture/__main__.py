"""Kill the sidecar at every step of everything that it does, and cut the power; then start it again and look.

    python -m tests.torture --count 1000 --minutes 20 --seed 1 --out torture.jsonl

Ends by itself: with status 1 if a promise was broken. Run again with the same file it goes on where it was.
"""

import argparse
import json
import queue
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.torture.kills import Job, count, kill
from tests.torture.scenarios import SCENARIOS, Lab
from tests.torture.tracer import why_not


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1200, help="kills and power cuts (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=25, help="at most (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed is the same run (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path(".torture.jsonl"), help="(default: %(default)s)")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="may be repeated")
    parser.add_argument("--workers", type=int, default=2, help="(default: %(default)s)")
    options = parser.parse_args()
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return torture(options, Path(folder))


def torture(options: argparse.Namespace, folder: Path) -> int:
    """The whole run: its exit status."""
    end = time.monotonic() + options.minutes * 60
    done = _done(options.out)
    labs = [Lab(folder / str(number)) for number in range(options.workers)]
    try:
        steps = {name: len(count(labs[0], name)) for name in options.only or SCENARIOS}
        jobs = plan(steps, options.count, options.seed)
        left: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            if job not in done:
                left.put(job)
        guard = threading.Lock()
        threads = [threading.Thread(target=_work, args=(lab, left, end, options.out, guard)) for lab in labs]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:  # what has begun is ended, and then told
            while not left.empty():
                left.get_nowait()
            for thread in threads:
                thread.join()
    finally:
        for lab in labs:
            lab.close()
    return report(_done(options.out), jobs, steps)


def plan(steps: dict[str, int], wanted: int, seed: int) -> list[Job]:
    """Every step of every scenario, killed and with the power cut, in a random order: the first `wanted`.

    Where that is more than there are steps they come again, with another seed."""
    jobs: list[Job] = []
    turn = seed
    while len(jobs) < wanted:
        # One more than were counted: the end of the act itself.
        turns = [
            (name, cut, step) for name in steps for cut in (False, True) for step in range(1, steps[name] + 2)
        ]
        random.Random(turn).shuffle(turns)
        jobs += [Job(name, cut, step, turn) for name, cut, step in turns]
        turn += 1
    return jobs[:wanted]


def _work(lab: Lab, left: "queue.SimpleQueue[Job]", end: float, out: Path, guard: threading.Lock) -> None:
    while time.monotonic() < end:
        try:
            job = left.get_nowait()
        except queue.Empty:
            return
        outcome = kill(lab, job)
        row = {**job.row(), "call": outcome.call, "found": outcome.found, "broken": outcome.broken}
        with guard, out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if outcome.broken:
            print(f"{job}: {outcome}", file=sys.stderr, flush=True)


def _done(out: Path) -> dict[Job, dict[str, Any]]:
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return {Job(row["scenario"], row["cut"], row["step"], row["seed"]): row for row in rows}


def report(done: dict[Job, dict[str, Any]], jobs: list[Job], steps: dict[str, int]) -> int:
    """Print the tables; the exit status."""
    rows = [(job, done[job]) for job in jobs if job in done]
    found: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    for job, row in rows:
        found[job.scenario, job.cut][row["found"]] += 1
    print("| interrupted | steps | how | times | what the next start made of it | broken |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (name, cut), outcomes in sorted(found.items()):
        mine = [row for job, row in rows if (job.scenario, job.cut) == (name, cut)]
        said = ", ".join(f"{times} {what}" for what, times in outcomes.most_common())
        broken = sum(row["broken"] is not None for row in mine)
        how = "power cut" if cut else "kill -9"
        print(f"| {name} | {steps[name]} | {how} | {len(mine)} | {said} | {broken} |")
    calls = Counter(row["call"] for _, row in rows)
    print(f"\nended at: {', '.join(f'{times} {name}' for name, times in calls.most_common())}")
    broken = [row for _, row in rows if row["broken"]]
    print(f"{len(rows)} of {len(jobs)} done, {len(broken)} promises broken")
    for row in broken[:20]:
        print(json.dumps(row), file=sys.stderr)
    return 1 if broken or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
