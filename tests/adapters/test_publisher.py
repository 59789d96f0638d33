"""The published files: whoever reads, whenever, gets a key and a chain that belong together."""

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from compass_sidecar.adapters.publisher import Publisher
from compass_sidecar.core.credential import Chain, Credential
from compass_sidecar.errors import SettingsError, StoreWriteFailed
from tests.support.authority import NOW, Authority

AUTHORITY = Authority.create().intermediate()
NAMES = {"tls.crt", "tls.key", "ca.crt", "bundle.pem"}


class Warnings:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def __call__(self, code: str, detail: str) -> None:
        self.said.append((code, detail))


@cache
def credential(number: int) -> Credential:
    return AUTHORITY.credential(number=number, not_before=NOW + timedelta(number))


def leaf_only(number: int) -> Credential:
    return replace(credential(number), chain=Chain.of(credential(number).chain.certificates[:1]))


def publisher(directory: Path, *, group: int | None = None) -> Publisher:
    return Publisher.open(directory, group=group, warn=Warnings())


def expected(credential: Credential) -> dict[str, bytes]:
    files = {
        "tls.crt": credential.chain.pem,
        "tls.key": credential.key_pem,
        "ca.crt": credential.chain.ca_pem,
    }
    files["bundle.pem"] = credential.key_pem + credential.chain.pem
    return {name: content for name, content in files.items() if content is not None}


def published(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


def folders(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_dir() and not path.is_symlink()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- the layout -------------------------------------------------------------------------------


def test_it_looks_like_a_kubernetes_secret_volume(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "tls"
    before = os.umask(0o077)
    try:
        assert publisher(directory).publish(credential(1))
    finally:
        os.umask(before)
    data = str((directory / "..data").readlink())
    assert data.startswith(f"..{credential(1).chain.not_before:%Y_%m_%d_%H_%M_%S}.")
    assert {path.name for path in directory.iterdir()} == {*NAMES, "..data", data}
    assert {name: str((directory / name).readlink()) for name in NAMES} == {
        name: f"..data/{name}" for name in NAMES
    }
    assert published(directory) == expected(credential(1))
    assert (mode(directory), mode(directory / data)) == (0o755, 0o755)
    modes = {name: mode(directory / name) for name in NAMES}
    assert modes == {"tls.crt": 0o644, "ca.crt": 0o644, "tls.key": 0o600, "bundle.pem": 0o600}


def test_the_group_may_read_the_key(tmp_path: Path) -> None:
    group = os.getegid()
    publisher(tmp_path, group=group).publish(credential(1))
    modes = {name: mode(tmp_path / name) for name in NAMES}
    assert modes == {"tls.crt": 0o644, "ca.crt": 0o644, "tls.key": 0o640, "bundle.pem": 0o640}
    assert {(tmp_path / name).stat().st_gid for name in ("tls.key", "bundle.pem")} == {group}


def test_another_group_rewrites_the_files(tmp_path: Path) -> None:
    publisher(tmp_path).publish(credential(1))
    assert publisher(tmp_path, group=os.getegid()).publish(credential(1))
    assert mode(tmp_path / "tls.key") == 0o640
    assert publisher(tmp_path).publish(credential(1))
    assert mode(tmp_path / "tls.key") == 0o600


def test_the_mode_of_a_folder_that_was_there_is_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    publisher(tmp_path).publish(credential(1))
    assert mode(tmp_path) == 0o2770


def test_without_a_ca_there_is_no_ca_file_and_a_stale_one_goes(tmp_path: Path) -> None:
    ours = publisher(tmp_path)
    ours.publish(leaf_only(1))
    assert published(tmp_path) == expected(leaf_only(1))
    ours.publish(credential(2))
    assert published(tmp_path) == expected(credential(2))
    ours.publish(leaf_only(3))
    assert published(tmp_path) == expected(leaf_only(3))
    assert not os.path.lexists(tmp_path / "ca.crt")


def test_what_is_the_same_already_is_not_written(tmp_path: Path) -> None:
    ours = publisher(tmp_path)
    assert ours.publish(credential(1))
    before = {path: path.lstat() for path in tmp_path.rglob("*")}
    assert not ours.publish(credential(1))
    assert not ours.publish(credential(1))
    assert {path: path.lstat() for path in tmp_path.rglob("*")} == before
    tmp_path.touch()
    assert not publisher(tmp_path).publish(credential(1))


def test_the_previous_folder_stays_until_the_next_swap(tmp_path: Path) -> None:
    ours = publisher(tmp_path)
    seen = []
    for number in range(1, 6):
        ours.publish(credential(number))
        seen.append(str((tmp_path / "..data").readlink()))
        assert folders(tmp_path) == set(seen[-2:])
    again = publisher(tmp_path)
    assert folders(tmp_path) == set(seen[-2:])
    again.publish(credential(1))
    assert folders(tmp_path) == {seen[-1], str((tmp_path / "..data").readlink())}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: (data / "tls.key").unlink(),
        lambda data: (data / "tls.key").write_bytes(b""),
        lambda data: (data / "tls.crt").write_bytes(b"other"),
        lambda data: (data / "tls.key").chmod(0o644),
        lambda data: (data / "stranger").touch(),
        lambda data: ((data / "tls.crt").unlink(), (data / "tls.crt").symlink_to("tls.key")),
    ],
)
def test_what_somebody_changed_is_brought_up_to_date(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    ours = publisher(tmp_path)
    ours.publish(credential(1))
    spoil(tmp_path / str((tmp_path / "..data").readlink()))
    assert ours.publish(credential(1))
    assert published(tmp_path) == expected(credential(1))
    assert mode(tmp_path / "tls.key") == 0o600


@pytest.mark.parametrize("name", [*sorted(NAMES), "..data"])
def test_a_link_that_somebody_removed_is_made_again(tmp_path: Path, name: str) -> None:
    ours = publisher(tmp_path)
    ours.publish(credential(1))
    (tmp_path / name).unlink()
    ours.publish(credential(1))
    assert published(tmp_path) == expected(credential(1))


# -- what it refuses --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*sorted(NAMES), "..data"])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_foreign_file_of_our_name_is_refused_and_kept(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / name)
    with pytest.raises(SettingsError, match=f"COMPASS_PUBLISH_DIR: {tmp_path}/{name} is not ours"):
        publisher(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_foreign_link_of_our_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tls.key").symlink_to("/etc/ssl/private/key.pem")
    with pytest.raises(SettingsError, match=r"tls\.key is not ours"):
        publisher(tmp_path)


def test_a_foreign_file_that_appears_later_fails_the_write_and_is_kept(tmp_path: Path) -> None:
    ours = publisher(tmp_path)
    ours.publish(credential(1))
    (tmp_path / "ca.crt").unlink()
    (tmp_path / "ca.crt").write_text("precious")
    with pytest.raises(StoreWriteFailed, match=r"ca\.crt is not ours"):
        ours.publish(credential(2))
    assert (tmp_path / "ca.crt").read_text() == "precious"


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    kept = {"lost+found", "..other", "readme"}
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".tmp-crash").mkdir()
    ours = publisher(tmp_path)
    for number in (1, 2, 3):
        ours.publish(credential(number))
    assert kept <= folders(tmp_path)
    assert ".tmp-crash" not in folders(tmp_path)


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from compass_sidecar.adapters.publisher import Publisher
from compass_sidecar.errors import SettingsError
if os.geteuid() == 0:  # only now: the interpreter itself may be where nobody else can read
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    Publisher.open(Path(sys.argv[1]), group=int(sys.argv[2]) if sys.argv[2] else None, warn=print)
    print("usable")
except SettingsError as error:
    print(error)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def unprivileged(directory: Path, group: str) -> str:
    command = [sys.executable, "-c", UNPRIVILEGED, str(directory), group]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_folder_that_we_may_not_write_is_refused(shared: Path) -> None:
    directory = shared / "tls"
    directory.mkdir(mode=0o555)
    said = unprivileged(directory, "")
    assert said.startswith(f"COMPASS_PUBLISH_DIR: {directory} is not writable: permission denied; we are uid")
    assert "mode 0555" in said
    assert "fsGroup" in said
    assert said.count("\n") == 1


def test_a_group_that_is_not_ours_is_refused(shared: Path) -> None:
    directory = shared / "tls"
    directory.mkdir()
    directory.chmod(0o777)
    said = unprivileged(directory, "4711")
    assert said.startswith(
        "COMPASS_PUBLISH_GROUP: files cannot be given to group 4711: operation not permitted"
    )
    assert "supplementalGroups" in said
    assert said.count("\n") == 1
    own = 65534 if os.geteuid() == 0 else os.getegid()
    assert unprivileged(directory, str(own)) == "usable\n"
    assert list(directory.iterdir()) == []


# -- failures and crashes ---------------------------------------------------------------------


class Killed(BaseException):
    """The end of the process, as far as the code can tell: nothing catches it."""


def interrupt(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> list[int]:
    """Raise the error at the n-th call that changes something, and at all later ones if it is the end."""
    left = [call]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 or (left[0] < 0 and isinstance(error, Killed)):
                raise error
            return real(*arguments, **options)

        return function

    for name in (
        "open",
        "write",
        "fsync",
        "rename",
        "symlink",
        "mkdir",
        "chmod",
        "fchmod",
        "unlink",
        "rmdir",
    ):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return left


@pytest.mark.parametrize("first", [True, False])
def test_a_crash_at_any_instant_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    for call in range(1, 300):
        directory = tmp_path / str(call)
        ours = publisher(directory)
        if not first:
            ours.publish(leaf_only(0))
            ours.publish(leaf_only(1))
        allowed = [{}, expected(leaf_only(1)), expected(credential(2))]
        with monkeypatch.context() as patch:
            left = interrupt(patch, call, Killed())
            with suppress(Killed):
                ours.publish(credential(2))
        data = directory / "..data"
        whole = {path.name: path.read_bytes() for path in data.iterdir()} if data.exists() else {}
        assert whole in allowed[0 if first else 1 :], call
        assert published(directory).items() <= whole.items(), call
        again = publisher(directory)
        again.publish(credential(2))
        assert published(directory) == expected(credential(2))
        again.publish(credential(3))
        assert len(folders(directory)) == 2
        if left[0] > 0:
            break
    assert call > 30


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_write_that_fails_leaves_the_old_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failures = set()
    for call in range(1, 300):
        directory = tmp_path / str(call)
        ours = publisher(directory)
        ours.publish(credential(1))
        before = folders(directory)
        with monkeypatch.context() as patch:
            left = interrupt(patch, call, OSError(number, os.strerror(number)))
            try:
                ours.publish(credential(2))
            except StoreWriteFailed as error:
                failures.add(
                    error.detail.removeprefix(f"the credential cannot be published in {directory}: ")
                )
        found = published(directory)
        assert found in (expected(credential(1)), expected(credential(2))), call
        assert found == expected(credential(2)) or folders(directory) == before
        ours.publish(credential(2))
        assert published(directory) == expected(credential(2))
        if left[0] > 0:
            break
    (failure,) = failures
    reason, _, way_out = failure.partition("; ")
    assert reason == os.strerror(number)[0].lower() + os.strerror(number)[1:]
    assert way_out


def test_a_full_disk_at_the_start_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warn = Warnings()
    with monkeypatch.context() as patch:
        interrupt(patch, 1, OSError(errno.ENOSPC, "No space left on device"))
        Publisher.open(tmp_path, group=None, warn=warn)
    assert [code for code, _ in warn.said] == ["disk-full"]


# -- readers ----------------------------------------------------------------------------------

READER = """
import hashlib, json, os, sys
directory, belongs = sys.argv[1], json.loads(sys.argv[2])
def digest(*paths):
    return hashlib.sha256(b"".join(open(path, "rb").read() for path in paths)).hexdigest()
print("ready", flush=True)
reads, late = 0, 0
while not os.path.exists(directory + "/stop"):
    folder = directory + "/" + os.readlink(directory + "/..data")
    try:
        key, chain = digest(folder + "/tls.key"), digest(folder + "/tls.crt")
        assert belongs[key] == chain, "key and chain do not belong together"
        assert digest(directory + "/bundle.pem") in belongs, "a bundle that is torn"
        reads += 1
    except FileNotFoundError:
        late += 1  # slower than two rotations: a new look at ..data
print(reads, late)
"""


def test_readers_never_see_a_key_and_a_chain_that_do_not_belong_together(tmp_path: Path) -> None:
    made = [credential(number) for number in range(5)]

    def digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    belongs = {digest(each.key_pem): digest(each.chain.pem) for each in made}
    belongs |= {digest(each.key_pem + each.chain.pem): "" for each in made}
    ours = publisher(tmp_path)
    ours.publish(made[0])
    command = [sys.executable, "-c", READER, str(tmp_path), json.dumps(belongs)]
    with ExitStack() as stack:
        readers = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            for _ in range(2)
        ]
        stack.callback((tmp_path / "stop").touch)
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        watched = _watch(tmp_path, belongs)
        for rotation in range(1, 301):
            assert ours.publish(made[rotation % 5])
        (tmp_path / "stop").touch()
        for reader in readers:
            output, _ = reader.communicate(timeout=60)
            assert reader.returncode == 0
            assert int(output.split()[0]) > 0, output
    assert watched() == {"whole"}
    assert len(folders(tmp_path)) == 2


def _watch(directory: Path, belongs: dict[str, str]) -> Callable[[], set[str]]:
    """A thread that reads through the links, one file at a time: what it met, once it has ended."""
    met: set[str] = set()

    def work() -> None:
        while not (directory / "stop").exists():
            # The kernel follows `..data` first: two rotations later its folder is gone. Rare, and real.
            with suppress(FileNotFoundError):
                content = (directory / "bundle.pem").read_bytes()
                met.add("whole" if hashlib.sha256(content).hexdigest() in belongs else "torn")

    thread = threading.Thread(target=work)
    thread.start()

    def result() -> set[str]:
        thread.join()
        return met

    return result
