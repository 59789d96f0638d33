"""A disk that fails under the real process: full, read-only, slow, taken away; and whatever the umask is."""

import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import wait_until
from tests.torture.forge import Forged
from tests.torture.promises import current_pair, orderly, published_pair
from tests.torture.scenarios import BEARER, Lab, holding
from tests.torture.tracer import why_not

NOBODY = 65534
PAGE = 4096
EAGER = {"COMPASS_RENEWAL_MIN_INTERVAL": "0s"}


@pytest.fixture
def volume() -> Iterator[Path]:
    """A file system of 1 MiB, mounted where every user can get at it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name, "volume")
        path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", path]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("only root may mount a small disk; test_store.py injects the same faults in-process")
        try:
            yield path
        finally:
            subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def read_only(volume: Path) -> Iterator[None]:
    """As after an error of the disk: nothing can be opened for writing, what is open stays so."""
    subprocess.run(["mount", "--bind", volume, volume], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", volume], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", volume], check=True)


def fill(volume: Path, *, pages_left: int) -> Path:
    """Leave exactly this room on the volume; removing the answer makes it all free again."""
    filler = volume / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(PAGE)):
                pass
        except OSError:
            pass
    os.truncate(filler, (filler.stat().st_size // PAGE - pages_left) * PAGE)
    return filler


def furnished(lab: Lab, disk: Path) -> Path:
    """The disk, with a credential on it."""
    for name in ("store", "published"):
        shutil.copytree(lab.disk("holding", holding) / name, disk / name, symlinks=True)
    return disk


def renew(sidecar: Forged) -> tuple[int, str]:
    answer = sidecar.client.post("/renew", headers=BEARER)
    return answer.status_code, answer.json().get("code", "")


def still_served(sidecar: Forged, fingerprint: str | None) -> None:
    assert sidecar.answers("/readyz", 200).fingerprint() == fingerprint
    assert "Traceback" not in sidecar.log


def test_a_disk_that_is_full_at_any_write_costs_no_credential(lab: Lab, volume: Path, tmp_path: Path) -> None:
    disk = furnished(lab, volume)
    outcomes = set()
    with lab.forge.start(lab.environment(disk, **EAGER), tmp_path / "log") as sidecar:
        for pages in range(0, 14, 2):
            held = sidecar.answers("/readyz", 200).fingerprint()
            filler = fill(volume, pages_left=pages)
            signatures = lab.emulator.signatures()
            outcome = renew(sidecar)
            outcomes.add(outcome)
            if outcome[0] == 200:
                assert sidecar.fingerprint() != held
            else:
                still_served(sidecar, held)
            assert current_pair(disk / "store") == sidecar.fingerprint()
            assert published_pair(disk / "published") is not None
            filler.unlink()
            wait_until(lambda: renew(sidecar)[0] == 200, "a renewal with room")
            assert lab.emulator.signatures() - signatures <= 2
            orderly(sidecar, disk / "store", disk / "published")
    assert outcomes == {(507, "store-write-failed"), (200, "")}


def test_a_start_on_a_full_disk_serves_what_is_there(lab: Lab, volume: Path, tmp_path: Path) -> None:
    disk = furnished(lab, volume)
    held = current_pair(disk / "store")
    fill(volume, pages_left=0)
    with lab.forge.start(lab.environment(disk), tmp_path / "log") as sidecar:
        still_served(sidecar, held)


def test_a_disk_that_turns_read_only_costs_no_credential(lab: Lab, volume: Path, tmp_path: Path) -> None:
    disk = furnished(lab, volume)
    held = current_pair(disk / "store")
    with lab.forge.start(lab.environment(disk, **EAGER), tmp_path / "log") as sidecar:
        sidecar.answers("/readyz", 200)
        with read_only(volume):
            assert renew(sidecar) == (507, "store-write-failed")
            still_served(sidecar, held)
        assert renew(sidecar) == (200, "")
        orderly(sidecar, disk / "store", disk / "published")


def test_a_start_on_a_read_only_disk_is_refused_in_one_line(lab: Lab, volume: Path, tmp_path: Path) -> None:
    disk = furnished(lab, volume)
    with read_only(volume), lab.forge.start(lab.environment(disk), tmp_path / "log") as sidecar:
        assert sidecar.ended() == 2
        assert sidecar.log.startswith("compass-sidecar: COMPASS_STORE_DIR: ")
        assert "read-only file system" in sidecar.log
        assert sidecar.log.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_permission_lost_under_it_costs_no_credential(lab: Lab, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        disk = furnished(lab, Path(name))
        authority = disk / "ca.pem"
        shutil.copy(lab.emulator.endpoints["ca_file"], authority)
        for path in [disk, *disk.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        held = current_pair(disk / "store")
        environment = lab.environment(disk, **EAGER) | {"COMPASS_CONNECTOR_CA_FILE": str(authority)}
        with lab.forge.start(environment, tmp_path / "log", uid=NOBODY) as sidecar:
            sidecar.answers("/readyz", 200)
            for folder in ("store", "store/generations", "published"):
                os.chown(disk / folder, 0, 0)
                status, code = renew(sidecar)
                if folder == "published":
                    assert status == 200
                    assert "publish-failed" in sidecar.status()["reasons"]
                    assert published_pair(disk / "published") is not None
                else:
                    assert (status, code) in {(507, "store-write-failed"), (500, "store-damaged")}
                    detail = sidecar.status()["renewal"]["last_error"]["detail"]
                    assert "permission denied" in detail.lower()
                    still_served(sidecar, held)
                os.chown(disk / folder, NOBODY, NOBODY)
                assert renew(sidecar) == (200, "")
                held = sidecar.fingerprint()
            wait_until(lambda: published_pair(disk / "published") == held, "what is current is published")
            assert "Traceback" not in sidecar.log


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which holds the calls, is not installed")
def test_a_disk_that_hangs_holds_up_no_probe(lab: Lab, tmp_path: Path) -> None:
    """No fsync comes back while strace holds them; a renewal that waits for one goes on when it does."""
    disk = tmp_path / "disk"
    disk.mkdir()
    furnished(lab, disk)
    with lab.forge.start(lab.environment(disk, **EAGER), tmp_path / "log") as sidecar:
        held = sidecar.answers("/readyz", 200).fingerprint()
        hang = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(sidecar.pid), "-e", "trace=fsync"]
        strace = subprocess.Popen([*hang, "-e", "inject=fsync:delay_enter=60s"])
        try:
            threads = Path(f"/proc/{sidecar.pid}/task")
            wait_until(lambda: all(traced(thread) for thread in threads.iterdir()), "strace")
            answers: list[int] = []
            renewing = threading.Thread(target=lambda: answers.append(renew(sidecar)[0]))
            renewing.start()
            wait_until(lambda: list((disk / "store").glob(".tmp-*")), "the first write")
            for _ in range(10):
                for path in ("/livez", "/readyz", "/certificate", "/status"):
                    assert sidecar.client.get(path).status_code == 200
            assert not (disk / "store" / "pending").exists()
            assert sidecar.fingerprint() == held
        finally:
            strace.terminate()
            strace.wait(10)
        renewing.join()
        assert answers == [200]
        assert sidecar.fingerprint() != held


def traced(thread: Path) -> bool:
    return "TracerPid:\t0\n" not in (thread / "status").read_text()


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_keys_are_private_whatever_the_umask(lab: Lab, tmp_path: Path, umask: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    environment = lab.environment(disk, **lab.importing(), **EAGER)
    log = tmp_path / "log"
    log.touch()
    with lab.forge.start(environment, log, umask=umask) as sidecar:
        sidecar.answers("/readyz", 200)
        assert renew(sidecar) == (200, "")
        lab.emulator.fault("503-text@probe")
        try:
            assert renew(sidecar)[0] == 503
        finally:
            lab.emulator.heal()
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in disk.rglob("*") if path.is_file()}
        private = {path: mode for path, mode in modes.items() if path.name in {"tls.key", "bundle.pem"}}
        assert len(private) >= 8  # two generations, pending, two published folders and their links
        assert set(private.values()) == {0o600}
        assert {mode for path, mode in modes.items() if disk / "store" in path.parents} == {0o600}
        folders = {stat.S_IMODE(path.stat().st_mode) for path in (disk / "store").rglob("*") if path.is_dir()}
        assert folders == {0o700}
        assert sidecar.stop() == 0
