"""One kill, or power cut, at one step of a scenario; and whether every promise was kept afterwards."""

import random
import shutil
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.torture.forge import Forged, Gone
from tests.torture.power import Power
from tests.torture.promises import published_pair
from tests.torture.scenarios import SCENARIOS, Lab, Scenario, Trial
from tests.torture.tracer import Step, Tracer

# Beyond any scenario: the process is let go to the end of its act, and ended there.
NEVER = 1_000_000
# One sidecar in so many is started by `python -m app` itself instead of a fork that has imported the same.
FRESH = 10


@dataclass(frozen=True)
class Job:
    """`cut` loses what was not synced. `seed` decides what that is."""

    scenario: str
    cut: bool
    step: int
    seed: int

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """`call` at which it was ended, `found` by the next start. `broken`: the promise that was not kept."""

    call: str
    found: str
    broken: str | None = None


def count(lab: Lab, name: str) -> list[Step]:
    """The steps of a scenario that nobody interrupts."""
    job = Job(name, cut=False, step=NEVER, seed=0)
    disk = _fresh(lab)
    try:
        return _interrupt(job, Trial.begin(lab, SCENARIOS[name], disk), SCENARIOS[name])[1]
    finally:
        shutil.rmtree(disk)


def kill(lab: Lab, job: Job) -> Outcome:
    """Do the job."""
    scenario, disk = SCENARIOS[job.scenario], _fresh(lab)
    call = found = "?"
    try:
        trial = Trial.begin(lab, scenario, disk)
        call, _ = _interrupt(job, trial, scenario)
        trial.nothing_is_lost()
        published_pair(disk / "published")
        with lab.forge.start(scenario.variables(trial), disk / "log") as sidecar:
            found = scenario.after(trial, sidecar)
            trial.all_is_well(sidecar)
    except (AssertionError, Gone, httpx.HTTPError) as error:
        return Outcome(call, found, f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(disk)
    return Outcome(call, found)


def _fresh(lab: Lab) -> Path:
    return lab.folder / f"trial-{random.getrandbits(64):x}"


def _interrupt(job: Job, trial: Trial, scenario: Scenario) -> tuple[str, list[Step]]:
    held = scenario.from_start
    options = {"held": held, "fresh": (job.step + job.seed) % FRESH == 0}
    trial.disk.joinpath("log").touch()
    with trial.lab.forge.start(scenario.variables(trial), trial.disk / "log", **options) as sidecar:
        if not held:
            sidecar.answers("/livez", 200)
        power = Power(trial.disk)
        tracer = _Tracing(sidecar, trial.disk, job.step, power)
        if held:
            sidecar.go()
        with suppress(httpx.TransportError, Gone):
            scenario.act(trial, sidecar)
            trial.answered = True
        sidecar.kill()
        steps, reached = tracer.result()
    if job.cut:
        power.cut(random.Random(f"{job}"))
    return (str(steps[-1].name) if reached else "after the last"), steps


class _Tracing:
    """A tracer in a thread of its own; it follows the process from when this is made."""

    def __init__(self, sidecar: Forged, disk: Path, at: int, power: Power) -> None:
        self._attached = threading.Event()
        self._error: BaseException | None = None
        self._reached = False
        self._tracer = Tracer(sidecar.pid, disk, executed=power.executed)
        self._thread = threading.Thread(target=self._run, args=(at,))
        self._thread.start()
        self._attached.wait()

    def _run(self, at: int) -> None:
        try:
            self._tracer.attach()
            self._attached.set()
            self._reached = self._tracer.run(at)
        except BaseException as error:  # noqa: BLE001 - has to reach the thread that waits
            self._error = error
        finally:
            self._attached.set()

    def result(self) -> tuple[list[Step], bool]:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._tracer.steps, self._reached
