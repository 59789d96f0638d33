"""A sidecar that starts with nothing but a token renews by itself through all that its Connector does.

    python -m tests.soak --minutes 60 --lifetime 60s --chaos 0.3 --seed 1 --outages 3 --outage 15

The Connector misbehaves at random at this rate, and is away now and then. All the time `/readyz` is asked
and the served and the published chain are read: one moment in which it is not ready although its
certificate lives, or the chain is expired or does not fit its key, ends the run with status 1. So does
memory or a number of descriptors that does not level off.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.support.process_figures import Figures
from tests.support.processes import EmulatorProcess, SidecarProcess

_PAUSE = 0.1
# After this share of the run everything has been used once: caches are full, threads are there.
_WARM = 0.1
_MEMORY_GROWTH, _MORE_DESCRIPTORS = 1.2, 16


@dataclass
class Tally:
    looks: int = 0
    not_ready: float = 0.0
    certificates: dict[str, datetime] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    signatures: int = 0
    outages: int = 0
    figures: list[tuple[float, Figures]] = field(default_factory=list)

    def lose(self, passed: float, what: str) -> None:
        self.losses.append(f"{passed:.1f} s: {what}")

    def lines(self, duration: float) -> list[str]:
        warm, end = self.warm(duration), self.figures[-1][1]
        met = ", ".join(f"{name} {count}" for name, count in self.faults.most_common())
        return [
            f"{duration / 60:g} minutes, {self.looks} looks",
            f"renewals made         {len(self.certificates) - 1} (signatures {self.signatures})",
            f"faults met            {self.faults.total()} ({len(self.faults)} kinds), {self.outages} outages",
            f"seconds not ready     {self.not_ready:.1f}",
            f"at the start          {self.figures[0][1]}",
            f"when warm             {warm}",
            f"at the end            {end}",
            f"lost                  {len(self.losses) or 'nothing'}",
            f"the faults            {met}",
        ]

    def warm(self, duration: float) -> Figures:
        return next(each for at, each in self.figures if at >= duration * _WARM)

    def check_figures(self, duration: float) -> None:
        warm, end = self.warm(duration), self.figures[-1][1]
        if end.memory > warm.memory * _MEMORY_GROWTH:
            self.lose(duration, f"memory grew from {warm.memory} to {end.memory} KiB")
        if end.descriptors > warm.descriptors + _MORE_DESCRIPTORS:
            self.lose(duration, f"descriptors grew from {warm.descriptors} to {end.descriptors}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--minutes", type=float, default=60)
    add("--lifetime", default="60s", help="of certificates (default: %(default)s)")
    add("--chaos", type=float, default=0.3, help="rate of random faults (default: %(default)s)")
    add("--seed", type=int, help="of the random faults (default: a new one, which is printed)")
    add("--outages", type=int, default=3)
    add("--outage", type=float, default=15, help="seconds of each (default: %(default)s)")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(2**32)
    print(f"python -m tests.soak {' '.join(f'--{name} {value}' for name, value in vars(options).items())}")
    with tempfile.TemporaryDirectory() as name:
        tally = soak(Path(name), options)
    tally.check_figures(options.minutes * 60)
    print("\n".join(tally.lines(options.minutes * 60)))
    for loss in tally.losses[:20]:
        print(loss, file=sys.stderr)
    return 1 if tally.losses or len(tally.certificates) < 2 else 0


def soak(folder: Path, options: argparse.Namespace) -> Tally:
    emulator = EmulatorProcess(folder / "emulator", "--lifetime", options.lifetime)
    try:
        sidecar = SidecarProcess(
            {
                "COMPASS_CONNECTOR_CA_FILE": emulator.endpoints["ca_file"],
                "COMPASS_CONNECTOR_TIMEOUT": "3s",  # silence must not take half of a life of a minute
                "COMPASS_TOKEN": emulator.endpoints["token"],
                "COMPASS_TOKEN_CONNECTOR_URL": emulator.endpoints["token_connector_url"],
                "COMPASS_STORE_DIR": str(folder / "store"),
                "COMPASS_PUBLISH_DIR": str(folder / "published"),
            },
            log=folder / "log",
        )
        try:
            return watch(sidecar.ready(), emulator, folder / "published", options)
        finally:
            sidecar.close()
    finally:
        emulator.stop()


def watch(
    sidecar: SidecarProcess, emulator: EmulatorProcess, published: Path, options: argparse.Namespace
) -> Tally:
    tally, begun, seen, minute = Tally(), time.monotonic(), 0.0, 1
    duration = options.minutes * 60
    outages = [duration * (number + 1) / (options.outages + 1) for number in range(options.outages)]
    tally.figures.append((0.0, Figures.of(sidecar.process.pid)))
    # Only now: the one token is for a first connection that works.
    emulator.control("POST", "/chaos", {"rate": options.chaos, "seed": options.seed})
    while (passed := time.monotonic() - begun) < duration:
        if outages and passed >= outages[0]:
            outages.pop(0)
            tally.outages += 1
            emulator.control("POST", "/outage", {"seconds": options.outage})
        if not look(sidecar, published, tally, passed):
            tally.not_ready += passed - seen
        seen = passed
        if passed >= minute * duration / 60:
            minute += 1
            tally.figures.append((passed, Figures.of(sidecar.process.pid)))
            print(
                f"{passed:.0f} s: {len(tally.certificates)} certificates, {len(tally.losses)} losses, "
                f"{tally.figures[-1][1]}",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(_PAUSE)
    tally.figures.append((duration, Figures.of(sidecar.process.pid)))
    counters = emulator.control("GET", "/")["counters"]
    tally.faults, tally.signatures = Counter(counters["faults"]), counters["signatures"]
    return tally


def look(sidecar: SidecarProcess, published: Path, tally: Tally, passed: float) -> bool:
    """One look at everything that a consumer relies on; whether it was ready."""
    tally.looks += 1
    ready = sidecar.client.get("/readyz")
    if ready.status_code != 200:
        tally.lose(passed, f"not ready: {ready.text}")
    answer = sidecar.client.get("/certificate/chain.pem")
    if answer.status_code != 200:
        tally.lose(passed, f"no chain: {answer.text}")
    else:
        leaf = x509.load_pem_x509_certificates(answer.content)[0]
        if leaf.not_valid_after_utc <= datetime.now(UTC):
            tally.lose(passed, "an expired chain is served")
        tally.certificates[leaf.fingerprint(hashes.SHA256()).hex()] = leaf.not_valid_after_utc
    if not pair_fits(published):
        tally.lose(passed, "a key and a chain that do not fit are published")
    return ready.status_code == 200


def pair_fits(published: Path) -> bool:
    folder = (published / "..data").resolve()
    try:
        pair = (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    except FileNotFoundError:
        return True  # two rotations since the link was read: no reader may be that slow
    key = serialization.load_pem_private_key(pair[0], None, unsafe_skip_rsa_key_validation=True)
    return key.public_key() == x509.load_pem_x509_certificates(pair[1])[0].public_key()


if __name__ == "__main__":
    sys.exit(main())
