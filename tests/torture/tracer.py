"""Ends a process at its n-th system call that changes the disk or uses the network, whatever the thread.

`strace --inject` counts for each thread by itself, and a renewal runs on several: so this is ptrace itself.
The call at which the process is ended is not executed. Linux on x86-64.
"""

import ctypes
import os
import platform
import signal
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CONT_SYSCALL, _SEIZE, _INTERRUPT, _SYSCALL_INFO = 24, 0x4206, 0x4207, 0x420E
_SYSGOOD, _TRACE_CLONE, _EXIT_KILL = 0x01, 0x08, 0x100000
_ALL_THREADS, _OWN_CHILDREN = 0x40000000, 0x20000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENTRY, _EXIT = 1, 2
_HERE = -100

# Where the paths are, as (descriptor of the folder, path): None for the working directory.
_PATHS: dict[str, tuple[tuple[int | None, int], ...]] = {
    "open": ((None, 0),),
    "openat": ((0, 1),),
    "mkdir": ((None, 0),),
    "mkdirat": ((0, 1),),
    "rename": ((None, 0), (None, 1)),
    "renameat": ((0, 1), (2, 3)),
    "renameat2": ((0, 1), (2, 3)),
    "symlink": ((None, 1),),
    "symlinkat": ((1, 2),),
    "unlink": ((None, 0),),
    "unlinkat": ((0, 1),),
    "rmdir": ((None, 0),),
    "chmod": ((None, 0),),
    "fchmodat": ((0, 1),),
}
_BY_DESCRIPTOR = frozenset(
    {"write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "fchmod", "fchown"}
)
_NETWORK = frozenset(
    {"connect", "accept4", "sendto", "sendmsg", "recvfrom", "recvmsg", "shutdown", "read", "write", "writev"}
)
_NUMBERS = {
    0: "read",
    1: "write",
    2: "open",
    18: "pwrite64",
    20: "writev",
    42: "connect",
    44: "sendto",
    45: "recvfrom",
    46: "sendmsg",
    47: "recvmsg",
    48: "shutdown",
    74: "fsync",
    75: "fdatasync",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    87: "unlink",
    88: "symlink",
    90: "chmod",
    91: "fchmod",
    93: "fchown",
    257: "openat",
    258: "mkdirat",
    263: "unlinkat",
    264: "renameat",
    266: "symlinkat",
    268: "fchmodat",
    288: "accept4",
    316: "renameat2",
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class Step:
    """A system call: the paths that it names, or what is behind its descriptor; where a new link points."""

    name: str
    paths: tuple[str, ...]
    target: str = ""

    def __str__(self) -> str:
        return " ".join((self.name, *self.paths))


@cache
def why_not() -> str | None:
    """The reason why nothing can be traced here, None if it can be."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "system calls are counted on Linux and x86-64 only"
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            _ptrace(_SEIZE, child.pid, 0, _EXIT_KILL)
        except OSError as error:
            return f"this machine forbids ptrace: {error.strerror}"
        finally:
            child.kill()
    return None


class Tracer:
    """Belongs to the thread that made it. `attach`, then `run`; the process does not outlive it."""

    def __init__(self, pid: int, folder: Path, *, executed: Callable[[Step], None] | None = None) -> None:
        """Calls on the folder, all below it, and sockets are steps. `executed` hears of each success."""
        self._pid = pid
        self._folder = folder
        self._executed = executed
        self._open: dict[int, Step] = {}
        self.steps: list[Step] = []

    def attach(self) -> None:
        """From when this returns every thread is followed, and each that it starts."""
        known: set[int] = set()
        while fresh := {int(path.name) for path in Path(f"/proc/{self._pid}/task").iterdir()} - known:
            for thread in fresh:
                with suppress(ProcessLookupError):
                    _ptrace(_SEIZE, thread, 0, _SYSGOOD | _TRACE_CLONE | _EXIT_KILL)
                    _ptrace(_INTERRUPT, thread)
            known |= fresh

    def run(self, at: int) -> bool:
        """Until the process is gone: whether it was ended here, at step number `at`."""
        reached = False
        while True:
            thread, status = os.waitpid(-1, _ALL_THREADS | _OWN_CHILDREN)
            if not os.WIFSTOPPED(status):
                if thread == self._pid:  # the first thread is reported when all others are gone
                    return reached
                continue
            if os.WSTOPSIG(status) == _SYSCALL_STOP and self._stopped(thread) == at:
                reached = True
                os.kill(self._pid, signal.SIGKILL)
                continue
            group_or_event = status >> 16 or os.WSTOPSIG(status) in {signal.SIGTRAP, _SYSCALL_STOP}
            with suppress(ProcessLookupError):
                _ptrace(_CONT_SYSCALL, thread, 0, 0 if group_or_event else os.WSTOPSIG(status))

    def _stopped(self, thread: int) -> int | None:
        """The number of the step that begins with this stop, None if none does."""
        buffer = ctypes.create_string_buffer(88)
        try:
            _ptrace(_SYSCALL_INFO, thread, len(buffer), ctypes.addressof(buffer))
        except ProcessLookupError:
            return None
        if buffer.raw[0] == _ENTRY:
            number, *arguments = struct.unpack_from("<7Q", buffer.raw, 24)
            name = _NUMBERS.get(number)
            step = None if name is None else self._step(name, tuple(arguments))
            if step is not None:
                self.steps.append(step)
                self._open[thread] = step
                return len(self.steps)
        elif buffer.raw[0] == _EXIT and (done := self._open.pop(thread, None)):
            (result,) = struct.unpack_from("<q", buffer.raw, 24)
            if result >= 0 and self._executed is not None:
                self._executed(done)
        return None

    def _step(self, name: str, arguments: tuple[int, ...]) -> Step | None:
        if name in _PATHS:
            if name in {"open", "openat"} and not arguments[2 if name == "openat" else 1] & os.O_CREAT:
                return None
            paths = tuple(self._path(arguments, *where) for where in _PATHS[name])
            target = self._text(arguments[0]) if name.startswith("symlink") else ""
            ours = all(map(self._is_ours, paths))
            return Step(name, paths, target) if ours else None
        behind = self._behind(arguments[0])
        ours = self._is_ours(behind) and name in _BY_DESCRIPTOR
        if ours or (behind.startswith("socket:") and name in _NETWORK):
            return Step(name, (behind if ours else "socket",))
        return None

    def _is_ours(self, path: str) -> bool:
        return Path(path).is_relative_to(self._folder)

    def _path(self, arguments: tuple[int, ...], folder: int | None, path: int) -> str:
        descriptor = _HERE if folder is None else ctypes.c_int(arguments[folder]).value
        start = self._link("cwd") if descriptor == _HERE else self._behind(descriptor)
        return os.path.normpath(Path(start, self._text(arguments[path])))

    def _behind(self, descriptor: int) -> str:
        try:
            return self._link(f"fd/{ctypes.c_int(descriptor).value}")
        except OSError:
            return ""

    def _link(self, name: str) -> str:
        return str(Path(f"/proc/{self._pid}/{name}").readlink())

    def _text(self, address: int) -> str:
        # Opened each time: an exec changes what it is. Behind the page of a string there may be nothing.
        found = b""
        with Path(f"/proc/{self._pid}/mem").open("rb", buffering=0) as memory:
            while b"\0" not in found:
                start = address + len(found)
                found += os.pread(memory.fileno(), 4096 - start % 4096, start)
        return os.fsdecode(found.partition(b"\0")[0])


def _ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
