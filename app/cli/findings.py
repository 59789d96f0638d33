"""What `check` finds, and what it finds about folders."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..adapters import files
from ..adapters.filestore import Store
from ..adapters.ownership import trusted_owners

# What a renewal writes: key, CSR and chain in two folders, each file in blocks of 4 KiB.
_ROOM = 64 * 1024


class Outcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNCHECKED = "not-checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and in `detail` also what to do about it."""

    name: str
    outcome: Outcome
    detail: str


Report = Callable[[Finding], None]


def examine_store(directory: Path, report: Report) -> None:
    """The store: whether we may write there, whether there is room, who may read it, who uses it."""
    if not _is_usable("store", "COMPASS_STORE_DIR", directory, report):
        return
    loose, holder = _loose(directory), Store.holder(directory)
    use = f"in use by a sidecar ({holder})" if holder else "not in use now"
    detail = loose or f"{directory} is writable for uid {os.geteuid()}, and {use}"
    report(Finding("store", Outcome.WARNING if loose else Outcome.OK, detail))


def examine_published(directory: Path, report: Report) -> None:
    """The published files' folder: whether we may write there, and whether there is room."""
    name = "published files"
    if _is_usable(name, "COMPASS_PUBLISH_DIR", directory, report):
        report(Finding(name, Outcome.OK, f"{directory} is writable for uid {os.geteuid()}"))


def _is_usable(name: str, variable: str, directory: Path, report: Report) -> bool:
    """Whether it is there and can be written; if not, a finding that says why, or that a start makes it."""
    try:
        if os.path.lexists(directory):
            files.try_out(directory, _ROOM)
            return True
        files.try_out(next(path for path in directory.absolute().parents if os.path.lexists(path)), 0)
    except OSError as error:
        report(Finding(name, Outcome.FAILED, _unwritable(directory, error, variable)))
    else:
        report(Finding(name, Outcome.OK, f"{directory} does not exist yet; the start will make it"))
    return False


def _unwritable(directory: Path, error: OSError, variable: str) -> str:
    if way_out := files.way_out(error):
        state = "is full" if error.errno in files.FULL else "cannot be written"
        return f"{variable}: {directory} {state} ({files.reason(error)}): no renewal can be stored{way_out}"
    return files.unwritable(directory, error, variable=variable).problems[0]


def _loose(directory: Path) -> str | None:
    """Who but us could read a key, or put another in its place."""
    if trusted_owners(directory) is not None:
        return f"every user can write in {directory}: chmod 0700 {directory}"
    for key in sorted(directory.glob("generations/*/tls.key")):
        if stat.S_IMODE(key.lstat().st_mode) & 0o077:
            return f"others may read {key}: chmod 600 it, or start the sidecar, which does that"
    return None
