"""File-system primitives: every change to the store and to the published folder is made of these.

They are few so that one can reason, and inject faults, about each. The other adapters that keep
files import this module: the one exception to "adapters never import each other", since two
versions of "write, fsync, rename" would be one too many. Callers use them as `files.write_file(..)`.
All raise OSError unless they say otherwise; `reason` makes a phrase of it.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..core.catalogue import Event
from ..errors import SettingsError, StoreWriteFailed
from .ownership import check_owner

# A chain of ten certificates has 20 KiB: what is larger is not ours, and must not fill the memory.
SIZE_LIMIT = 1024 * 1024
TEMPORARY = ".tmp-"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# We have run out of something: what a file holds is not known, and nothing says that it is damaged.
SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# What a process has open is no file by that name: another look finds it at its end.
_OPEN_FILE = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|thread-self|\d+)/fd/\d+")
_KINDS = {
    stat.S_IFDIR: (errno.EISDIR, "it is a folder"),
    stat.S_IFIFO: (errno.EINVAL, "it is a pipe, and not a regular file"),
    stat.S_IFCHR: (errno.EINVAL, "it is a device, and not a regular file"),
    stat.S_IFBLK: (errno.EINVAL, "it is a device, and not a regular file"),
    stat.S_IFSOCK: (errno.EINVAL, "it is a socket, and not a regular file"),
}
_WAYS_OUT = {
    errno.ENOSPC: "; make room on its volume, or make that larger",
    errno.EDQUOT: "; make room within the quota, or raise that",
    errno.EROFS: "; mount it for writing",
    errno.EFBIG: "; raise the limit on the size of files (ulimit -f)",
}

Warn = Callable[[Event, str], None]


def read_file(
    path: Path, *, follow: bool = False, limit: int = SIZE_LIMIT, owners: frozenset[int] | None = None
) -> bytes:
    """The content of a regular file; a symbolic link only if `follow`.

    EISDIR for a folder, EFBIG above the limit, EINVAL for a pipe, socket or device; PermissionError for a
    file that belongs to none of `owners`.
    """
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        _check_kind(path, status)
        check_owner(path, status.st_uid, owners)
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
    return content


def read_named(path: Path) -> bytes:
    """The content of a regular file that an operator named, links followed. OSError as from `read_file`."""
    if _OPEN_FILE.fullmatch(os.path.normpath(path)):
        raise OSError(errno.EINVAL, "it is standard input or a pipe, and not a regular file", str(path))
    _check_kind(path, path.stat())  # opening a device may do something to it
    return read_file(path, follow=True)


def _check_kind(path: Path, status: os.stat_result) -> None:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        raise OSError(*kind, str(path))


def write_file(path: Path, content: bytes, *, mode: int = 0o600, group: int | None = None) -> None:
    """A new file, on the disk when this returns. Refuses to write over or through anything."""
    with _new_file(path, content, mode=mode, group=group) as descriptor:
        os.fsync(descriptor)


def write_scratch(path: Path, content: bytes) -> None:
    """A new file (0600) that need not survive a crash."""
    with _new_file(path, content, mode=0o600, group=None):
        pass


@contextmanager
def _new_file(path: Path, content: bytes, *, mode: int, group: int | None) -> Iterator[int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        # Owner, then mode: the other way round a group that must not would read it for an instant.
        if group is not None:
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
        write_all(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """A write may be cut short (a disk that fills up): go on until it is complete or fails."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(directory: Path) -> None:
    """Names in this folder are on the disk when this returns."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems (FUSE, CIFS) have no fsync for folders; then a rename is all one can do.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def temporary(directory: Path) -> Path:
    """A name in the folder that nobody can guess; `sweep` removes what a crash leaves under it."""
    return directory / f"{TEMPORARY}{secrets.token_hex(8)}"


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    os.mkdir(path, 0o700)  # noqa: PTH102 - the os level is where faults are injected
    try:
        os.chmod(path, mode)  # noqa: PTH101 - mkdir's mode is cut by the umask
    except OSError:
        remove(path)
        raise


def write_folder(parent: Path, contents: Mapping[str, bytes]) -> Path:
    """A new temporary folder (0700) with these files (0600), all on the disk; the caller renames it."""
    folder = temporary(parent)
    make_directory(folder)
    try:
        for name, content in contents.items():
            write_file(folder / name, content)
        sync_directory(folder)
    except OSError:
        remove(folder)
        raise
    return folder


def rename(source: Path, target: Path) -> None:
    os.rename(source, target)  # noqa: PTH104 - the os level is where faults are injected


def replace_file(path: Path, content: bytes) -> None:
    """The file (0600) with a new content: whoever reads, and a crash, finds the old or the new one."""
    fresh = temporary(path.parent)
    try:
        write_file(fresh, content)
        rename(fresh, path)
    except OSError:
        remove(fresh)
        raise
    sync_directory(path.parent)


def deliver(path: Path, content: bytes) -> None:
    """Content where somebody outside wants it: a file (0644 if it is new) is replaced as a whole, behind a
    link if that is one; a pipe or a device is written to."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG | 0o644
    if not stat.S_ISREG(mode):
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))
    fresh = temporary(path.parent)
    try:
        write_file(fresh, content, mode=stat.S_IMODE(mode))
        rename(fresh, path)
    except OSError:
        remove(fresh)
        raise


def replace_folder(fresh: Path, folder: Path) -> None:
    """`fresh` takes the place of `folder`. A crash leaves the one, the other or none: never a mix."""
    old = set_aside(folder) if os.path.lexists(folder) else None
    try:
        rename(fresh, folder)
    except OSError:
        remove(fresh)
        if old is not None:
            with suppress(OSError):
                rename(old, folder)
        raise
    sync_directory(folder.parent)
    if old is not None:
        remove(old)


def swap_symlink(link: Path, target: str) -> None:
    """The link points to the target, by one rename: at any instant it is the old or the new one."""
    fresh = temporary(link.parent)
    os.symlink(target, fresh)  # noqa: PTH211 - the os level is where faults are injected
    try:
        rename(fresh, link)
    except OSError:
        remove(fresh)
        raise
    sync_directory(link.parent)


def set_aside(path: Path) -> Path:
    """Out of sight by one rename: what is being removed never looks like something half there."""
    aside = temporary(path.parent)
    rename(path, aside)
    return aside


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder as far as possible; the rest is left to `sweep`."""
    with suppress(OSError):
        if is_folder(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)  # noqa: PTH108 - the os level is where faults are injected


def sweep(directory: Path) -> None:
    """Remove what a crash left half-written in this folder."""
    with suppress(OSError):
        for path in sorted(directory.iterdir()):
            if path.name.startswith(TEMPORARY):
                remove(path)


def is_folder(path: Path) -> bool:
    """A folder itself, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def link_target(link: Path) -> str | None:
    """Where a symbolic link points, None if there is no such link."""
    try:
        return os.readlink(link)  # noqa: PTH115 - a string: Path would tidy it up
    except OSError:
        return None


def seal(record: Mapping[str, Any]) -> bytes:
    """JSON with its own SHA-256: a flipped bit in a URL or a date would be valid JSON otherwise."""
    return json.dumps({**record, "sha256": _digest(record)}, indent=1).encode() + b"\n"


def unseal(content: bytes) -> dict[str, Any]:
    """The record that was sealed. ValueError if it is not exactly that."""
    try:
        record = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(record, dict) or record.pop("sha256", None) != _digest(record):
        raise ValueError("its checksum is wrong")
    return record


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@contextmanager
def writing(problem: str) -> Iterator[None]:
    """The border of the adapters that write: an OSError inside becomes a StoreWriteFailed."""
    try:
        yield
    except OSError as error:
        raise StoreWriteFailed(f"{problem}: {reason(error)}{way_out(error)}") from error


def way_out(error: OSError) -> str:
    """What to do about it, as the end of a sentence; nothing where there is nothing to say."""
    return _WAYS_OUT.get(error.errno or 0, "")


def reason(error: OSError) -> str:
    """For people, in lower case: `no space left on device`."""
    if error.errno == errno.ELOOP:
        return "it is a symbolic link"
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]


def ensure_directory(directory: Path, *, mode: int, variable: str) -> None:
    """The folder exists; it and missing parents get the mode. SettingsError if that cannot be."""
    missing = [path for path in (directory, *directory.parents) if not os.path.lexists(path)]
    try:
        for path in reversed(missing):
            make_directory(path, mode=mode)
            with suppress(OSError):  # a parent that we may not read cannot be synced either
                sync_directory(path.parent)
        if not stat.S_ISDIR(directory.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(directory))
    except OSError as error:
        raise unwritable(directory, error, variable=variable) from error


def prove_usable(directory: Path, *, variable: str, warn: Warn) -> None:
    """Write, link and rename in the folder, once and on trial, to fail at the start and not in 60 days.

    SettingsError with the way out. A full disk is only a warning: what is stored still works.
    """
    trial = temporary(directory)
    try:
        make_directory(trial)
        renamed = set_aside(trial)
    except OSError as error:
        remove(trial)
        if error.errno not in FULL:
            raise unwritable(directory, error, variable=variable) from error
        warn(Event.DISK_FULL, f"{directory} cannot be written for now: {reason(error)}")
        return
    try:
        swap_symlink(renamed / "link", "old")
        swap_symlink(renamed / "link", "new")
    except OSError as error:
        if error.errno not in FULL:
            line = f"{variable}: {directory} is on a file system without symbolic links and atomic renames"
            raise SettingsError([f"{line} ({reason(error)}); use a local or block volume"]) from error
        warn(Event.DISK_FULL, f"{directory} cannot be written for now: {reason(error)}")
    finally:
        remove(renamed)


def try_out(directory: Path, size: int) -> None:
    """Raise what writing that much there would raise now. Nothing is changed: the file has no name.

    A file system without such files (NFS, older overlays) is asked for permission and room only.
    """
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory)) from error
        room = shutil.disk_usage(directory)
        if room.total and room.free < size:  # some do not know how large they are
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory)) from error
        return
    try:
        write_all(descriptor, bytes(size))
    finally:
        os.close(descriptor)


def unwritable(directory: Path, error: OSError, *, variable: str) -> SettingsError:
    """What to tell somebody whose folder we may not write: who we are, whose it is, what to set."""
    nearest = next(path for path in (directory, *directory.absolute().parents) if os.path.lexists(path))
    status = nearest.lstat()
    line = (
        f"{variable}: {directory} is not writable: {reason(error)}; we are uid {os.geteuid()},"
        f" gid {os.getegid()}, and {nearest} has mode {stat.S_IMODE(status.st_mode):04o} and owner"
        f" {status.st_uid}:{status.st_gid}; give it to our uid, or in Kubernetes set fsGroup in the"
        " pod's securityContext"
    )
    return SettingsError([line])
