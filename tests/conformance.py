"""What the API answers is what its description says: schemathesis against a real sidecar.

    python -m tests.conformance --cases 10000

Each operation is asked by examples, boundary values, random and wrong requests, and in chains of requests;
every answer has to be one that is described, with its headers and its schema, and no 5xx but those.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.processes import ROOT, EmulatorProcess, SidecarProcess

TOKEN = "conformance-0123456789"
HOOKS = "tests.support.schemathesis_hooks"
# A described 503 or 507 is an answer like any other; our own check forbids 500. A token that is a good
# string may be refused all the same, and a chain is public: what the other two ask for is not promised.
UNPROMISED = "not_a_server_error,positive_data_acceptance,ignored_auth"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="about how many requests")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result, count = run(Path(name), cases=options.cases, seed=options.seed)
    print(result)
    print(f"{count} cases")
    return 0 if count >= options.cases and "No issues found" in result else 1


def run(folder: Path, *, cases: int, seed: int) -> tuple[str, int]:
    """What schemathesis said, and how many cases it tried."""
    emulator = EmulatorProcess(folder / "emulator")
    try:
        sidecar = SidecarProcess(
            {
                "COMPASS_CONNECTOR_URL": emulator.endpoints["connector_url"],
                "COMPASS_CONNECTOR_CA_FILE": emulator.endpoints["ca_file"],
                "COMPASS_CLIENT_CERTIFICATE_FILE": emulator.endpoints["client_certificate_file"],
                "COMPASS_CLIENT_KEY_FILE": emulator.endpoints["client_key_file"],
                "COMPASS_STORE_DIR": str(folder / "store"),
                "COMPASS_API_TOKEN": TOKEN,
                "COMPASS_EXPOSE_PRIVATE_KEY": "true",
                "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
            },
            log=folder / "log",
        )
        try:
            return ask(sidecar.ready(), folder, cases=cases, seed=seed)
        finally:
            sidecar.close()
    finally:
        emulator.stop()


def ask(sidecar: SidecarProcess, folder: Path, *, cases: int, seed: int) -> tuple[str, int]:
    operations = sum(len(path) for path in sidecar.client.get("/openapi.json").json()["paths"].values())
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file=/dev/null",
        *("run", f"http://127.0.0.1:{sidecar.port}/openapi.json", "--no-color"),
        *("--header", f"Authorization: Bearer {TOKEN}"),
        *("--checks", "all", "--exclude-checks", UNPROMISED),
        # Operations that take nothing are soon exhausted: the others make up for them.
        *("--max-examples", str(max(1, cases * 2 // operations)), "--seed", str(seed)),
        *("--request-timeout", "60", "--suppress-health-check", "all"),
        *("--generation-database", "none", "--continue-on-failure", "--warnings", "off"),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=3600
    )
    text = done.stdout + done.stderr
    counts = [int(each.replace(",", "")) for each in re.findall(r"([0-9,]+) generated", text)]
    assert sidecar.process.poll() is None, "the sidecar has ended"
    assert "Traceback" not in sidecar.log.read_text(), sidecar.log.read_text()
    return text, counts[-1] if counts else 0


if __name__ == "__main__":
    sys.exit(main())
