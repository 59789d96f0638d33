"""What is interrupted. A new scenario is one row of `SCENARIOS`."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.processes import EmulatorProcess
from tests.torture.forge import Forge, Forged
from tests.torture.promises import accepted, check, current_pair, orderly, pending_record

API_TOKEN = "sixteen-characters-and-more"
BEARER = {"Authorization": f"Bearer {API_TOKEN}"}


class Lab:
    """An emulator, a forge, and the states of the disk that scenarios begin with. For one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.emulator = EmulatorProcess(folder / "emulator")
        self.forge = Forge()

    def environment(self, disk: Path, **others: str) -> dict[str, str]:
        """COMPASS_ variables of a sidecar that keeps everything on this disk."""
        return {
            "COMPASS_CONNECTOR_CA_FILE": self.emulator.endpoints["ca_file"],
            "COMPASS_STORE_DIR": str(disk / "store"),
            "COMPASS_PUBLISH_DIR": str(disk / "published"),
            "COMPASS_API_TOKEN": API_TOKEN,
            **others,
        }

    def importing(self) -> dict[str, str]:
        """The variables that import the emulator's first credential."""
        endpoints = self.emulator.endpoints
        return {
            "COMPASS_CONNECTOR_URL": endpoints["connector_url"],
            "COMPASS_CLIENT_CERTIFICATE_FILE": endpoints["client_certificate_file"],
            "COMPASS_CLIENT_KEY_FILE": endpoints["client_key_file"],
        }

    def disk(self, name: str, make: Callable[["Lab", Path], None]) -> Path:
        """The named state, made once."""
        disk = self.folder / f"disk-{name}"
        if not disk.exists():
            disk.mkdir()
            make(self, disk)
        return disk

    def close(self) -> None:
        """End what was started."""
        self.forge.close()
        self.emulator.stop()


def _probes(lab: Lab) -> int:
    count: int = lab.emulator.control("GET", "/")["counters"]["calls"]["probe"]
    return count


@dataclass
class Trial:
    """One interruption: what was there before it, and what was asked of the Connector since."""

    lab: Lab
    disk: Path
    before: str | None
    signatures: int
    probes: int
    answered: bool = False

    @classmethod
    def begin(cls, lab: Lab, scenario: "Scenario", disk: Path) -> "Trial":
        """A copy of the state that the scenario begins with."""
        shutil.copytree(lab.disk(scenario.state.__name__, scenario.state), disk, symlinks=True)
        return cls(lab, disk, current_pair(disk / "store"), lab.emulator.signatures(), _probes(lab))

    @property
    def store(self) -> Path:
        return self.disk / "store"

    def signed(self) -> int:
        """How often the Connector has signed since the beginning."""
        return self.lab.emulator.signatures() - self.signatures

    def nothing_is_lost(self) -> None:
        """Each step was on the disk before the next was made. Called when the process is gone."""
        record, moved = pending_record(self.store), current_pair(self.store) != self.before
        if self.signed():
            check(moved or record is not None, "the key is on the disk before it is signed")
        if _probes(self.lab) > self.probes:
            signed = record is not None and record.get("signed") is not None
            check(moved or signed, "the answer is on the disk before it is proven")
        if self.answered:
            check(moved, "what was announced is on the disk")

    def connect(self, sidecar: Forged) -> httpx.Response:
        """First connection with a new token."""
        token = self.lab.emulator.control("POST", "/tokens", {})["token"]
        url = self.lab.emulator.endpoints["token_connector_url"]
        body = {"token": token, "connector_url": url}
        return sidecar.client.post("/connect", json=body, headers=BEARER)

    def all_is_well(self, sidecar: Forged) -> None:
        """Whatever was interrupted, in the end everything is in order and the Connector agrees."""
        orderly(sidecar, self.store, self.disk / "published")
        endpoints = self.lab.emulator.endpoints
        accepted(self.store, endpoints["connector_url"], endpoints["ca_file"])


# -- what is on the disk before -----------------------------------------------------------------


def nothing(lab: Lab, disk: Path) -> None:
    """A store that was never used."""


def holding(lab: Lab, disk: Path) -> None:
    """A credential in use."""
    with lab.forge.start(lab.environment(disk, **lab.importing()), disk / "log") as sidecar:
        sidecar.answers("/readyz", 200).stop()


def two_generations(lab: Lab, disk: Path) -> None:
    """A credential that was renewed once."""
    with lab.forge.start(lab.environment(disk, **lab.importing()), disk / "log") as sidecar:
        sidecar.answers("/readyz", 200)
        assert sidecar.client.post("/renew", headers=BEARER).status_code == 200
        sidecar.stop()


def waiting_for_proof(lab: Lab, disk: Path) -> None:
    """A signed answer that the Connector has not accepted yet."""
    holding(lab, disk)
    lab.emulator.fault("503-text@probe")
    with lab.forge.start(lab.environment(disk), disk / "log") as sidecar:
        sidecar.answers("/readyz", 200).client.post("/renew", headers=BEARER)
    lab.emulator.heal()


def waiting_for_signature(lab: Lab, disk: Path) -> None:
    """A CSR whose answer was lost."""
    holding(lab, disk)
    lab.emulator.fault("503-text@sign")
    with lab.forge.start(lab.environment(disk), disk / "log") as sidecar:
        sidecar.answers("/readyz", 200).client.post("/renew", headers=BEARER)
    lab.emulator.heal()


# -- what is interrupted, and what a new start has to make of it -----------------------------------


def renew(trial: Trial, sidecar: Forged) -> None:
    """`POST /renew`, or joining what goes on by itself."""
    sidecar.client.post("/renew", headers=BEARER).raise_for_status()


def renew_when_ready(trial: Trial, sidecar: Forged) -> None:
    """Start, then renew."""
    renew(trial, sidecar.answers("/readyz", 200))


def renewed(trial: Trial, sidecar: Forged) -> str:
    """It goes on where it was, and one more signature is enough."""
    sidecar.answers("/readyz", 200)
    found = sidecar.fingerprint()
    answer = sidecar.client.post("/renew", headers=BEARER)
    check(answer.status_code in {200, 429}, f"it can be renewed: {answer.text}")
    further = found != trial.before and answer.status_code == 200
    check(sidecar.fingerprint() != trial.before, "in the end there is a new credential")
    check(trial.signed() - further <= 2, f"at most one more signature: {trial.signed()}")
    return "old, renewed after the start" if found == trial.before else "new"


def proven(trial: Trial, sidecar: Forged) -> str:
    """What was signed is proven and used: no further signature."""
    sidecar.answers("/readyz", 200)
    found = sidecar.fingerprint()
    sidecar.wait(lambda: sidecar.fingerprint() != trial.before, "the proof")
    check(trial.signed() == 0, f"no further signature: {trial.signed()}")
    return "old, proven after the start" if found == trial.before else "new"


def finish(trial: Trial, sidecar: Forged) -> None:
    """Let it go on by itself until something new is current."""
    sidecar.wait(lambda: sidecar.fingerprint() != trial.before, "a new credential")


def connect(trial: Trial, sidecar: Forged) -> None:
    """`POST /connect` with a new token."""
    trial.connect(sidecar).raise_for_status()


def connected(trial: Trial, sidecar: Forged) -> str:
    """Connected, or resumed; or it asks for a new token, but only where the contract leaves no other way."""
    answer = pending_record(trial.store)
    resumable = answer is not None and (answer.get("signed") is not None or trial.signed() == 0)
    held = current_pair(trial.store) is not None
    sidecar.wait(lambda: sidecar.fingerprint() or _says(sidecar, "connect-needed"), "a word")
    if sidecar.fingerprint() is not None:
        check(trial.signed() <= 2, f"at most one more signature: {trial.signed()}")
        return "connected" if held else "connected after the start"
    check(not held and not resumable, f"what was on the disk is used: {sidecar.log}")
    again = trial.connect(sidecar)
    check(again.status_code == 200, f"a new token connects: {again.text}")
    return "asked for a new token"


def _says(sidecar: Forged, event: str) -> bool:
    return f'"event": "{event}"' in sidecar.log


def replaced(trial: Trial, sidecar: Forged) -> str:
    """The credential of before, or the one of the new connection; never none."""
    sidecar.answers("/readyz", 200)
    sidecar.wait(lambda: not sidecar.status()["renewal"]["in_progress"], "an end")
    check(trial.signed() <= 2, f"at most one more signature: {trial.signed()}")
    return "old" if sidecar.fingerprint() == trial.before else "new"


def imported(trial: Trial, sidecar: Forged) -> str:
    """The same files are imported by the next start at the latest."""
    held = current_pair(trial.store) is not None
    sidecar.answers("/readyz", 200)
    check(trial.signed() == 0, "an import needs no signature")
    return "imported" if held else "imported by the next start"


def ready(trial: Trial, sidecar: Forged) -> None:
    """Until it is ready."""
    sidecar.answers("/readyz", 200)


@dataclass(frozen=True)
class Scenario:
    """From a state of the disk an act is interrupted, counted from the process's start or from the act on;
    `after` says what the next start made of it, or that it broke a promise."""

    state: Callable[[Lab, Path], None]
    act: Callable[[Trial, Forged], None]
    after: Callable[[Trial, Forged], str]
    from_start: bool = False
    importing: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self, trial: Trial) -> dict[str, str]:
        """The environment of its sidecars."""
        imported = trial.lab.importing() if self.importing else {}
        return trial.lab.environment(trial.disk, **imported, **self.environment)


SCENARIOS = {
    "renewal": Scenario(holding, renew, renewed),
    "first connection": Scenario(nothing, connect, connected),
    "new connection": Scenario(holding, connect, replaced),
    "start with an answer to prove": Scenario(waiting_for_proof, finish, proven, from_start=True),
    "start with a CSR to sign": Scenario(waiting_for_signature, renew_when_ready, renewed, from_start=True),
    "import": Scenario(nothing, ready, imported, from_start=True, importing=True),
}
