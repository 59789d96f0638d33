"""The short form of `make torture`: a few of its kills and power cuts, spread over every scenario."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.kills import Job, kill
from tests.torture.power import Power
from tests.torture.scenarios import SCENARIOS, Lab
from tests.torture.tracer import Tracer, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_and_a_power_cut_at_some_step_break_no_promise(lab: Lab, name: str) -> None:
    rng = random.Random(name)
    for cut in (False, True):
        job = Job(name, cut, rng.randrange(1, 110), seed=0)
        outcome = kill(lab, job)
        assert outcome.broken is None, (job, outcome)


# A program that replaces a file as `files.replace_file` does, with and without its fsync.
REPLACES = """
import os, signal, sys
signal.sigwait({signal.SIGUSR1})
folder, sync = sys.argv[1], sys.argv[2]
file = os.open(folder + "/new", os.O_WRONLY | os.O_CREAT, 0o600)
os.write(file, b"the new one")
if "file" in sync:
    os.fsync(file)
os.rename(folder + "/new", folder + "/file")
if "folder" in sync:
    os.fsync(os.open(folder, os.O_RDONLY))
os.write(file, b"")
"""


def left_by_power_cuts(folder: Path, sync: str, *, step: int) -> set[bytes]:
    """What power cuts leave of `file` when the program was ended at this step."""
    found = set()
    for seed in range(20):
        disk = folder / f"{sync}-{seed}"
        disk.mkdir()
        (disk / "file").write_bytes(b"the old one")
        traced(disk, sync, step).cut(random.Random(seed))
        assert {path.name for path in disk.iterdir()} <= {"file", "new"}
        found.add((disk / "file").read_bytes())
    return found


def traced(disk: Path, sync: str, step: int) -> Power:
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    process = subprocess.Popen([sys.executable, "-S", "-c", REPLACES, str(disk), sync])
    signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    power = Power(disk)
    tracer = Tracer(process.pid, disk, executed=power.executed)
    tracer.attach()
    os.kill(process.pid, signal.SIGUSR1)
    assert tracer.run(step)
    process.wait()
    return power


def test_a_power_cut_loses_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    old, new = b"the old one", b"the new one"
    assert left_by_power_cuts(tmp_path, "file+folder", step=6) == {new}
    assert left_by_power_cuts(tmp_path, "file", step=5) == {old, new}
    assert left_by_power_cuts(tmp_path, "nothing", step=4) >= {old, new, b""}
