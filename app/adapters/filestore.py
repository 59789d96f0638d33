"""The store on disk: generations of credentials, the renewal under way, and who we are.

The layout is promised in the interface (section 5). A crash, a full disk or a kill at any instant
leaves the old or the new credential, whole: what is new is written under a temporary name, synced
and renamed, and `current` is the last to move. Every JSON file carries its own checksum and those of
the files beside it, so that a flipped bit is noticed wherever it is. A file each is what neighbours
read of a generation; a renewal under way is ours alone, and one file is synced sooner than five.
"""

import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..core.catalogue import Event, Reason
from ..core.credential import Chain, Credential, check_key, parse_certificates
from ..core.door import ClientPair
from ..core.generation import Facts, Generation, Mark, Origin, Pending, Signed
from ..errors import (
    CredentialError,
    NoCredential,
    SettingsError,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreWriteFailed,
)
from . import files
from .ownership import check_owner, is_ours, owner, trusted_owners

_log = logging.getLogger("compass_sidecar.adapters.filestore")
_VARIABLE = "COMPASS_STORE_DIR"
_KEY, _CHAIN, _CA = "tls.key", "tls.crt", "ca.crt"
_FACTS, _PENDING, _PAIR = "generation.json", "pending.json", "pair.pem"
_INSTANCE, _NOTIFICATIONS, _LOCK = "instance.json", "notifications.json", "lock"
_OURS = (_INSTANCE, _NOTIFICATIONS, _LOCK, "journal.jsonl", "journal.jsonl.1")
_LEFT = "generations.left-"  # those of another user, while they are copied
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")
_INSTANCE_ID = re.compile(r"[0-9a-f]{32}")
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
Owners = frozenset[int] | None
_POLL = timedelta(milliseconds=100)
_CLOSE_LIMIT = 1.0  # seconds
# Each is 70 bytes and means a first connection; instance.json stays far below what we read.
_TOKENS_KEPT = 1000


class Store:
    """One folder, used by one process. Synchronous: call it in a thread, from one or several."""

    instance_id: str

    def __init__(self, directory: Path, *, now: Callable[[], datetime], warn: files.Warn) -> None:
        """See `open`, which makes it usable."""
        self._directory = directory
        self._generations = directory / "generations"
        self._pending = directory / "pending"
        self._current = directory / "current"
        self._now = now
        self._warn = warn
        self._guard = threading.RLock()
        self._instance: dict[str, Any] = {}
        self._used_tokens: tuple[str, ...] = ()
        self._lock: int | None = None
        self._owners: frozenset[int] | None = None  # whose entries count; None: those of every user

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Of `/status`: what is wrong with the folder, and can be lived with."""
        return () if self._owners is None else (Reason.STORE_OPEN_TO_OTHERS,)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        now: Callable[[], datetime],
        warn: files.Warn,
        lock_timeout: timedelta = timedelta(seconds=30),
    ) -> "Store":
        """The store in this folder, made if missing, locked until `close`, tidied up.

        SettingsError when the folder cannot be used, StoreLocked when another process has it.
        `warn(code, detail)` hears of whatever is wrong and can be lived with.
        """
        store = cls(directory, now=now, warn=warn)
        files.ensure_directory(directory, mode=0o700, variable=_VARIABLE)
        store._judge_owners()
        store._take_lock(lock_timeout)
        try:
            store._tidy()
            store._identify()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def peek(cls, directory: Path) -> Generation | None:
        """The current generation for a look from outside: takes no lock and changes nothing.

        None without one, StoreDamaged when it cannot be used.
        """
        store = cls(directory, now=lambda: datetime.min.replace(tzinfo=UTC), warn=lambda _code, _detail: None)
        if files.is_folder(directory):
            store._owners = trusted_owners(directory)
        name = store._current_name()
        return None if name is None else store._read(name)

    @classmethod
    def holder(cls, directory: Path) -> str | None:
        """Who uses the store now, as far as a look from outside can tell; None if nobody."""
        try:
            descriptor = os.open(directory / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 200, 0).decode("ascii", "replace").strip() or "another process"
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return None

    def close(self) -> None:
        """Release the lock. Nothing else may be called afterwards. A call that hangs is not waited for."""
        guarded = self._guard.acquire(timeout=_CLOSE_LIMIT)
        try:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
        finally:
            if guarded:
                self._guard.release()

    # -- opening ------------------------------------------------------------------------------

    def _judge_owners(self) -> None:
        """Where any user can write, make room for entries of ours where others have put theirs."""
        self._owners = trusted_owners(self._directory)
        if self._owners is None:
            mode = self._directory.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                _log.info(
                    Event.STORE_MOUNT_OPEN, extra={"detail": f"every user can write in {self._directory}"}
                )
            return
        known = [self._current, *(path for path, _ in self._entries()), *self._generations.glob("*")]
        foreign = [path for path in known if self._is_foreign(path)]
        named = [f"{path.relative_to(self._directory)} (uid {owner(path)})" for path in foreign]
        for path in foreign:
            if path.parent == self._directory:
                with suppress(OSError):
                    files.rename(path, path.with_name(f"{path.name}.foreign-{secrets.token_hex(4)}"))
        ignored = f"; these entries of other users are not used: {', '.join(named)}" if named else ""
        way_out = f"every user can write in {self._directory}: chmod 0700 {self._directory}"
        self._warn(Event.STORE_OPEN_TO_OTHERS, f"{way_out}{ignored}")

    def _is_foreign(self, path: Path) -> bool:
        return self._owners is not None and owner(path) not in {None, *self._owners}

    def _take_lock(self, timeout: timedelta) -> None:
        path = self._directory / _LOCK
        # A lock of another user can be taken too: it need not be written.
        access = os.O_RDWR | os.O_CREAT if is_ours(path) or os.access(path, os.W_OK) else os.O_RDONLY
        try:
            self._lock = os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise files.unwritable(self._directory, error, variable=_VARIABLE) from error
        try:
            self._wait_for_lock(self._lock, timeout)
        except BaseException:
            self.close()
            raise
        holder = f"pid {os.getpid()} on {os.uname().nodename}\n".encode()
        with suppress(OSError):  # on a full disk the lock holds nevertheless
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, holder, 0)

    def _wait_for_lock(self, descriptor: int, timeout: timedelta) -> None:
        pause = threading.Event()
        for _ in range(timeout // _POLL + 1):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pause.wait(_POLL.total_seconds())
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise files.unwritable(self._directory, error, variable=_VARIABLE) from error
                self._warn(
                    Event.STORE_NOT_LOCKED,
                    f"{self._directory} is on a file system without locks ({files.reason(error)}):"
                    " make sure that only one sidecar uses it",
                )
                return
            else:
                return
        holder = os.pread(descriptor, 200, 0).decode("ascii", "replace").strip()
        raise StoreLocked(
            f"{self._directory} is used by another sidecar: {ascii(holder) if holder else 'unknown'};"
            f" waited {timeout.total_seconds():g} s"
        )

    def _tidy(self) -> None:
        files.prove_usable(self._directory, variable=_VARIABLE, warn=self._warn)
        self._resume_taking_over()
        if not os.path.lexists(self._generations):
            with files.writing(f"{self._generations} cannot be made"):
                files.make_directory(self._generations)
                files.sync_directory(self._directory)
        if not files.is_folder(self._generations):
            raise SettingsError([f"{_VARIABLE}: {self._generations} is not a folder; move it away"])
        self._tighten()
        files.sweep(self._directory)
        for folder in (self._generations, self._pending, *self._folders()):
            if files.is_folder(folder):
                files.sweep(folder)

    def _tighten(self) -> None:
        """Modes below the store are ours again: fsGroup, a restore or a copy may have opened them."""
        failures = [failure for path, mode in self._entries() if (failure := _tighten(path, mode))]
        if failures:
            self._warn(Event.STORE_MODE, f"{failures[0]} ({len(failures)} such entries)")

    def _entries(self) -> Iterator[tuple[Path, int]]:
        """Ours, folders first: one that nobody may enter is opened before it is entered."""
        yield from ((self._directory / name, 0o600) for name in _OURS)
        yield self._generations, 0o700
        for folder in (self._pending, *self._folders()):
            yield folder, 0o700
            if files.is_folder(folder):
                names = (_KEY, _CHAIN, _CA, _FACTS, _PENDING, _PAIR)
                yield from ((folder / name, 0o600) for name in names)

    def _identify(self) -> None:
        path = self._directory / _INSTANCE
        try:
            self._instance = files.unseal(files.read_file(path, owners=self._owners))
            self.instance_id, self._used_tokens = _instance(self._instance)
        except FileNotFoundError:
            self._new_instance()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._warn(Event.INSTANCE_DAMAGED, f"{path} is made anew: {_why(error)}")
            files.remove(path)
            self._new_instance()

    def _new_instance(self) -> None:
        self._instance, self.instance_id, self._used_tokens = {}, secrets.token_hex(16), ()
        try:
            self._save_instance(self._used_tokens)
        except StoreWriteFailed as error:
            # Jitter differs after the next start: no reason not to serve what is stored.
            self._warn(Event.DISK_FULL, error.detail)

    # -- tokens -------------------------------------------------------------------------------

    def token_used(self, digest: str) -> bool:
        """Whether this one-time token (SHA-256, hex) was presented by us before. Never waits."""
        return digest in self._used_tokens

    def remember_token(self, digest: str) -> None:
        """StoreWriteFailed if it cannot be remembered over a restart."""
        with self._guard:
            if digest not in self._used_tokens:
                tokens = (*self._used_tokens, digest)[-_TOKENS_KEPT:]
                self._save_instance(tokens)
                self._used_tokens = tokens

    def _save_instance(self, tokens: tuple[str, ...]) -> None:
        record = {**self._instance, "instance_id": self.instance_id, "used_tokens": tokens}
        with files.writing(f"{self._directory / _INSTANCE} cannot be written"):
            files.replace_file(self._directory / _INSTANCE, files.seal(record))

    # -- notifications ------------------------------------------------------------------------

    def notifications(self) -> dict[str, Any] | None:
        """What consumers were told, as it was saved; None without a record, or if it is damaged."""
        path = self._directory / _NOTIFICATIONS
        if not os.path.lexists(path):
            return None
        try:
            return files.unseal(_read(self._directory, _NOTIFICATIONS, self._owners))
        except (StoreDamaged, ValueError) as error:
            self._warn(Event.NOTIFICATIONS_DAMAGED, f"{path} is made anew: {_why(error)}")
        files.remove(path)
        return None

    def save_notifications(self, record: Mapping[str, Any]) -> None:
        """Replace the record as a whole: JSON of at most some KiB. StoreWriteFailed leaves the old one."""
        path = self._directory / _NOTIFICATIONS
        with self._guard, files.writing(f"{path} cannot be written"):
            files.replace_file(path, files.seal(record))

    # -- generations --------------------------------------------------------------------------

    def load(self) -> Generation | None:
        """The current generation, checked; if it is damaged the newest good one, which becomes current.

        None when there is none at all; StoreDamaged when there are some and none can be used;
        StoreError when we ran out of descriptors or memory, which says nothing about the store.
        """
        with self._guard:
            name = self._current_name()
            names = self._names()
            try:
                if name is not None:
                    return self._read(name)
                problem = "`current` is missing or points nowhere"
            except StoreDamaged as error:
                problem = f"the current generation {name} is damaged: {error.detail}"
            if names:
                return self._fall_back(problem)
            if os.path.lexists(self._current):
                self._warn(Event.GENERATION_DAMAGED, f"{problem}; no generation is left")
            return None

    def _fall_back(self, problem: str) -> Generation:
        good = next((each for each in self.generations() if each.facts.revoked_at is None), None)
        if good is None:
            raise StoreDamaged(f"{problem}; no other generation can be used")
        self._warn(Event.GENERATION_DAMAGED, f"{problem}; going on with {good.name}")
        try:
            self._point_to(good.name)
            # It was waiting to be revoked as superseded; now it is what we live on.
            return self.amend(good, replace(good.facts, revoke_at=None)) if good.facts.revoke_at else good
        except (OSError, StoreWriteFailed) as error:
            self._warn(Event.STORE_WRITE_FAILED, f"`current` cannot be repaired: {_why(error)}")
            return good

    def generations(self) -> tuple[Generation, ...]:
        """Those that can be read, the newest first: by the leaf's `not_before`, then `activated_at`."""
        with self._guard:
            readable = [each for name in self._names() if (each := self._readable(name))]
            return tuple(sorted(readable, key=_age, reverse=True))

    def activate(self, credential: Credential, facts: Facts) -> Generation:
        """Write a new generation and make it current; StoreWriteFailed leaves the old one so.

        What was pending belongs to the old one, and is removed.
        """
        with self._guard, files.writing(f"the new generation cannot be stored in {self._directory}"):
            self._take_over()
            contents = _contents(credential)
            record = _record(facts, contents)
            folder = files.write_folder(self._generations, {**contents, _FACTS: files.seal(record)})
            target = self._free_name(facts.activated_at, _suffix(credential.chain))
            previous = self._current_name()
            try:
                files.rename(folder, target)
                files.sync_directory(self._generations)
                self._point_to(target.name)
            except OSError:
                files.remove(folder)
                if self._current_name() != target.name:
                    with suppress(OSError):
                        self._discard(target)
                raise
            generation = Generation(target.name, credential, facts)
            self._prune(generation, previous)
            with suppress(OSError):  # what stays is not taken up: it says which credential began it
                self._discard(self._pending)
            return generation

    def _free_name(self, activated_at: datetime, suffix: str) -> Path:
        """`<second>-<12 hex>`. Taken (the same leaf twice in a second): a later second, so that what
        `current` may point to is never moved out of the way."""
        while True:
            path = self._generations / f"{activated_at.astimezone(UTC):%Y%m%dT%H%M%SZ}{suffix}"
            if not os.path.lexists(path):
                return path
            activated_at += timedelta(seconds=1)

    def _point_to(self, name: str) -> None:
        before = files.link_target(self._current)
        if before is None and os.path.lexists(self._current):
            files.remove(files.set_aside(self._current))  # a copy made of the link what it pointed to
        try:
            files.swap_symlink(self._current, f"generations/{name}")
        except OSError:
            # The rename may have happened and its sync failed: then the old one is current again.
            if before is not None and files.link_target(self._current) != before:
                files.swap_symlink(self._current, before)
            raise

    def _prune(self, current: Generation, previous: str | None) -> None:
        try:
            # By names alone: whoever asked for this renewal is waiting.
            names = [name for name in self._names() if name != current.name]
            others = [name for name in names if not name.endswith(_suffix(current.chain))]
            before = previous if previous in others else max(others, default=None)
            for name in names:
                if name not in others or (name != before and not self._is_outstanding(name)):
                    self._discard(self._generations / name)
        except (OSError, StoreError) as error:
            self._warn(Event.PRUNE_FAILED, f"old generations stay: {_why(error)}")

    def _is_outstanding(self, name: str) -> bool:
        """Whether it is still to be revoked."""
        with suppress(StoreDamaged), _damage():
            record, contents = _read_folder(self._generations / name, self._owners)
            if record.get("revoke_at") and not record.get("revoked_at"):
                return self._now() < _chain(contents[_CHAIN], contents.get(_CA)).effective_not_after
        return False

    def _take_over(self) -> None:
        """Copy all generations if another user owns some: what can be read can perhaps not be changed."""
        folders = (self._generations, *self._folders())
        if all(is_ours(path) for folder in folders for path in (folder, *folder.iterdir())):
            return
        fresh = files.write_folder(self._directory, {})
        try:
            for name in self._names():
                with suppress(StoreDamaged):
                    folder = self._generations / name
                    contents = _read_folder(folder, self._owners)[1]
                    contents[_FACTS] = _read(folder, _FACTS, self._owners)
                    files.rename(files.write_folder(fresh, contents), fresh / name)
            files.sync_directory(fresh)
            aside = self._directory / f"{_LEFT}{secrets.token_hex(4)}"
            files.rename(self._generations, aside)
            files.rename(fresh, self._generations)
        except BaseException:
            self._resume_taking_over()
            files.remove(fresh)
            raise
        files.sync_directory(self._directory)
        self._discard(aside)

    def _resume_taking_over(self) -> None:
        """Between its two renames there are no generations: then those that were left are."""
        for aside in sorted(self._directory.glob(f"{_LEFT}*")):
            if not os.path.lexists(self._generations):
                files.rename(aside, self._generations)

    def _discard(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            files.remove(files.set_aside(path))

    def amend(self, generation: Generation, facts: Facts) -> Generation:
        """The generation with other facts, on disk too. StoreWriteFailed leaves the old facts."""
        with self._guard, files.writing(f"what is known of generation {generation.name} cannot be written"):
            self._take_over()
            folder = self._generations / generation.name
            record = _record(facts, _contents(generation.credential))
            with suppress(StoreError):  # a later version knows more of it
                record = {**_read_record(folder, _FACTS, self._owners), **record}
            files.replace_file(folder / _FACTS, files.seal(record))
            return replace(generation, facts=facts)

    def pair(self, generation: Generation) -> ClientPair:
        """The generation's files, by a path that does not move with `current`. Touches no disk."""
        folder = self._generations / generation.name
        return ClientPair(generation.chain.fingerprint, folder / _CHAIN, folder / _KEY)

    def _current_name(self) -> str | None:
        if self._is_foreign(self._current):
            return None
        folder, _, name = (files.link_target(self._current) or "").partition("/")
        return name if folder == "generations" and _NAME.fullmatch(name) else None

    def _names(self) -> list[str]:
        try:
            check_owner(self._generations, self._generations.lstat().st_uid, self._owners)
            names = (name for name in os.listdir(self._generations) if _NAME.fullmatch(name))  # noqa: PTH208
            return sorted(name for name in names if not self._is_foreign(self._generations / name))
        except OSError as error:
            raise _unreadable("generations", error) from error

    def _folders(self) -> list[Path]:
        try:
            return [self._generations / name for name in self._names()]
        except StoreError:
            return []

    def _readable(self, name: str) -> Generation | None:
        try:
            return self._read(name)
        except StoreDamaged:
            return None

    def _read(self, name: str) -> Generation:
        record, contents = _read_folder(self._generations / name, self._owners)
        with _damage():
            chain = _chain(contents[_CHAIN], contents.get(_CA))
            key_pem = contents[_KEY]
            check_key(key_pem, chain.leaf)
            if not name.endswith(_suffix(chain)):
                raise StoreDamaged(f"{_CHAIN} is the certificate of another generation")
            return Generation(name, Credential(chain, key_pem), _facts(record))

    # -- pending ------------------------------------------------------------------------------

    def pending(self) -> Pending | None:
        """What was under way, signed or not; None if nothing, or if it is damaged (and then dropped)."""
        with self._guard:
            if not os.path.lexists(self._pending):
                return None
            try:
                record = _read_record(self._pending, _PENDING, self._owners)
                with _damage():
                    return _pending(record)
            except StoreDamaged as error:
                self._warn(Event.PENDING_DAMAGED, f"the renewal under way is dropped: {error.detail}")
            with suppress(StoreWriteFailed):
                self.drop_pending()
            return None

    def save_pending(self, pending: Pending) -> None:
        """Replace whatever was under way. All of it is in one file, so that a crash leaves old or new."""
        with self._guard, files.writing(f"the renewal under way cannot be stored in {self._directory}"):
            record = files.seal(_plain(pending))
            if files.is_folder(self._pending) and is_ours(self._pending):
                files.replace_file(self._pending / _PENDING, record)
            else:
                files.replace_folder(files.write_folder(self._directory, {_PENDING: record}), self._pending)

    def drop_pending(self) -> None:
        """Nothing is under way any more."""
        with self._guard, files.writing("the renewal under way cannot be removed"):
            self._discard(self._pending)

    def pending_pair(self, pending: Pending) -> ClientPair:
        """The signed answer with its key as a file, for its proof. NoCredential if it is not signed."""
        if pending.signed is None:
            raise NoCredential("no signed answer is waiting for its proof")
        chain, path = pending.signed.chain, self._pending / _PAIR
        if not is_ours(self._pending):
            self.save_pending(pending)
        with self._guard, files.writing("the new credential cannot be stored for its proof"):
            files.remove(path)
            files.write_scratch(path, pending.key_pem + chain.pem)
        return ClientPair(chain.fingerprint, path, path)


def _tighten(path: Path, mode: int) -> str | None:
    """What went wrong, if something did. Links, and what is not of the kind that we make, are left alone."""
    kind = stat.S_ISDIR if mode == 0o700 else stat.S_ISREG
    try:
        status = path.lstat()
        if kind(status.st_mode) and stat.S_IMODE(status.st_mode) != mode:
            os.chmod(path, mode)  # noqa: PTH101 - the os level is where faults are injected
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} cannot be given mode {mode:04o}: {files.reason(error)}"
    return None


def _age(generation: Generation) -> tuple[datetime, datetime]:
    return generation.chain.not_before, generation.facts.activated_at


@contextmanager
def _damage() -> Iterator[None]:
    """What does not parse, or lacks something, is damaged."""
    try:
        yield
    except (CredentialError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreDamaged(_why(error)) from error


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return files.reason(error)
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error)


def _unreadable(name: str, error: OSError) -> StoreError:
    kind = StoreError if error.errno in files.SHORTAGE else StoreDamaged
    return kind(f"{name} cannot be read: {files.reason(error)}")


def _read(folder: Path, name: str, owners: Owners) -> bytes:
    try:
        return files.read_file(folder / name, owners=owners)
    except OSError as error:
        raise _unreadable(name, error) from error


def _read_record(folder: Path, name: str, owners: Owners) -> dict[str, Any]:
    """A sealed file in a folder of ours."""
    if not files.is_folder(folder):
        raise StoreDamaged("its folder is missing or not a folder")
    try:
        check_owner(folder, folder.lstat().st_uid, owners)
        return files.unseal(_read(folder, name, owners))
    except OSError as error:
        raise _unreadable(folder.name, error) from error
    except ValueError as error:
        raise StoreDamaged(f"{name} is damaged: {_why(error)}") from error


def _read_folder(folder: Path, owners: Owners) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What is known of a generation, and the files that it vouches for, with their checksums checked."""
    record = _read_record(folder, _FACTS, owners)
    with _damage():
        names = [name for name in (_KEY, _CHAIN, _CA) if name in record["files"]]
        contents = {name: _read(folder, name, owners) for name in names}
        for name, content in contents.items():
            if _digest(content) != record["files"][name]:
                raise StoreDamaged(f"{name} is damaged: its checksum is wrong")
    return record, contents


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _suffix(chain: Chain) -> str:
    return f"-{chain.fingerprint[:12]}"


def _contents(credential: Credential) -> dict[str, bytes]:
    chain = credential.chain
    authorities = {} if chain.ca_pem is None else {_CA: chain.ca_pem}
    return {_KEY: credential.key_pem, _CHAIN: chain.pem, **authorities}


def _chain(pem: bytes, ca_pem: bytes | None) -> Chain:
    return Chain(parse_certificates(pem), pem, ca_pem)


def _record(facts: Facts, contents: Mapping[str, bytes]) -> dict[str, Any]:
    """What is known, and the checksums of the files beside it."""
    return {**_plain(facts), "files": {name: _digest(content) for name, content in contents.items()}}


def _plain(value: Any) -> Any:
    """As JSON. Of a chain only its PEM texts, from which the rest follows."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Chain):
        return {"pem": _plain(value.pem), "ca": _plain(value.ca_pem)}
    if not is_dataclass(value):
        return value
    return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}


def _time(value: str | None) -> datetime | None:
    return None if value is None else _moment(value)


def _moment(text: str) -> datetime:
    """Aware: what has no time zone was not written by us."""
    if (moment := datetime.fromisoformat(text)).tzinfo is None:
        raise ValueError("a time has no time zone")
    return moment


def _facts(record: Mapping[str, Any]) -> Facts:
    # `get`: what a later version adds to the facts must not make older generations damaged.
    return Facts(
        origin=Origin(record["origin"]),
        connector_url=record["connector_url"],
        activated_at=_moment(record["activated_at"]),
        director_url=record.get("director_url"),
        proven_at=_time(record.get("proven_at")),
        replaced_end=_time(record.get("replaced_end")),
        replaced_anchor=record.get("replaced_anchor"),
        revoke_at=_time(record.get("revoke_at")),
        revoke_sent_at=_time(record.get("revoke_sent_at")),
        revoked_at=_time(record.get("revoked_at")),
        connector_time=_time(record.get("connector_time")),
        signature_mark=_mark(record.get("signature_mark")),
        request_mark=_mark(record.get("request_mark")),
        drop_mark=_mark(record.get("drop_mark")),
        drops=record.get("drops", 0),
    )


def _mark(record: Mapping[str, Any] | None) -> Mark | None:
    if record is None:
        return None
    return Mark(record["boot_id"], timedelta(seconds=record["since_boot"]))


def _pending(record: Mapping[str, Any]) -> Pending:
    pending = Pending(
        origin=Origin(record["origin"]),
        begun_by=record["begun_by"],
        begun_at=_moment(record["begun_at"]),
        sign_url=record["sign_url"],
        connector_url=record["connector_url"],
        director_url=record.get("director_url"),
        subject=record["subject"],
        key_pem=record["key_pem"].encode("latin-1"),
        csr_pem=record["csr_pem"].encode("latin-1"),
        token=record.get("token"),
        token_digest=record.get("token_digest"),
        request_mark=_mark(record.get("request_mark")),
    )
    if record.get("signed") is None:
        return pending
    signed = _signed(record["signed"])
    check_key(pending.key_pem, signed.chain.leaf)
    return replace(pending, signed=signed)


def _signed(record: Mapping[str, Any]) -> Signed:
    pem, ca_pem = record["chain"]["pem"], record["chain"]["ca"]
    return Signed(
        chain=_chain(pem.encode("latin-1"), None if ca_pem is None else ca_pem.encode("latin-1")),
        signed_at=_moment(record["signed_at"]),
        anchor_changed=record.get("anchor_changed", False),
        failed_since=_mark(record.get("failed_since")),
        failed_proofs=record.get("failed_proofs", 0),
    )


def _instance(record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    if not _INSTANCE_ID.fullmatch(record["instance_id"]):
        raise ValueError("its instance_id is not 32 hex digits")
    return record["instance_id"], tuple(record["used_tokens"])
