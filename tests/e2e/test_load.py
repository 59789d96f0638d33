"""Short forms of `make load`: a crowd around a real sidecar."""

import subprocess
import sys

import pytest

from tests.support.processes import ROOT


@pytest.mark.parametrize(
    "command",
    [
        "renew --callers 100",
        "crowd --idle 400 --slow 40 --seconds 4",
        "waiters --waiters 100 --renewals 10",
        "fields --clients 80 --listener api",
        "fields --clients 80 --listener health",
        "ahead --clients 60 --listener api",
        "ahead --clients 60 --listener health",
    ],
)
def test_a_crowd_does_no_harm(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.load", *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
