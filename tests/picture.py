"""Make `docs/images/status-page.png` anew: `make picture`.

The history in it is one that happened: faketime sets the clock of emulator and sidecar back, to connect
with a token 75 days ago and to renew 33 days ago.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.browser import Browser
from tests.support.processes import ROOT, EmulatorProcess, SidecarProcess

PICTURE = ROOT / "docs" / "images" / "status-page.png"
WIDTH, HEIGHT = 1100, 1010


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ago("75d"), running(folder, connecting=True):
            pass
        with ago("33d"), running(folder) as sidecar:
            answer = sidecar.client.post("/renew")
            assert answer.is_success, answer.text
        with running(folder) as sidecar:
            photograph(sidecar, folder / "profile")
    quantize = ("pngquant", "--force", "--strip", "--speed", "1", "--output", str(PICTURE), str(PICTURE))
    subprocess.run(quantize, check=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1024} KiB")
    return 0


@contextmanager
def ago(days: str) -> Iterator[None]:
    """For the processes that are started within."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    # Timers of asyncio go by the monotonic clock.
    wanted = {"LD_PRELOAD": str(library), "FAKETIME": f"-{days}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for each in wanted:
            del os.environ[each]


@contextmanager
def running(folder: Path, *, connecting: bool = False) -> Iterator[SidecarProcess]:
    with ExitStack() as stack:
        (folder / "emulator" / "endpoints.json").unlink(missing_ok=True)  # of the run before
        emulator = EmulatorProcess(folder / "emulator")
        stack.callback(emulator.stop)
        environment = {
            "COMPASS_STORE_DIR": str(folder / "store"),
            "COMPASS_PUBLISH_DIR": str(folder / "published"),
            "COMPASS_CONNECTOR_URL": emulator.endpoints["connector_url"],
            "COMPASS_CONNECTOR_CA_FILE": emulator.endpoints["ca_file"],
            "COMPASS_KEY_SIZE": "4096",
        }
        if connecting:
            environment["COMPASS_TOKEN"] = emulator.control("POST", "/tokens", {})["token"]
            environment["COMPASS_TOKEN_CONNECTOR_URL"] = emulator.endpoints["token_connector_url"]
        sidecar = SidecarProcess(environment, log=folder / "log")
        stack.callback(sidecar.close)
        yield sidecar.ready()
        sidecar.stop()


def photograph(sidecar: SidecarProcess, profile: Path) -> None:
    browser = Browser(profile)
    try:
        browser.reset()
        browser.resize(WIDTH, HEIGHT)
        browser.open(sidecar.port)
        PICTURE.parent.mkdir(exist_ok=True)
        browser.driver.save_screenshot(str(PICTURE))
    finally:
        browser.quit()


if __name__ == "__main__":
    sys.exit(main())
