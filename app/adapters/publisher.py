"""The credential as files for neighbours, laid out like a Kubernetes secret volume (section 6).

    DIR/tls.crt -> ..data/tls.crt        tls.key, ca.crt, bundle.pem likewise
    DIR/..data  -> ..2026_11_23_20_03_00.5f0c6d2e     swapped by one rename

Whoever resolves `..data` once reads a key and a chain that belong together.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..core.catalogue import Event
from ..core.credential import Credential
from ..errors import SettingsError
from . import files

_VARIABLE = "COMPASS_PUBLISH_DIR"
_GROUP_VARIABLE = "COMPASS_PUBLISH_GROUP"
_DATA = "..data"
_NAMES = ("tls.crt", "tls.key", "ca.crt", "bundle.pem")
_FOLDER = re.compile(r"\.\.[0-9_]{19}\.[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes = field(repr=False)
    mode: int
    group: int | None


class Publisher:
    """One folder that only we write. Synchronous and not for two threads at a time."""

    def __init__(self, directory: Path, *, group: int | None, warn: files.Warn) -> None:
        """See `open`, which looks whether it can work."""
        self._directory = directory
        self._data = directory / _DATA
        self._group = group
        self._warn = warn

    @classmethod
    def open(cls, directory: Path, *, group: int | None, warn: files.Warn) -> "Publisher":
        """The folder, made (0755) if missing and tried out. SettingsError when it cannot be used."""
        publisher = cls(directory, group=group, warn=warn)
        files.ensure_directory(directory, mode=0o755, variable=_VARIABLE)
        if strangers := publisher._strangers():
            raise SettingsError(
                [f"{_VARIABLE}: {path} is not ours and would be lost; move it away" for path in strangers]
            )
        files.prove_usable(directory, variable=_VARIABLE, warn=warn)
        publisher._prove_group()
        files.sweep(directory)
        return publisher

    def publish(self, credential: Credential) -> bool:
        """Whether the files had to be written: False when they are like this already.

        StoreWriteFailed leaves what was published before, whole.
        """
        with files.writing(f"the credential cannot be published in {self._directory}"):
            if strangers := self._strangers():
                raise FileExistsError(errno.EEXIST, f"{strangers[0]} is not ours")
            wanted = self._files(credential)
            before = files.link_target(self._data)
            written = not (before and _FOLDER.fullmatch(before) and _holds(self._directory / before, wanted))
            after = self._write(credential, wanted) if written else before
            self._link(wanted)
            if written:
                self._prune({before, after})
            return written

    def _files(self, credential: Credential) -> dict[str, _File]:
        chain, key_pem = credential.chain, credential.key_pem
        secret = 0o600 if self._group is None else 0o640
        wanted = {
            "tls.crt": _File(chain.pem, 0o644, None),
            "tls.key": _File(key_pem, secret, self._group),
            "bundle.pem": _File(key_pem + chain.pem, secret, self._group),
        }
        return wanted if chain.ca_pem is None else {**wanted, "ca.crt": _File(chain.ca_pem, 0o644, None)}

    def _write(self, credential: Credential, wanted: Mapping[str, _File]) -> str:
        """A new folder with these files, to which `..data` then points."""
        # Kubernetes puts the time of writing into the name; the leaf's own start says more.
        name = f"..{credential.chain.not_before:%Y_%m_%d_%H_%M_%S}.{secrets.token_hex(4)}"
        folder = files.temporary(self._directory)
        files.make_directory(folder)
        try:
            for each, file in wanted.items():
                files.write_file(folder / each, file.content, mode=file.mode, group=file.group)
            # Until here nobody else could enter: no neighbour has seen it half full.
            os.chmod(folder, 0o755)  # noqa: PTH101, S103 - neighbours with other uids read in here
            files.sync_directory(folder)
            files.rename(folder, self._directory / name)
            files.swap_symlink(self._data, name)
        except OSError:
            files.remove(folder)
            if files.link_target(self._data) != name:
                files.remove(self._directory / name)
            raise
        return name

    def _link(self, wanted: Mapping[str, _File]) -> None:
        """Made after the first swap, so that they never dangle; they stay from then on."""
        for name in _NAMES:
            link = self._directory / name
            target = files.link_target(link)
            if name in wanted and target is None:
                files.swap_symlink(link, f"{_DATA}/{name}")
            elif name not in wanted and target is not None:
                files.remove(link)

    def _prune(self, keep: set[str | None]) -> None:
        """The folder of before stays: somebody who has resolved `..data` may be reading in it."""
        try:
            for path in sorted(self._directory.iterdir()):
                if _FOLDER.fullmatch(path.name) and path.name not in keep:
                    files.remove(path)
        except OSError as error:
            self._warn(Event.PRUNE_FAILED, f"old folders stay in {self._directory}: {files.reason(error)}")

    def _strangers(self) -> list[Path]:
        """What has one of our names without being our link."""
        mine = {self._directory / name: f"{_DATA}/{name}" for name in _NAMES}
        strangers = [
            link
            for link, target in mine.items()
            if os.path.lexists(link) and files.link_target(link) != target
        ]
        if os.path.lexists(self._data) and files.link_target(self._data) is None:
            strangers.append(self._data)
        return strangers

    def _prove_group(self) -> None:
        """Give a trial file to the group now: even root may lack the capability to."""
        if self._group is None:
            return
        trial = files.temporary(self._directory)
        try:
            files.write_file(trial, b"", mode=0o640, group=self._group)
        except OSError as error:
            if error.errno in files.FULL:
                return
            groups = sorted({os.getegid(), *os.getgroups()})
            line = (
                f"{_GROUP_VARIABLE}: files cannot be given to group {self._group}: {files.reason(error)};"
                f" our groups are {', '.join(map(str, groups))}; in Kubernetes add it to"
                " supplementalGroups in the pod's securityContext"
            )
            raise SettingsError([line]) from error
        finally:
            files.remove(trial)


def _holds(folder: Path, wanted: Mapping[str, _File]) -> bool:
    """Whether the folder has exactly these files, with content, mode and group."""
    try:
        names = set(os.listdir(folder))  # noqa: PTH208 - names only
        return names == set(wanted) and all(_same(folder / name, file) for name, file in wanted.items())
    except OSError:
        return False


def _same(path: Path, wanted: _File) -> bool:
    status = path.lstat()
    if stat.S_IMODE(status.st_mode) != wanted.mode or wanted.group not in {None, status.st_gid}:
        return False
    return files.read_file(path) == wanted.content
