"""What a power cut leaves of a folder: told each step that a process made, it knows what was synced.

Stricter than a journalling file system: of what was done in a folder and not synced, any first part may have
got onto the disk, in each folder by itself; an unsynced content is there whole, half, as it was before, or
not at all. A rename happens or does not, between two folders too.
"""

import random
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from tests.torture.tracer import Step


@dataclass(eq=False)
class File:
    """`synced` is the content that a cut leaves; `dirty` if what was written since may be lost."""

    synced: bytes = b""
    mode: int = 0o600
    dirty: bool = False
    now: bytes = b""


@dataclass(eq=False)
class Folder:
    entries: dict[str, "File | Folder | str"]
    mode: int


Node = File | Folder | str  # a text: where a symbolic link points
Change = tuple[Folder, str, Node | None]


class Power:
    """Begins with what is in the folder now, all of it synced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._begin: list[tuple[Folder, dict[str, Node]]] = []
        self._now = self._look(root)
        self._log: list[list[Change] | Folder] = []

    def executed(self, step: Step) -> None:
        """This step was made."""
        if step.paths[0] == "socket" or step.paths[0].endswith(" (deleted)"):
            return
        paths = [self._find(path) for path in step.paths]
        folder, name = paths[0]
        node = folder.entries.get(name)
        match step.name:
            case "open" | "openat" if node is None:
                self._change([(folder, name, File(dirty=True))])
            case "mkdir" | "mkdirat":
                self._change([(folder, name, self._new_folder({}, 0o700))])
            case "symlink" | "symlinkat":
                self._change([(folder, name, step.target)])
            case "unlink" | "unlinkat" | "rmdir":
                self._change([(folder, name, None)])
            case "rename" | "renameat" | "renameat2":
                self._change([(folder, name, None), (*paths[1], node)])
            case "write" | "pwrite64" | "writev" | "ftruncate" if isinstance(node, File):
                node.dirty = True
            case "fsync" | "fdatasync":
                self._sync(step.paths[0])

    def _find(self, path: str) -> tuple[Folder, str]:
        *above, name = Path(path).relative_to(self._root).parts or ("",)
        folder = self._now
        for part in above:
            below = folder.entries[part]
            assert isinstance(below, Folder), path
            folder = below
        return folder, name

    def _new_folder(self, entries: dict[str, Node], mode: int) -> Folder:
        self._begin.append((made := Folder(entries, mode), dict(entries)))
        return made

    def _look(self, path: Path) -> Folder:
        entries: dict[str, Node] = {}
        for below in path.iterdir():
            if below.is_symlink():
                entries[below.name] = str(below.readlink())
            elif below.is_dir():
                entries[below.name] = self._look(below)
            else:
                entries[below.name] = File(below.read_bytes(), stat.S_IMODE(below.stat().st_mode))
        return self._new_folder(entries, stat.S_IMODE(path.stat().st_mode))

    def _change(self, changes: list[Change]) -> None:
        self._log.append(changes)
        _apply(changes)

    def _sync(self, path: str) -> None:
        folder, name = self._find(path)
        node = self._now if name == "" else folder.entries[name]
        if isinstance(node, Folder):
            self._log.append(node)
        elif isinstance(node, File):
            node.synced, node.dirty = Path(path).read_bytes(), False

    def cut(self, rng: random.Random) -> None:
        """The process is gone: leave in the folder what the power cut does."""
        self._remember(self._now, self._root)
        names_are_kept = rng.random() < 0.3  # as ext4 and xfs would, most of the time
        kept = self._kept(rng, certain=names_are_kept)
        for folder, entries in self._begin:
            folder.entries = dict(entries)
        for changes in kept:
            _apply(changes)
        for path in self._root.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        _write(self._now, self._root, rng)

    def _remember(self, folder: Folder, path: Path) -> None:
        for name, node in folder.entries.items():
            below = path / name
            if isinstance(node, Folder):
                node.mode = stat.S_IMODE(below.stat().st_mode)
                self._remember(node, below)
            elif isinstance(node, File):
                node.mode, node.now = stat.S_IMODE(below.stat().st_mode), below.read_bytes()

    def _kept(self, rng: random.Random, *, certain: bool) -> list[list[Change]]:
        forced: set[int] = set()
        synced: dict[int, bool] = {}
        for entry in reversed(self._log):
            if isinstance(entry, Folder):
                forced.add(id(entry))
                continue
            touched = {id(folder) for folder, _, _ in entry}
            synced[id(entry)] = bool(touched & forced)
            if touched & forced:
                forced |= touched
        stopped: set[int] = set()
        kept = []
        for entry in self._log:
            if isinstance(entry, Folder):
                continue
            touched = {id(folder) for folder, _, _ in entry}
            if synced[id(entry)] or (not touched & stopped and (certain or rng.random() < 0.6)):
                kept.append(entry)
            else:
                stopped |= touched
        return kept


def _apply(changes: list[Change]) -> None:
    for folder, name, node in changes:
        if node is None:
            folder.entries.pop(name, None)
        else:
            folder.entries[name] = node


def _write(folder: Folder, path: Path, rng: random.Random) -> None:
    path.chmod(folder.mode)
    for name, node in folder.entries.items():
        below = path / name
        if isinstance(node, str):
            below.symlink_to(node)
        elif isinstance(node, Folder):
            below.mkdir()
            _write(node, below, rng)
        else:
            left = (b"", node.synced, node.now[: len(node.now) // 2], node.now)
            below.write_bytes(rng.choice(left) if node.dirty else node.synced)
            below.chmod(node.mode)
