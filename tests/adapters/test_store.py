"""The store: whatever happens to the process or the disk, a whole credential is found again.

Run as a program it is its own crash driver: see `crashes`.
"""

import errno
import itertools
import json
import os
import random
import resource
import shutil
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from compass_sidecar.adapters import files
from compass_sidecar.adapters.filestore import Store
from compass_sidecar.adapters.ownership import is_mount_point
from compass_sidecar.core.credential import Chain, Credential, render_private_key
from compass_sidecar.core.csr import make_csr
from compass_sidecar.core.generation import Facts, Generation, Mark, Origin, Pending, Signed
from compass_sidecar.errors import (
    NoCredential,
    SettingsError,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreWriteFailed,
)
from tests.support.authority import NOW, Authority, name, rsa_key

ROOT = Path(__file__).parents[2]
AUTHORITY = Authority.create().intermediate()
# Everything by which the adapters, and shutil under them, touch the disk.
OPERATIONS = (
    *("open", "write", "pwrite", "fsync", "close", "rename", "symlink", "mkdir"),
    *("chmod", "fchmod", "fchown", "ftruncate", "unlink", "rmdir"),
)
GENERATION_FILES = ("tls.key", "tls.crt", "ca.crt", "generation.json")


class Warnings:
    """Collects what the store says."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def __call__(self, code: str, detail: str) -> None:
        self.said.append((code, detail))

    @property
    def codes(self) -> list[str]:
        return [code for code, _ in self.said]


def open_store(directory: Path, warn: Callable[[str, str], None] | None = None, **options: Any) -> Store:
    return Store.open(directory, now=lambda: NOW, warn=warn or Warnings(), **options)


def facts(at: datetime = NOW, **others: Any) -> Facts:
    return Facts(Origin.RENEW, "https://mtls.example/connector/graphql", at, **others)


@cache  # signatures are random: the same one for every process that is interrupted
def credential(number: int, at: datetime = NOW) -> Credential:
    return AUTHORITY.credential(number=number, not_before=at)


def pending(number: int, **others: Any) -> Pending:
    key = rsa_key(number)
    made = Pending(
        origin=Origin.CONNECT,
        begun_by=None,
        begun_at=NOW,
        sign_url="https://token.example/graphql",
        connector_url="https://mtls.example/graphql",
        director_url=None,
        subject="O=Org,CN=id",
        key_pem=render_private_key(key),
        csr_pem=make_csr(key, name()),
        token="token B",
    )
    return replace(made, **others)


def signed(under_way: Pending, number: int) -> Pending:
    return replace(under_way, signed=Signed(credential(number).chain, NOW))


@pytest.fixture
def warn() -> Warnings:
    return Warnings()


@pytest.fixture
def store(tmp_path: Path, warn: Warnings) -> Iterator[Store]:
    store = open_store(tmp_path / "store", warn)
    yield store
    store.close()


@pytest.fixture
def two(store: Store) -> tuple[Generation, Generation]:
    """An older generation and the current one."""
    older = store.activate(credential(1), facts())
    later = NOW + timedelta(hours=1)
    return older, store.activate(credential(2, later), facts(later))


def tree(directory: Path) -> dict[str, Any]:
    """Everything below a folder that a change would show in."""
    found = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns, status.st_ctime_ns, content)
    return found


def leftovers(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.name.startswith(".tmp-")]


# -- the layout -------------------------------------------------------------------------------


def test_a_new_store_has_the_promised_layout_and_modes(tmp_path: Path) -> None:
    directory = tmp_path / "var" / "lib" / "store"
    store = open_store(directory)
    generation = store.activate(credential(1), facts(datetime.fromisoformat("2026-11-23T20:03:00+00:00")))
    assert generation.name == f"20261123T200300Z-{generation.chain.fingerprint[:12]}"
    assert (directory / "current").readlink() == Path("generations", generation.name)
    store.save_pending(signed(pending(2), 2))
    store.pending_pair(signed(pending(2), 2))
    modes = {
        str(path.relative_to(directory)): stat.S_IMODE(path.lstat().st_mode) for path in directory.rglob("*")
    }
    modes.pop("current")
    assert {path for path, mode in modes.items() if mode == 0o700} == {
        "generations",
        f"generations/{generation.name}",
        "pending",
    }
    assert set(modes.values()) == {0o600, 0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (directory, directory.parent)} == {0o700}
    folder = directory / "generations" / generation.name
    assert (folder / "tls.key").read_bytes() == generation.credential.key_pem
    assert (folder / "tls.crt").read_bytes() == generation.chain.pem
    assert (folder / "ca.crt").read_bytes() == generation.chain.ca_pem
    assert (
        json.loads((folder / "generation.json").read_bytes())["connector_url"]
        == generation.facts.connector_url
    )


def test_what_was_activated_is_loaded_again_after_a_restart(tmp_path: Path) -> None:
    known = facts(
        director_url="https://director.example",
        proven_at=NOW,
        revoke_at=NOW + timedelta(hours=1),
        revoked_at=NOW + timedelta(hours=2, microseconds=5),
    )
    store = open_store(tmp_path)
    generation = store.activate(credential(1), known)
    assert (store.load(), store.generations()) == (generation, (generation,))
    store.close()
    again = open_store(tmp_path)
    assert again.load() == generation == Store.peek(tmp_path)
    assert again.instance_id == store.instance_id


def test_a_leaf_without_ca_has_no_ca_file(store: Store, tmp_path: Path) -> None:
    alone = Credential(Chain.of([AUTHORITY.issue()]), render_private_key(rsa_key()))
    generation = store.activate(alone, facts())
    assert not (tmp_path / "store" / "generations" / generation.name / "ca.crt").exists()
    assert store.load() == generation


def test_the_mount_point_keeps_its_mode_and_what_is_below_is_tightened(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    generation = store.activate(credential(1), facts())
    store.save_pending(pending(2))
    store.save_notifications({})
    store.close()
    (tmp_path / "journal.jsonl").touch()
    foreign = tmp_path / "notes.txt"
    foreign.touch()
    for path in tmp_path.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o2770 if path.is_dir() else 0o666)
    tmp_path.chmod(0o2775)
    store = open_store(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o2775
    assert stat.S_IMODE(foreign.stat().st_mode) == 0o666
    ours = [path for path in tmp_path.rglob("*") if not path.is_symlink() and path != foreign]
    assert {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in ours} == {
        (True, 0o700),
        (False, 0o600),
    }
    assert store.load() == generation


def test_foreign_entries_are_ignored_and_own_leftovers_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    generation = store.activate(credential(1), facts())
    store.close()
    kept = [tmp_path / "lost+found", tmp_path / "generations" / "lost+found"]
    ours = [
        tmp_path / ".tmp-1",
        tmp_path / "generations" / ".tmp-2",
        tmp_path / "generations" / generation.name / ".tmp-3",
    ]
    for path in [*kept, *ours]:
        path.mkdir()
        (path / "file").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (tmp_path / ".tmp-4").symlink_to(elsewhere)
    warn = Warnings()
    store = open_store(tmp_path, warn)
    assert store.load() == generation
    assert all((path / "file").exists() for path in kept)
    assert not leftovers(tmp_path)
    assert (elsewhere / "precious").exists()
    assert warn.said == []


def test_reading_changes_nothing(store: Store, two: tuple[Generation, Generation], tmp_path: Path) -> None:
    store.save_pending(signed(pending(3), 3))
    before = tree(tmp_path)
    store.load(), store.generations(), store.pending(), Store.peek(tmp_path / "store")
    assert tree(tmp_path) == before


def test_an_empty_store_has_no_generation_and_nothing_pending(
    store: Store, warn: Warnings, tmp_path: Path
) -> None:
    assert (store.load(), store.generations(), store.pending()) == (None, (), None)
    assert Store.peek(tmp_path / "store") is None
    with pytest.raises(NoCredential):
        store.pending_pair(pending(1))
    assert warn.said == []


def test_pairs_are_files_that_do_not_move_with_current(
    store: Store, two: tuple[Generation, Generation]
) -> None:
    older, _ = two
    pair = store.pair(older)
    assert pair.fingerprint == older.chain.fingerprint
    assert pair.certificate_file.read_bytes() == older.chain.pem
    assert pair.key_file.read_bytes() == older.credential.key_pem
    assert "current" not in pair.key_file.parts


def test_instance_and_used_tokens_survive_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert len(bytes.fromhex(store.instance_id)) == 16
    assert not store.token_used("a" * 64)
    store.remember_token("a" * 64)
    store.remember_token("a" * 64)
    store.close()
    again = open_store(tmp_path)
    assert again.token_used("a" * 64)
    assert not again.token_used("b" * 64)
    assert json.loads((tmp_path / "instance.json").read_bytes())["used_tokens"] == ["a" * 64]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"instance_id": "1"}', b"[" * 100_000, b"\xff", None]
)
def test_a_damaged_instance_is_made_anew(tmp_path: Path, content: bytes | None) -> None:
    store = open_store(tmp_path)
    store.close()
    path = tmp_path / "instance.json"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    warn = Warnings()
    again = open_store(tmp_path, warn)
    assert warn.codes == ["instance-damaged"]
    assert again.instance_id != store.instance_id
    again.close()
    assert open_store(tmp_path).instance_id == again.instance_id


# -- generations ------------------------------------------------------------------------------


def test_current_and_previous_are_kept(store: Store, tmp_path: Path) -> None:
    made = [store.activate(credential(n, NOW + timedelta(n)), facts(NOW + timedelta(n))) for n in range(1, 5)]
    assert store.generations() == (made[3], made[2])
    assert not leftovers(tmp_path)


def test_a_generation_that_is_still_to_be_revoked_stays_until_revoked_or_expired(tmp_path: Path) -> None:
    clock = [NOW]
    store = Store.open(tmp_path, now=lambda: clock[0], warn=Warnings())
    to_revoke = store.activate(credential(1), facts(revoke_at=NOW))
    rest = [store.activate(credential(n, NOW + timedelta(n)), facts(NOW + timedelta(n))) for n in range(2, 5)]
    assert store.generations() == (rest[2], rest[1], to_revoke)
    revoked = store.amend(to_revoke, replace(to_revoke.facts, revoked_at=NOW))
    assert store.generations()[-1] == revoked
    fifth = store.activate(credential(5, NOW + timedelta(5)), facts(NOW + timedelta(5)))
    assert store.generations() == (fifth, rest[2])
    store.amend(rest[2], replace(rest[2].facts, revoke_at=NOW))
    clock[0] = NOW + timedelta(100)
    later = [
        store.activate(credential(n, NOW + timedelta(n)), facts(NOW + timedelta(n))) for n in range(6, 8)
    ]
    assert store.generations() == (later[1], later[0])


def test_a_failure_to_prune_is_a_warning(
    store: Store, two: tuple[Generation, Generation], warn: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Path:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files, "set_aside", refuse)
    later = NOW + timedelta(hours=2)
    third = store.activate(credential(3, later), facts(later))
    assert store.load() == third
    assert warn.codes == ["prune-failed"]


def test_the_same_leaf_twice_in_a_second_gets_two_names(store: Store) -> None:
    first = store.activate(credential(1), facts())
    second = store.activate(first.credential, facts(director_url="https://other.example"))
    assert first.name != second.name
    assert store.load() == second
    assert store.generations() == (second,)


def test_amending_changes_the_facts_and_nothing_else(
    store: Store, two: tuple[Generation, Generation]
) -> None:
    older, current = two
    amended = store.amend(current, replace(current.facts, proven_at=NOW))
    assert store.load() == amended == replace(current, facts=replace(current.facts, proven_at=NOW))
    assert store.generations() == (amended, older)


def test_fields_of_a_later_version_are_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    current = store.activate(credential(1), facts())
    store.close()
    later = {"later": {"version": [9]}}
    paths = (tmp_path / "instance.json", tmp_path / "current" / "generation.json")
    for path in paths:
        path.write_bytes(files.seal({**files.unseal(path.read_bytes()), **later}))
    again = open_store(tmp_path)
    assert again.load() == current
    again.amend(current, replace(current.facts, proven_at=NOW))
    again.remember_token("a" * 64)
    again.close()
    for path in paths:
        assert later.items() <= files.unseal(path.read_bytes()).items()
    assert open_store(tmp_path).load() == replace(current, facts=replace(current.facts, proven_at=NOW))


# -- damage -----------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def _to_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _to_good_link(path: Path) -> None:
    copy = path.parent.parent.parent / "copy"
    shutil.copy(path, copy)
    _to_link(path, str(copy))


def _to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 2),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": _zero,
    "flipped": _flip,
    "missing": Path.unlink,
    "folder": _to_folder,
    "dangling": lambda path: _to_link(path, "nowhere"),
    "link to a good copy": _to_good_link,
    "pipe": _to_pipe,
    "huge": lambda path: os.truncate(path, 1 << 30),
}


@pytest.mark.parametrize(("file", "damage"), list(itertools.product(GENERATION_FILES, DAMAGES)))
def test_a_damaged_current_generation_is_skipped_loudly_for_the_previous(
    tmp_path: Path, file: str, damage: str
) -> None:
    warn = Warnings()
    store = open_store(tmp_path / "store", warn)
    _two_generations(store)
    current, older = store.generations()
    DAMAGES[damage](tmp_path / "store" / "generations" / current.name / file)
    with pytest.raises(StoreDamaged):
        Store.peek(tmp_path / "store")
    assert store.load() == older
    assert warn.codes == ["generation-damaged"]
    assert current.name in warn.said[0][1]
    assert older.name in warn.said[0][1]
    assert file in warn.said[0][1]
    assert Store.peek(tmp_path / "store") == older
    assert store.load() == older
    assert len(warn.said) == 1


def test_no_flipped_bit_goes_unnoticed(
    store: Store, two: tuple[Generation, Generation], tmp_path: Path
) -> None:
    _, current = two
    dice = random.Random(1)
    for path in sorted((tmp_path / "store" / "generations" / current.name).iterdir()):
        good = path.read_bytes()
        for bit in dice.sample(range(len(good) * 8), 60):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bad)
            assert store.load() in two, (path, bit)
            path.write_bytes(good)
            files.swap_symlink(tmp_path / "store" / "current", f"generations/{current.name}")


def test_files_of_another_generation_are_noticed(
    store: Store, two: tuple[Generation, Generation], tmp_path: Path
) -> None:
    older, current = two
    folder = tmp_path / "store" / "generations"
    shutil.rmtree(folder / current.name)
    shutil.copytree(folder / older.name, folder / current.name)
    assert store.load() == older


def test_a_key_that_does_not_fit_is_noticed_whatever_the_checksums_say(store: Store, warn: Warnings) -> None:
    good = store.activate(credential(1), facts())
    later = NOW + timedelta(1)
    store.activate(replace(credential(2, later), key_pem=good.credential.key_pem), facts(later))
    assert store.load() == good
    assert "another key" in warn.said[0][1]


def _gone(current: Path, generation: Path) -> None:
    shutil.rmtree(generation)


def _generation_is_a_link(current: Path, generation: Path) -> None:
    generation.rename(generation.parent.parent / "moved")
    generation.symlink_to("../moved")


def _current_is(make: Callable[[Path], Any]) -> Callable[[Path, Path], None]:
    def change(current: Path, generation: Path) -> None:
        current.unlink()
        make(current)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _gone,
        _generation_is_a_link,
        _current_is(lambda current: current.symlink_to("generations/20200101T000000Z-000000000000")),
        _current_is(lambda current: None),
        _current_is(lambda current: current.symlink_to("../../etc")),
        _current_is(lambda current: current.symlink_to("/etc")),
        _current_is(lambda current: current.write_text("generations/x")),
        _current_is(lambda current: shutil.copytree(current.parent / "generations", current)),
    ],
)
def test_a_broken_current_is_repaired(
    store: Store,
    two: tuple[Generation, Generation],
    warn: Warnings,
    tmp_path: Path,
    change: Callable[[Path, Path], None],
) -> None:
    directory = tmp_path / "store"
    change(directory / "current", directory / "generations" / two[1].name)
    found = store.load()
    assert found in two
    assert warn.codes == ["generation-damaged"]
    assert (directory / "current").readlink() == Path("generations", found.name)
    assert not leftovers(directory)


def test_the_newest_is_found_by_its_certificate_and_never_by_a_time_of_the_disk(
    store: Store, warn: Warnings, tmp_path: Path
) -> None:
    made = [store.activate(credential(n, NOW + timedelta(n)), facts(revoke_at=NOW)) for n in (1, 3, 2, 4)]
    for age, each in enumerate(made):
        os.utime(tmp_path / "store" / "generations" / each.name, (age, age))
    (tmp_path / "store" / "generations" / made[3].name / "tls.key").unlink()
    found = store.load()
    assert found is not None
    assert found.name == made[1].name


def test_a_revoked_generation_is_no_way_out(
    store: Store, two: tuple[Generation, Generation], tmp_path: Path
) -> None:
    older, current = two
    store.amend(older, replace(older.facts, revoked_at=NOW))
    (tmp_path / "store" / "generations" / current.name / "tls.key").unlink()
    with pytest.raises(StoreDamaged, match=f"{current.name}.*tls.key.*no other"):
        store.load()
    third = store.activate(credential(3), facts())
    assert store.load() == third


def test_a_generation_that_we_fall_back_on_is_not_to_be_revoked_any_more(
    store: Store, two: tuple[Generation, Generation], tmp_path: Path
) -> None:
    older, current = two
    store.amend(older, replace(older.facts, revoke_at=NOW))
    (tmp_path / "store" / "generations" / current.name / "tls.key").unlink()
    assert store.load() == older
    assert store.load() == older


def test_a_revoked_generation_stays_current_while_it_is_whole(
    store: Store, two: tuple[Generation, Generation]
) -> None:
    revoked = store.amend(two[1], replace(two[1].facts, revoked_at=NOW))
    assert store.load() == revoked


def test_a_dangling_current_and_no_generation_is_an_empty_store(
    store: Store, warn: Warnings, tmp_path: Path
) -> None:
    generation = store.activate(credential(1), facts())
    shutil.rmtree(tmp_path / "store" / "generations" / generation.name)
    assert store.load() is None
    assert warn.codes == ["generation-damaged"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_running_out_of_descriptors_is_not_taken_for_damage(
    store: Store,
    two: tuple[Generation, Generation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    store.save_pending(pending(3))
    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _raising(number))
        for call in (store.load, store.pending, store.generations):
            with pytest.raises(StoreError) as caught:
                call()
            assert not isinstance(caught.value, StoreDamaged)
    assert tree(tmp_path) == before
    assert store.load() == two[1]


def _raising(number: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


# -- pending ----------------------------------------------------------------------------------


def test_pending_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first, second = pending(1), pending(2, begun_by="ab" * 32, token=None, director_url="https://d.example")
    store.save_pending(first)
    assert store.pending() == first
    store.save_pending(second)
    assert store.pending() == second
    answered = signed(second, 2)
    store.save_pending(answered)
    assert store.pending() == answered
    assert answered.signed is not None
    marks = {"failed_since": Mark("boot", timedelta(days=1.5)), "failed_proofs": 2}
    refused = replace(answered, signed=replace(answered.signed, **marks, anchor_changed=True))
    store.save_pending(refused)
    store.close()
    again = open_store(tmp_path)
    assert again.pending() == refused
    for _ in range(2):
        pair = again.pending_pair(refused)
        assert pair.fingerprint == answered.signed.chain.fingerprint
        assert pair.certificate_file.read_bytes() == second.key_pem + answered.signed.chain.pem
        ssl.create_default_context().load_cert_chain(pair.certificate_file, pair.key_file)
    again.drop_pending()
    again.drop_pending()
    assert again.pending() is None
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pending_is_dropped_with_a_warning(
    store: Store, warn: Warnings, tmp_path: Path, damage: str
) -> None:
    store.save_pending(signed(pending(1), 1))
    DAMAGES[damage](tmp_path / "store" / "pending" / "pending.json")
    assert store.pending() is None
    assert warn.codes == ["pending-damaged"]
    assert "pending.json" in warn.said[0][1]
    assert not (tmp_path / "store" / "pending").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("key_pem", 5), ("signed", []), ("begun_at", "2026-11-24T00:00:00")]
)
def test_pending_that_another_version_sealed_is_dropped(
    store: Store, warn: Warnings, tmp_path: Path, name: str, value: object
) -> None:
    store.save_pending(pending(1))
    path = tmp_path / "store" / "pending" / "pending.json"
    path.write_bytes(files.seal({**files.unseal(path.read_bytes()), name: value}))
    assert store.pending() is None
    assert warn.codes == ["pending-damaged"]


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("generations")])
def test_pending_that_is_something_else_is_dropped(
    store: Store, warn: Warnings, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    make(tmp_path / "store" / "pending")
    assert store.pending() is None
    assert warn.codes == ["pending-damaged"]
    store.save_pending(pending(1))
    assert store.pending() == pending(1)
    assert (tmp_path / "store" / "generations").is_dir()


def test_no_secret_is_in_a_warning_or_an_error(store: Store, warn: Warnings, tmp_path: Path) -> None:
    store.save_pending(pending(1))
    path = tmp_path / "store" / "pending" / "pending.json"
    path.write_bytes(path.read_bytes().replace(b'"token": "token B"', b'"token": "token C"'))
    assert store.pending() is None
    assert "token C" not in str(warn.said)
    assert "token B" not in repr(pending(1))


# -- the lock ---------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from datetime import datetime, UTC
from compass_sidecar.adapters.filestore import Store
store = Store.open(Path(sys.argv[1]), now=lambda: datetime.now(UTC), warn=print)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def holder(directory: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_holds_the_store(tmp_path: Path) -> None:
    with holder(tmp_path, 60) as process, pytest.raises(StoreLocked) as caught:
        open_store(tmp_path, lock_timeout=timedelta(seconds=0.3))
    assert f"pid {process.pid} on {os.uname().nodename}" in caught.value.detail
    assert str(tmp_path) in caught.value.detail
    open_store(tmp_path, lock_timeout=timedelta(0))


def test_a_second_process_waits_for_the_first_to_end(tmp_path: Path) -> None:
    with holder(tmp_path, 0.5):
        store = open_store(tmp_path, lock_timeout=timedelta(seconds=20))
    assert (tmp_path / "lock").read_text() == f"pid {os.getpid()} on {os.uname().nodename}\n"
    store.close()
    open_store(tmp_path, lock_timeout=timedelta(0))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_locks_are_not_supported_there_is_a_warning(
    tmp_path: Path, warn: Warnings, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("fcntl.flock", _raising(number))
    store = open_store(tmp_path, warn)
    assert store.load() is None
    assert warn.codes == ["store-not-locked"]


def test_a_store_that_could_not_be_opened_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "generations").touch()
    with pytest.raises(SettingsError, match="generations is not a folder"):
        open_store(tmp_path)
    (tmp_path / "generations").unlink()
    open_store(tmp_path, lock_timeout=timedelta(0))


def test_threads_may_call_at_the_same_time(store: Store) -> None:
    made = [(credential(n, NOW + timedelta(n)), facts(NOW + timedelta(n))) for n in range(4)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                store.activate(*made[number])
                store.save_pending(pending(number))
                assert store.load() is not None
                # Whose it is depends on who was last; another one's activation removes it.
                under_way = store.pending()
                assert under_way is None or under_way in [pending(each) for each in range(4)]
        except BaseException as error:  # noqa: BLE001 - a thread's failure has to reach the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# -- crashes ----------------------------------------------------------------------------------


class Doom:
    """Ends the process at the n-th file-system call after `arm`.

    `power` also loses what was written and never synced, as a power cut does on a journalling file
    system: names are there in their order, contents are not.
    """

    def __init__(self, call: int, *, power: bool) -> None:
        self._left, self._power, self._armed = call, power, False
        self._unsynced: dict[int, int] = {}

    def arm(self) -> None:
        for operation in OPERATIONS:
            setattr(os, operation, self._wrap(operation, getattr(os, operation)))
        self._armed = True

    def _wrap(self, operation: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if not self._armed:
                return real(*arguments, **options)
            self._left -= 1
            if self._left == 0:
                self._armed = False
                self._end(operation, real, arguments)
            result = real(*arguments, **options)
            self._armed = False
            self._note(operation, arguments, result)
            self._armed = True
            return result

        return call

    def _note(self, operation: str, arguments: Any, result: Any) -> None:
        if operation == "open" and arguments[1] & os.O_CREAT:
            self._unsynced[os.fstat(result).st_ino] = os.dup(result)
        if operation == "fsync":
            self._unsynced.pop(os.fstat(arguments[0]).st_ino, None)

    def _end(self, operation: str, real: Callable[..., Any], arguments: Any) -> None:
        if operation == "write":
            real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        self.cut_power()
        os._exit(77)

    def cut_power(self) -> None:
        self._armed = False
        for descriptor in self._unsynced.values() if self._power else ():
            os.ftruncate(descriptor, 0)


def _two_generations(store: Store) -> None:
    for number in (0, 1):
        at = NOW + timedelta(number)
        store.activate(credential(number, at), facts(at))


def _pending_signed(store: Store) -> None:
    store.save_pending(signed(pending(0), 0))
    store.pending_pair(signed(pending(0), 0))


def _loose(store: Store) -> None:
    _two_generations(store)
    _pending_signed(store)
    directory = store._directory
    for path in directory.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o770 if path.is_dir() else 0o660)
    for folder in (directory, directory / "generations"):
        (folder / ".tmp-old").mkdir()
        (folder / ".tmp-old" / "tls.key").touch()


def _lose_key(store: Store) -> None:
    _two_generations(store)
    (store._directory / "current" / "tls.key").unlink()


def _under_way(store: Store) -> None:
    _two_generations(store)
    _pending_signed(store)


def _activate_third(store: Store) -> None:
    at = NOW + timedelta(2)
    store.activate(credential(2, at), facts(at))


def _amend(store: Store) -> None:
    current = store.load()
    assert current is not None
    store.amend(current, replace(current.facts, proven_at=NOW))


def _amend_pending(store: Store) -> None:
    under_way = store.pending()
    assert under_way is not None
    assert under_way.signed is not None
    store.save_pending(replace(under_way, signed=replace(under_way.signed, failed_proofs=1)))


# What is there before, and what is interrupted.
INTERRUPTED: dict[str, tuple[Callable[[Store], Any], Callable[[Store], Any]]] = {
    "activate": (_under_way, _activate_third),
    "import": (Store.load, lambda store: store.activate(credential(0), facts())),
    "amend": (_two_generations, _amend),
    "repair": (_lose_key, Store.load),
    "save_pending": (Store.load, lambda store: store.save_pending(pending(1))),
    "replace_pending": (_pending_signed, lambda store: store.save_pending(pending(1))),
    "save_signed": (
        lambda store: store.save_pending(pending(0)),
        lambda store: store.save_pending(signed(pending(0), 0)),
    ),
    "pending_pair": (_pending_signed, lambda store: store.pending_pair(signed(pending(0), 0))),
    "amend_pending": (_pending_signed, _amend_pending),
    "drop_pending": (_pending_signed, Store.drop_pending),
    "remember_token": (
        lambda store: store.remember_token("a" * 64),
        lambda store: store.remember_token("b" * 64),
    ),
    "save_notifications": (Store.load, lambda store: store.save_notifications({"command": []})),
    "replace_notifications": (
        lambda store: store.save_notifications({"command": []}),
        lambda store: store.save_notifications({"command": [{"tries": 1}]}),
    ),
    "open": (_loose, Store.load),
}


def drive(root: Path, what: str, *, power: bool) -> None:
    """Fill `root` with `before`, `after`, a store for each call at which a process was ended, and
    `done`, where it was ended right after the last."""
    prepare, act = INTERRUPTED[what]
    store = open_store(root / "before")
    prepare(store)
    store.close()
    # Once to its end, here: so that all keys and certificates are made before the first fork.
    store = open_store(Path(shutil.copytree(root / "before", root / "after", symlinks=True)))
    act(store)
    store.close()
    for call in range(1, 1000):
        copy = shutil.copytree(root / "before", root / f"{call:03}", symlinks=True)
        child = os.fork()
        if child == 0:
            _interrupt(copy, what, Doom(call, power=power))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            copy.rename(root / "done")
            return
        assert status == 77, status


def _interrupt(directory: Path, what: str, doom: Doom) -> None:
    status = 1
    try:
        if what == "open":
            doom.arm()
            open_store(directory)
        else:
            store = open_store(directory)
            doom.arm()
            INTERRUPTED[what][1](store)
        doom.cut_power()
        status = 0
    finally:
        os._exit(status)


def crashes(root: Path, what: str, mode: str) -> list[Path]:
    """The stores that interrupted processes have left, one per file-system call of the operation."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, str(root), what, mode], check=True, env=environment)
    return sorted(root.glob("[0-9]*"))


def snapshot(directory: Path) -> tuple[Generation | None, Pending | None, bool, bool, object]:
    """What a restart finds; the store is whole again afterwards."""
    store = open_store(directory)
    used = store.token_used("a" * 64), store.token_used("b" * 64)
    found = store.load(), store.pending(), *used, store.notifications()
    store.activate(credential(5, NOW + timedelta(9)), facts(NOW + timedelta(9)))
    store.save_pending(pending(5))
    assert not leftovers(directory)
    store.close()
    return found


@pytest.mark.parametrize("mode", ["kill", "power"])
@pytest.mark.parametrize("what", INTERRUPTED)
def test_a_crash_at_any_instant_leaves_the_old_or_the_new(tmp_path: Path, what: str, mode: str) -> None:
    stores = crashes(tmp_path, what, mode)
    before, after = snapshot(tmp_path / "before"), snapshot(tmp_path / "after")
    allowed = [before, after]
    if what == "activate":  # what is pending says which credential began it: it may outlive the switch
        assert (before[1] is None, after[1]) == (False, None)
        allowed.append((after[0], *before[1:]))
    assert len(stores) >= 5
    assert snapshot(tmp_path / "done") == after
    for directory in stores:
        if what != "repair":
            assert Store.peek(directory) in [each[0] for each in allowed], directory
        assert snapshot(directory) in allowed, directory


# -- a disk that fails ------------------------------------------------------------------------


class Fault:
    """Fails the n-th call of the operations that a disk can fail, and `times` in all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: int, number: int, *, times: int = 1) -> None:
        self.left, self.number, self.times = call, number, times
        for operation in ("open", "write", "fsync", "rename", "symlink", "mkdir"):
            monkeypatch.setattr(os, operation, self._wrap(getattr(os, operation)))

    def _wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if -self.times < self.left <= 0:
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments, **options)

        return call


def attempt(act: Callable[[], Any]) -> str | None:
    """Why it could not be written, None if it was."""
    try:
        act()
    except StoreWriteFailed as error:
        return error.detail
    return None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_write_that_fails_at_any_call_leaves_the_old_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    at = NOW + timedelta(2)
    new = credential(2, at)
    reason = files.reason(OSError(number, os.strerror(number)))
    for call in range(1, 200):
        store = open_store(tmp_path / str(call))
        _two_generations(store)
        before, generations = store.load(), store.generations()
        with monkeypatch.context() as patch:
            fault = Fault(patch, call, number)
            problem = attempt(lambda: store.activate(new, facts(at)))  # noqa: B023 - called at once
        found = store.load()
        if problem is None:
            assert found is not None
            assert found.credential == new
        else:
            assert problem.startswith(
                f"the new generation cannot be stored in {tmp_path / str(call)}: {reason}"
            )
            assert found == before
            assert store.generations() == generations
        assert store.activate(new, facts(at + timedelta(seconds=5))) == store.load()
        store.close()
        if fault.left > 0:
            break
    assert call > 20


@pytest.mark.parametrize("times", [2, 1000])
def test_a_disk_that_also_fails_what_would_mend_it_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    at = NOW + timedelta(2)
    for call in range(1, 200):
        store = open_store(tmp_path / str(call))
        _two_generations(store)
        allowed = {store.generations()[0].credential.key_pem, credential(2, at).key_pem}
        with monkeypatch.context() as patch:
            fault = Fault(patch, call, errno.EIO, times=times)
            attempt(lambda: store.activate(credential(2, at), facts(at)))  # noqa: B023 - called at once
        warn = Warnings()
        store.close()
        found = open_store(tmp_path / str(call), warn).load()
        assert found is not None
        assert found.credential.key_pem in allowed
        assert warn.said == []
        if fault.left > 0:
            break
    assert call > 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_pending_that_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for call in range(1, 200):
        store = open_store(tmp_path / str(call))
        _pending_signed(store)
        before = store.pending()
        with monkeypatch.context() as patch:
            fault = Fault(patch, call, number)
            problem = attempt(lambda: store.save_pending(pending(1)))  # noqa: B023 - called at once
        # The very last sync may fail when the new one is in place.
        assert store.pending() in ((before, pending(1)) if problem else (pending(1),)), call
        store.close()
        if fault.left > 0:
            break
    assert call > 5


def test_a_limit_on_the_file_size_is_a_failed_write(
    store: Store, two: tuple[Generation, Generation], tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    later = NOW + timedelta(2)
    new = credential(3, later)
    for limit in (0, 100, 1700, 2000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(StoreWriteFailed, match="file too large"):
                store.activate(new, facts(later))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.load() == two[1]
        assert not leftovers(tmp_path)


@contextmanager
def small_disk(options: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("only root may mount a small disk; the injected faults above cover every call")
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", directory], check=True)


@pytest.mark.parametrize("options", ["size=400k,mode=700", "size=4m,nr_inodes=40,mode=700"])
def test_a_disk_that_fills_up_leaves_the_old_and_recovers_once_there_is_room(options: str) -> None:
    with small_disk(options) as disk:
        store = open_store(disk / "store")
        _two_generations(store)
        expected = store.load()
        filler = disk / "filler"
        filler.mkdir()
        outcomes = set()
        for room in range(12):
            _fill(filler, room, pages="nr_inodes" not in options)
            at = NOW + timedelta(3 + room)
            problem = attempt(lambda: store.activate(credential(room % 5, at), facts(at)))  # noqa: B023 - at once
            outcomes.add(problem)
            found = store.load()
            assert problem is None or found == expected
            assert found is not None
            assert problem is not None or found.facts.activated_at == at
            expected = found
            assert not leftovers(disk)
            shutil.rmtree(filler)
            filler.mkdir()
        full = "no space left on device; make room on its volume, or make that larger"
        assert outcomes == {None, f"the new generation cannot be stored in {disk / 'store'}: {full}"}
        _fill(filler, 0, pages="nr_inodes" not in options)
        store.close()
        warn = Warnings()
        again = open_store(disk / "store", warn)
        assert again.load() == expected
        assert set(warn.codes) <= {"disk-full"}
        again.close()


def _fill(filler: Path, room: int, *, pages: bool) -> None:
    """Leave exactly this room: pages of 4 KiB, or inodes."""
    made = []
    try:
        for number in range(2000):
            path = filler / str(number)
            path.write_bytes(bytes(4096) if pages else b"")
            made.append(path)
    except OSError:
        path.unlink(missing_ok=True)
    for path in made[len(made) - room :]:
        path.unlink()


# -- permissions ------------------------------------------------------------------------------

UNPRIVILEGED = """
import os, sys
from datetime import datetime, UTC, timedelta
from pathlib import Path
from compass_sidecar.adapters.filestore import Store
from compass_sidecar.errors import SidecarError
if os.geteuid() == 0:  # only now: the interpreter itself may be where nobody else can read
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
now = lambda: datetime.now(UTC)
directory = Path(sys.argv[1])
try:
    store = Store.open(directory, now=now, warn=lambda code, detail: print("warned", code, detail))
    generation = store.load()
    print("loaded", generation and generation.name)
    if len(sys.argv) > 2:
        (directory / sys.argv[2]).chmod(0o500)
        try:
            store.activate(generation.credential, generation.facts)
        except SidecarError as error:
            print(type(error).__name__, error)
        print("loaded", store.load().name)
except SidecarError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def unprivileged(*arguments: object) -> str:
    """What the program says as a user who is not root: `nobody` if we are."""
    command = [sys.executable, "-c", UNPRIVILEGED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def give(directory: Path) -> None:
    if os.geteuid() == 0:
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)


@pytest.mark.parametrize("below", ["", "new/store"])
def test_a_folder_that_we_may_not_write_is_refused_in_one_line_with_the_way_out(
    shared: Path, below: str
) -> None:
    directory = shared / "volume"
    directory.mkdir(mode=0o555)
    said = unprivileged(directory / below)
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    assert said.startswith(f"SettingsError COMPASS_STORE_DIR: {directory}")
    assert said.count("\n") == 1
    for part in (
        f"uid {uid}",
        "mode 0555",
        f"owner {os.getuid()}:{os.getgid()}",
        "fsGroup",
        "permission denied",
    ):
        assert part in said


def test_an_unprivileged_sidecar_has_all_it_needs_in_its_own_folder(shared: Path) -> None:
    directory = shared / "store"
    store = open_store(directory)
    generation = store.activate(credential(1), facts())
    store.close()
    give(directory)
    assert unprivileged(directory) == f"loaded {generation.name}\n"
    (directory / "generations").chmod(0)
    assert unprivileged(directory) == f"loaded {generation.name}\n"


@pytest.mark.parametrize("folder", [".", "generations"])
def test_permission_lost_later_fails_the_write_and_keeps_the_credential(shared: Path, folder: str) -> None:
    directory = shared / "store"
    store = open_store(directory)
    generation = store.activate(credential(1), facts())
    store.close()
    give(directory)
    lines = unprivileged(directory, folder).splitlines()
    problem = f"the new generation cannot be stored in {directory}: permission denied"
    assert lines[1] == f"StoreWriteFailed {problem}"
    assert lines[0] == lines[2] == f"loaded {generation.name}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner")
def test_a_foreign_owner_is_a_warning(shared: Path) -> None:
    directory = shared / "store"
    store = open_store(directory)
    generation = store.activate(credential(1), facts())
    store.close()
    give(directory)
    file = directory / "generations" / generation.name / "tls.crt"
    os.chown(file, 0, 0)
    file.chmod(0o644)
    said = unprivileged(directory)
    assert said.startswith(f"warned store-mode {file} cannot be given mode 0600: operation not permitted")
    assert said.endswith(f"loaded {generation.name}\n")


# -- entries of other users -------------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner")
STRANGER = 1234
AS_NOBODY = """
import os, sys
from datetime import datetime, UTC
from pathlib import Path
from compass_sidecar.adapters.filestore import Store
from compass_sidecar.errors import StoreDamaged
os.setgroups([]), os.setgid(65534), os.setuid(65534)
warn = lambda *said: print("warned", *said)
store = Store.open(Path(sys.argv[1]), now=lambda: datetime.now(UTC), warn=warn)
try:
    generation = store.load()
except StoreDamaged as error:
    sys.exit(f"damaged {error}")
pending = store.pending()
reasons = tuple(map(str, store.reasons))
print("loaded", generation and generation.name, "pending", pending and pending.subject, reasons)
if len(sys.argv) > 2:
    amended = store.amend(generation, generation.facts)
    store.save_pending(pending)
    store.activate(generation.credential, generation.facts)
    print("changed", store.load() is not None, len(store.generations()))
"""


def as_nobody(*arguments: object) -> str:
    command = [sys.executable, "-c", AS_NOBODY, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def filled(directory: Path, owner: int) -> Generation:
    """A store with all there can be, which every user may read; the folder itself belongs to `nobody`."""
    store = open_store(directory)
    generation = store.activate(credential(1), facts())
    store.save_pending(replace(pending(2), begun_by=generation.chain.fingerprint))
    store.save_notifications({})
    store.close()
    for path in directory.rglob("*"):
        os.chown(path, owner, owner, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    os.chown(directory, 65534, 65534)
    return generation


@as_root
@pytest.mark.parametrize("entry", ["generations", "pending", "current", "instance.json", "lock", ""])
def test_where_every_user_can_write_entries_of_others_are_named_and_not_used(
    shared: Path, entry: str
) -> None:
    generation = filled(shared / "store", 65534 if entry else STRANGER)
    if entry:
        os.chown(shared / "store" / entry, STRANGER, STRANGER, follow_symlinks=False)
    (shared / "store").chmod(0o777)
    said = as_nobody(shared / "store")
    warned = next(line for line in said.splitlines() if line.startswith("warned store-open-to-others"))
    names = [entry] if entry else ["generations", "pending", "current", "instance.json", "lock"]
    assert all(f"{name} (uid {STRANGER})" in warned for name in names)
    loaded = generation.name if entry not in ("generations", "") else None
    under_way = "O=Org,CN=id" if entry not in ("pending", "") else None
    reasons = ("store-open-to-others",)
    assert said.endswith(f"loaded {loaded} pending {under_way} {reasons}\n")
    again = as_nobody(shared / "store")
    assert f"uid {STRANGER}" not in again
    assert again.endswith(f"loaded {loaded} pending {under_way} {reasons}\n")


@as_root
@pytest.mark.parametrize("inside", ["", "tls.key", "tls.crt", "generation.json"])
def test_a_generation_of_another_user_is_not_used_where_every_user_can_write(
    shared: Path, inside: str
) -> None:
    generation = filled(shared / "store", 0)  # root's count
    (shared / "store").chmod(0o777)
    assert f"loaded {generation.name}" in as_nobody(shared / "store")
    path = shared / "store" / "generations" / generation.name / inside
    os.chown(path, STRANGER, STRANGER)
    (shared / "store").chmod(0o777)
    said = as_nobody(shared / "store")
    assert f"{path.relative_to(shared / 'store')} (uid {STRANGER})" in said
    assert said.splitlines()[-1].startswith("damaged" if inside else "loaded None")


@as_root
def test_what_another_user_plants_while_we_run_is_not_used(tmp_path: Path, warn: Warnings) -> None:
    directory = tmp_path / "store"
    directory.mkdir()
    directory.chmod(0o777)
    store = open_store(directory, warn)
    generation = store.activate(credential(1), facts())
    store.save_pending(pending(2))
    for path in ((directory / "pending"), (directory / "pending" / "pending.json")):
        os.chown(path, STRANGER, STRANGER)
    assert store.pending() is None
    assert ("pending-damaged", f"uid {STRANGER}") in [
        (code, f"uid {STRANGER}") for code, detail in warn.said if f"uid {STRANGER}" in detail
    ]
    os.chown(directory / "current", STRANGER, STRANGER, follow_symlinks=False)
    assert store.load() == generation  # by a link of ours again
    assert (directory / "current").lstat().st_uid == os.geteuid()
    os.chown(directory / "generations", STRANGER, STRANGER)
    with pytest.raises(StoreDamaged, match=f"it belongs to uid {STRANGER}"):
        store.load()
    store.close()


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o775, 0o1777])
def test_elsewhere_readable_entries_of_others_are_used_and_become_ours_at_a_change(
    shared: Path, mode: int
) -> None:
    directory = shared / "store"
    generation = filled(directory, STRANGER)
    directory.chmod(mode)
    if mode & stat.S_ISVTX:  # there only the owner of an entry may rename it
        assert f"loaded {generation.name} pending O=Org,CN=id ()" in as_nobody(directory)
        return
    said = as_nobody(directory, "change")
    assert f"loaded {generation.name} pending O=Org,CN=id ()" in said
    assert said.endswith("changed True 1\n")
    found = [path for path in directory.rglob("*") if ".tmp-" not in str(path) and path.name != "lock"]
    kept = {directory / "instance.json", directory / "notifications.json"}
    assert {path.lstat().st_uid for path in found if path not in kept} == {65534}
    assert as_nobody(directory).endswith("()\n")


def test_a_crash_while_entries_are_taken_over_loses_none(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    generation = store.activate(credential(1), facts())
    store.close()
    (tmp_path / "generations").rename(tmp_path / "generations.left-0123abcd")
    again = open_store(tmp_path)
    assert again.load() == generation
    again.close()


def test_a_mount_point_is_recognised_also_if_it_is_bound_on_the_same_disk(tmp_path: Path) -> None:
    assert is_mount_point(Path("/"))
    assert is_mount_point(Path("/proc"))
    folder = tmp_path / "a folder"
    folder.mkdir()
    assert not is_mount_point(folder)
    program = (
        "import sys, pathlib; from compass_sidecar.adapters.ownership import is_mount_point;"
        "print(is_mount_point(pathlib.Path(sys.argv[1])))"
    )
    shell = 'mount --bind "$1" "$1" && exec "$0" -c "$2" "$1"'
    command = ["unshare", "--mount", "sh", "-c", shell, sys.executable, str(folder), program]
    if os.geteuid() == 0:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout == "True\n"


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_store_that_is_no_folder_is_refused(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "store")
    with pytest.raises(SettingsError, match="COMPASS_STORE_DIR"):
        open_store(tmp_path / "store")


@pytest.mark.parametrize("operation", ["symlink", "rename"])
def test_a_file_system_without_links_or_renames_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    real = getattr(os, operation)

    def refuse(source: Any, target: Any, **options: Any) -> Any:
        if operation == "symlink" or str(target).endswith("link"):
            raise OSError(errno.EPERM, "Operation not permitted")
        return real(source, target, **options)

    monkeypatch.setattr(os, operation, refuse)
    with pytest.raises(SettingsError, match="symbolic links and atomic renames"):
        open_store(tmp_path)
    assert not leftovers(tmp_path)


def test_a_file_system_whose_folders_have_no_fsync_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    store = open_store(tmp_path)
    assert store.activate(credential(1), facts()) == store.load()


def test_keys_of_4096_bits_load_without_the_long_validation(store: Store) -> None:
    key: rsa.RSAPrivateKey = rsa_key(0, bits=3072)
    large = Credential(
        Chain.of([AUTHORITY.issue(key=key.public_key()), *AUTHORITY.chain]), render_private_key(key)
    )
    assert store.activate(large, facts()) == store.load()


if __name__ == "__main__":
    drive(Path(sys.argv[1]), sys.argv[2], power=sys.argv[3] == "power")
