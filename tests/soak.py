"""A sidecar that starts with nothing but a token renews by itself through outages of its Connector.

    python -m tests.soak --minutes 30 --outages 3 --outage 15 --lifetime 60s

All the time `/readyz` is asked and the served and the published chain are read: one moment in which it
is not ready, or the chain is expired or does not fit its key, ends the run with status 1.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.processes import EmulatorProcess, SidecarProcess


@dataclass
class Tally:
    looks: int = 0
    fingerprints: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--outages", type=int, default=3)
    parser.add_argument("--outage", type=float, default=15, help="seconds of each")
    parser.add_argument("--lifetime", default="60s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tally = soak(Path(name), options)
    print(f"{tally.looks} looks, {len(tally.fingerprints)} certificates, {len(tally.faults)} faults")
    for fault in tally.faults[:20]:
        print(fault, file=sys.stderr)
    return 1 if tally.faults or len(tally.fingerprints) < 2 else 0


def soak(folder: Path, options: argparse.Namespace) -> Tally:
    emulator = EmulatorProcess(folder / "emulator", "--lifetime", options.lifetime)
    try:
        sidecar = SidecarProcess(
            {
                "COMPASS_CONNECTOR_CA_FILE": emulator.endpoints["ca_file"],
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
    tally, begun = Tally(), time.monotonic()
    duration = options.minutes * 60
    outages = [duration * (number + 1) / (options.outages + 1) for number in range(options.outages)]
    while (passed := time.monotonic() - begun) < duration:
        if outages and passed >= outages[0]:
            outages.pop(0)
            emulator.control("POST", "/outage", {"seconds": options.outage})
        look(sidecar, published, tally, passed)
        time.sleep(0.05)
    return tally


def look(sidecar: SidecarProcess, published: Path, tally: Tally, passed: float) -> None:
    tally.looks += 1
    ready = sidecar.client.get("/readyz")
    if ready.status_code != 200:
        tally.faults.append(f"{passed:.1f} s: not ready: {ready.text}")
    answer = sidecar.client.get("/certificate/chain.pem")
    if answer.status_code != 200:
        tally.faults.append(f"{passed:.1f} s: no chain: {answer.text}")
        return
    leaf = x509.load_pem_x509_certificates(answer.content)[0]
    if leaf.not_valid_after_utc <= datetime.now(UTC):
        tally.faults.append(f"{passed:.1f} s: an expired chain is served")
    tally.fingerprints.add(
        leaf.public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        .hex()[-64:]
    )
    folder = (published / "..data").resolve()
    try:
        pair = (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    except FileNotFoundError:
        return  # two rotations since the link was read: no reader may be that slow
    key = serialization.load_pem_private_key(pair[0], None, unsafe_skip_rsa_key_validation=True)
    if key.public_key() != x509.load_pem_x509_certificates(pair[1])[0].public_key():
        tally.faults.append(f"{passed:.1f} s: a key and a chain that do not fit are published")


if __name__ == "__main__":
    sys.exit(main())
