"""A store that was damaged while nobody looked, and a sidecar that is started on it.

A new kind of damage is one row of `DAMAGES`: what is done to the folder, and what a start makes of it.
"""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import wait_until
from tests.torture.forge import Forged
from tests.torture.promises import current_pair, published_pair, whole_pair
from tests.torture.scenarios import BEARER, Lab, two_generations

NOBODY = 65534
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner")


# -- what is done to it -----------------------------------------------------------------------------


def current(store: Path) -> Path:
    return (store / "current").resolve()


def to(change: Callable[[Path], object], *names: str) -> Callable[[Path], None]:
    """This change to these files of the current generation."""

    def damage(store: Path) -> None:
        for name in names:
            change(current(store) / name)

    return damage


def at(change: Callable[[Path], object], name: str) -> Callable[[Path], None]:
    """This change to what has this name in the store."""

    def damage(store: Path) -> None:
        change(store / name)

    return damage


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def gone(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def folder(path: Path) -> None:
    gone(path)
    path.mkdir()
    (path / "file").touch()


def file(path: Path) -> None:
    gone(path)
    noise(path)


def dangling(path: Path) -> None:
    gone(path)
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    gone(path)
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    gone(path)
    os.mkfifo(path)


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(3000))


def copied_half(store: Path) -> None:
    """As `cp -rL` that was ended half-way: the link is a folder, and the last files are missing."""
    target = current(store)
    (store / "current").unlink()
    shutil.copytree(target, store / "current")
    for path in (target, store / "current"):
        (path / "generation.json").unlink()


def every_generation(store: Path) -> None:
    for path in (store / "generations").iterdir():
        empty(path / "tls.key")


def swapped_keys(store: Path) -> None:
    one, two = ((path / "tls.key") for path in (store / "generations").iterdir())
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def opened_up(store: Path) -> None:
    for path in [store, *store.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o777)


def given_away(store: Path) -> None:
    for path in store.rglob("*"):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


# -- what is made of it -----------------------------------------------------------------------------


def carries_on(sidecar: Forged, newest: str, previous: str) -> None:
    sidecar.answers("/readyz", 200)
    assert sidecar.fingerprint() == newest


def falls_back(sidecar: Forged, newest: str, previous: str) -> None:
    sidecar.answers("/readyz", 200)
    assert sidecar.fingerprint() == previous
    assert '"event": "generation-damaged"' in sidecar.log
    answer = sidecar.client.post("/renew", headers=BEARER)
    assert answer.status_code == 200, answer.text


def waits_for_help(sidecar: Forged, newest: str, previous: str) -> None:
    sidecar.answers("/startupz", 503)
    assert sidecar.status()["state"] == "unconnected"

    def calls_for_help() -> bool:
        events = {event["event"] for event in sidecar.status()["events"]}
        return bool({"store-damaged", "connect-needed"} & events)

    wait_until(calls_for_help, "the event that asks for help")  # it comes with the loop's first turn
    assert sidecar.client.get("/certificate").status_code == 503
    sidecar.answers("/livez", 200)


def refuses(sidecar: Forged, newest: str, previous: str) -> None:
    assert sidecar.ended() == 2
    assert sidecar.log.startswith("compass-sidecar: COMPASS_STORE_DIR: ")
    assert sidecar.log.count("\n") == 1


DAMAGES: dict[str, tuple[Callable[[Path], None], Callable[[Forged, str, str], None]]] = {
    "key truncated": (to(halve, "tls.key"), falls_back),
    "key emptied": (to(empty, "tls.key"), falls_back),
    "key flipped": (to(flip, "tls.key"), falls_back),
    "key gone": (to(gone, "tls.key"), falls_back),
    "key a dangling link": (to(dangling, "tls.key"), falls_back),
    "chain truncated": (to(halve, "tls.crt"), falls_back),
    "chain flipped": (to(flip, "tls.crt"), falls_back),
    "chain a folder": (to(folder, "tls.crt"), falls_back),
    "chain a pipe": (to(pipe, "tls.crt"), falls_back),
    "ca emptied": (to(empty, "ca.crt"), falls_back),
    "ca a link to itself": (to(loop, "ca.crt"), falls_back),
    "facts truncated": (to(halve, "generation.json"), falls_back),
    "facts noise": (to(noise, "generation.json"), falls_back),
    "facts a folder": (to(folder, "generation.json"), falls_back),
    "everything emptied": (to(empty, "tls.key", "tls.crt", "ca.crt", "generation.json"), falls_back),
    "keys of two generations swapped": (swapped_keys, waits_for_help),
    "every key emptied": (every_generation, waits_for_help),
    "current gone": (at(gone, "current"), carries_on),
    "current dangling": (at(dangling, "current"), carries_on),
    "current a link to itself": (at(loop, "current"), carries_on),
    "current a folder": (at(folder, "current"), carries_on),
    "copied half": (copied_half, falls_back),
    "generations gone": (at(gone, "generations"), waits_for_help),
    "generations a file": (at(file, "generations"), refuses),
    "lock a folder": (at(folder, "lock"), refuses),
    "instance noise": (at(noise, "instance.json"), carries_on),
    "notifications noise": (at(noise, "notifications.json"), carries_on),
    "notifications a pipe": (at(pipe, "notifications.json"), carries_on),
    "instance a folder": (at(folder, "instance.json"), carries_on),
    "journal noise": (at(noise, "journal.jsonl"), carries_on),
    "journal a folder": (at(folder, "journal.jsonl"), carries_on),
    "journal a pipe": (at(pipe, "journal.jsonl"), carries_on),
    "pending noise": (at(noise, "pending"), carries_on),
    "pending an empty folder": (at(Path.mkdir, "pending"), carries_on),
    "pending a dangling link": (at(dangling, "pending"), carries_on),
    "modes opened": (opened_up, carries_on),
    "files of another owner": (given_away, carries_on),
}


def contents(store: Path) -> dict[str, bytes]:
    """The keys and chains in the generations, by name."""
    found = {}
    for path in (store / "generations").glob("*/tls.*"):
        if path.is_file():
            found[str(path.relative_to(store))] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", [pytest.param(n, marks=ROOT_ONLY) if "owner" in n else n for n in DAMAGES])
def test_a_damaged_store_is_used_as_far_as_it_can_be(lab: Lab, tmp_path: Path, name: str) -> None:
    damage, expected = DAMAGES[name]
    disk = tmp_path / "disk"
    shutil.copytree(lab.disk("two", two_generations), disk, symlinks=True)
    store = disk / "store"
    newest = current_pair(store)
    (older,) = set((store / "generations").iterdir()) - {current(store)}
    previous = whole_pair(older, what="previous")
    assert newest is not None
    damage(store)
    left = contents(store)
    with lab.forge.start(lab.environment(disk), disk / "log") as sidecar:
        expected(sidecar, newest, previous)
        assert "Traceback" not in sidecar.log
        assert "internal-error" not in sidecar.log
        if expected is not refuses:
            served = sidecar.fingerprint()
            # Neighbours go on with what they have.
            assert published_pair(disk / "published") == (served or newest)
            assert served is None or current_pair(store) == served
    good = {key: value for key, value in left.items() if older.name in key}
    assert good.items() <= contents(store).items()
    for path in store.rglob("tls.key"):
        assert not path.is_file() or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_wiped_store_is_not_taken_for_one(lab: Lab, tmp_path: Path) -> None:
    """`generations` is gone, and neighbours still have what was published: it stays."""
    disk = tmp_path / "disk"
    shutil.copytree(lab.disk("two", two_generations), disk, symlinks=True)
    before = published_pair(disk / "published")
    shutil.rmtree(disk / "store" / "generations")
    with lab.forge.start(lab.environment(disk), disk / "log") as sidecar:
        sidecar.answers("/livez", 200)
        assert published_pair(disk / "published") == before is not None
        assert json.loads(sidecar.client.get("/readyz").text)["code"] == "not-connected"
