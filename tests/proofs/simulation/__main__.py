"""`python -m tests.proofs.simulation`: many stories, on all cores; or one of them again.

--seeds 3000           eight lifetimes each, of 60 s, 1 h, 24 h or 90 d in turn
--years 5              five more seeds: 90-day certificates for a year, with a look every 30 s
--seed 7 --lifetime 1h one story, with its whole trace
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta

from compass_sidecar.core.policy import LOOK
from compass_sidecar.core.text import parse_duration

from .story import Broken, run

LIFETIMES = (timedelta(seconds=60), timedelta(hours=1), timedelta(hours=24), timedelta(days=90))
_Task = tuple[int, timedelta, timedelta | None, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--lifetime", type=parse_duration, default=LIFETIMES[0])
    options = parser.parse_args()
    if options.seed is not None:
        tasks = [(options.seed, options.lifetime, None, 8.0)]
    else:
        tasks = [*stories(options.first, options.seeds), *years(options.years)]
    began = time.monotonic()
    failed, counts = tell_all(tasks)
    lines = ", ".join(f"{name}: {number}" for name, number in sorted(counts.items()))
    print(f"{len(tasks)} stories in {time.monotonic() - began:.0f} s, {failed} failed")
    print(lines)
    return 1 if failed else 0


def stories(first: int, number: int) -> Iterator[_Task]:
    for seed in range(first, first + number):
        yield seed, LIFETIMES[seed % len(LIFETIMES)], None, 8.0


def years(number: int) -> Iterator[_Task]:
    for seed in range(number):
        yield seed, timedelta(days=90), LOOK, 365 / 90


def tell_all(tasks: list[_Task]) -> tuple[int, Counter[str]]:
    """How many failed, and what was seen in all of them; the failures are printed."""
    failed, counts = 0, Counter[str]()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(tell, tasks, chunksize=4):
            if isinstance(outcome, str):
                failed += 1
                print(outcome, flush=True)
            else:
                counts.update(outcome)
    return failed, counts


def tell(task: _Task) -> Mapping[str, int] | str:
    """The counts of one story, or how it failed."""
    seed, lifetime, look, lifetimes = task
    try:
        return dict(run(seed, lifetime=lifetime, look=look, lifetimes=lifetimes))
    except Broken as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
