"""What other projects use: the emulator without an event loop, its fixtures, and the example project."""

import shutil
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from compass_emulator import BlockingEmulator, EmulatorError, EmulatorOptions
from tests.emulator.talking import PROBE

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "client-tests"


def probe(emulator: BlockingEmulator) -> int:
    at = emulator.endpoints
    context = ssl.create_default_context(cafile=at.ca_file)
    context.load_cert_chain(at.client_certificate_file, at.client_key_file)
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.post(at.connector_url, json={"query": PROBE}).status_code


def test_it_runs_in_a_thread_and_does_all_that_the_other_does(folder: Path) -> None:
    with BlockingEmulator.start(EmulatorOptions(dir=folder)) as emulator:
        emulator.fault("429*1")
        assert [probe(emulator), probe(emulator)] == [429, 200]
        assert emulator.counters["calls"]["probe"] == len(emulator.requests) == 2
        assert (
            emulator.token(ttl=timedelta(minutes=1)).connector_url == emulator.endpoints.token_connector_url
        )
        emulator.set_chaos(1, 7)
        emulator.clear_faults()
        emulator.set_clock_offset(timedelta(hours=1))
        emulator.set_lifetime(timedelta(hours=1))
        emulator.set_subject("O=a,OU=b,L=c,ST=d,C=DE")
        assert emulator.state()["lifetime_seconds"] == 3600
        assert probe(emulator) == 400, "the subject of the certificate is an old one"
        emulator.revoke(emulator.issued[0]["fingerprint_sha256"])
        assert emulator.issued[0]["revoked"]
        assert emulator.forget(emulator.issued[0]["client_id"])
        emulator.replace_client_ca()
        with pytest.raises(httpx.TransportError):
            probe(emulator)
        emulator.outage(60)
        assert emulator.state()["in_outage"]
        emulator.outage(0)
        emulator.reset_counters()
        assert emulator.requests == []
        with pytest.raises(ValueError, match="there is no fault"):
            emulator.fault("nonsense")
    with pytest.raises(httpx.TransportError):
        probe(emulator)


def test_a_start_that_fails_is_an_error_of_whoever_starts_it(folder: Path) -> None:
    with (
        BlockingEmulator.start(EmulatorOptions(dir=folder)),
        pytest.raises(EmulatorError, match="in use by another emulator"),
        BlockingEmulator.start(EmulatorOptions(dir=folder)),
    ):
        pass


def test_the_tests_of_the_example_project_pass(tmp_path: Path) -> None:
    project = Path(shutil.copytree(EXAMPLE, tmp_path / "project"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


def test_the_emulator_imports_nothing_but_what_its_extra_installs() -> None:
    script = (
        "import sys; before = set(sys.modules); import compass_emulator, compass_emulator.__main__\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    foreign = {name for name in done.stdout.split() if name not in sys.stdlib_module_names}
    allowed = {"compass_emulator", "cryptography", "graphql", "h11", "_cffi_backend", "_openssl"}
    assert foreign - allowed == set()
