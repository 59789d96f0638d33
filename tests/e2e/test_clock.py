"""A real process whose wall clock is wrong, or set while it runs (libfaketime); the Connector's is right."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), Path("libfaketime.so.1"))


class Dial(SidecarProcess):
    """A sidecar and the file that says how far off its clock is."""

    def __init__(self, environment: dict[str, str], folder: Path, offset: str = "+0") -> None:
        self.file = folder / "offset"
        self.turn(offset)
        clock = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        super().__init__(environment | clock, log=folder / "log")

    def turn(self, offset: str) -> None:
        """It is noticed within a second."""
        self.file.write_text(offset)


@pytest.fixture
def begin(importing: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], Dial]]:
    made: list[Dial] = []

    def start(offset: str) -> Dial:
        made.append(Dial(importing, tmp_path, offset))
        made[0].ready()
        return made[0]

    yield start
    for sidecar in made:
        sidecar.close()


@pytest.mark.parametrize(
    ("offset", "seconds"), [("+2d", 172_800), ("+120", 120), ("-120", -120), ("+20d", 1_728_000)]
)
def test_it_renews_with_a_clock_that_is_off_and_says_by_how_much(
    begin: Callable[[str], Dial], offset: str, seconds: int
) -> None:
    sidecar = begin(offset)
    answer = sidecar.client.post("/renew")
    assert answer.status_code == 200, answer.text
    status = sidecar.status()
    assert abs(status["clock_skew_seconds"] + seconds) < 5
    assert ("clock-skew" in status["reasons"]) == (abs(status["clock_skew_seconds"]) > 120)
    assert sidecar.client.get("/readyz").status_code == 200


def test_a_clock_set_months_ahead_and_back_loses_nothing(
    begin: Callable[[str], Dial], emulator: EmulatorProcess
) -> None:
    sidecar = begin("+0")
    signatures = emulator.signatures()
    sidecar.turn("+100d")
    wait_until(lambda: sidecar.client.get("/readyz").status_code == 503, "the jump ahead")
    assert sidecar.client.get("/certificate").json()["code"] == "credential-expired"
    sidecar.turn("+0")
    wait_until(lambda: sidecar.client.get("/readyz").status_code == 200, "the jump back")
    assert sidecar.status()["state"] == "connected"
    assert emulator.signatures() - signatures <= 1, "at most the loop's own attempt while it was expired"


def test_a_clock_that_is_behind_the_servers_certificate_is_told_and_forgotten(
    begin: Callable[[str], Dial],
) -> None:
    sidecar = begin("-10d")
    before = sidecar.fingerprint()
    assert sidecar.client.post("/renew").json()["code"] == "connector-untrusted"
    assert sidecar.client.get("/readyz").status_code == 200
    assert sidecar.fingerprint() == before
    sidecar.turn("+0")
    wait_until(lambda: sidecar.client.post("/renew").status_code == 200, "the jump ahead")
    assert sidecar.stop() == 0
