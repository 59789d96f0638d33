"""The suite itself: it passes wherever it is started."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROBE = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"


def test_what_a_test_starts_heeds_sigint_also_in_a_background_job(tmp_path: Path) -> None:
    """A shell's background job ignores SIGINT, and an ignored signal is inherited."""
    test = tmp_path / "test_inherited.py"
    test.write_text(
        "import subprocess, sys\n\n"
        "def test_child() -> None:\n"
        f"    child = [sys.executable, '-c', {PROBE!r}]\n"
        "    said = subprocess.run(child, capture_output=True, text=True).stdout\n"
        "    assert said == 'False\\n'\n"
    )
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "pytest", "-q", str(test)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
