"""Whose entries in a folder count, where other users can write to it too."""

import os
import stat
from contextlib import suppress
from pathlib import Path


def trusted_owners(directory: Path) -> frozenset[int] | None:
    """The users whose entries count in this folder; None if those of every user do.

    They are we and root where any user may replace entries: every user may write, and nothing is sticky. A
    mount point is excepted: a volume belongs to one workload, and Kubernetes gives an `emptyDir` mode 0777.
    """
    mode = directory.stat().st_mode
    if not mode & stat.S_IWOTH or mode & stat.S_ISVTX or is_mount_point(directory):
        return None
    return frozenset({0, os.geteuid()})


def is_mount_point(directory: Path) -> bool:
    """`os.path.ismount` does not see a bind mount of a folder of the same file system."""
    path = os.path.realpath(directory)
    with suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        escaped = path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
        return any(line.split()[4] == escaped for line in lines)
    return os.path.ismount(path)


def is_ours(path: Path) -> bool:
    """Whether it has our owner, or is not there."""
    return owner(path) in {None, os.geteuid()}


def owner(path: Path) -> int | None:
    """Of the entry itself, not of what a link points to; None without one."""
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def check_owner(path: Path, uid: int, owners: frozenset[int] | None) -> None:
    """PermissionError if the entry's owner does not count."""
    if owners is not None and uid not in owners:
        raise PermissionError(0, f"it belongs to uid {uid}, and every user can write here", str(path))
