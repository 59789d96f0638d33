"""The operator's command: run for each new credential, with its standard error in memory."""

import asyncio
import errno
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from ..core.notice import NEW_CREDENTIAL, Notice
from ..core.text import rfc3339
from ..errors import NotificationError
from . import files

_LIMIT = timedelta(seconds=30)
# What was killed and does not end hangs in the kernel: nothing else waits for it.
_END_LIMIT = timedelta(seconds=1)
_REAP_INTERVAL = timedelta(seconds=1)
_KEPT_OF_ERRORS = 64 * 1024
_SHOWN_OF_ERRORS = 300
# The command may well be able to run a little later.
_PASSING = files.SHORTAGE | {errno.EAGAIN, errno.ETXTBSY}


class Command:
    """Runs one at a time, for `limit` at most. `environment` is what it gets besides the notice."""

    latest_only = True  # it reads whatever is current

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], *, limit: timedelta = _LIMIT
    ) -> None:
        self._words = words
        self._environment = environment
        self._limit = limit
        self.running = False

    def wants(self, event: str) -> bool:
        return event in NEW_CREDENTIAL

    async def deliver(self, notice: Notice) -> None:
        """Raises NotificationError if it cannot be run, fails or takes too long; OSError for a shortage."""
        self.running = True
        try:
            with _Errors() as errors:
                await self._run(notice, errors)
        finally:
            self.running = False

    async def _run(self, notice: Notice, errors: "_Errors") -> None:
        process = await self._start(notice, errors.descriptor)
        try:
            async with asyncio.timeout(self._limit.total_seconds()):
                await process.wait()
        except TimeoutError as error:
            limit = f"{self._limit.total_seconds():g}"
            raise NotificationError(f"the command was killed after {limit} s{errors.shown()}") from error
        finally:
            await _end(process)
        if process.returncode:
            raise NotificationError(f"the command ended with status {process.returncode}{errors.shown()}")

    async def _start(self, notice: Notice, errors: int) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._words,
                env={**self._environment, **_variables(notice)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno in _PASSING:
                raise
            raise NotificationError(f"the command cannot be run: {files.reason(error)}") from error


class _Errors:
    """The end of what a command writes to its standard error.

    A pipe of our own: asyncio's would be waited for as long as what the command leaves behind holds it.
    """

    def __enter__(self) -> "_Errors":
        self._reading, self.descriptor = os.pipe()
        os.set_blocking(self._reading, False)
        self._kept = b""
        asyncio.get_running_loop().add_reader(self._reading, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._reading)
        os.close(self._reading)
        os.close(self.descriptor)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            self._kept = (self._kept + os.read(self._reading, _KEPT_OF_ERRORS))[-_KEPT_OF_ERRORS:]

    def shown(self) -> str:
        """Its last words, to end a sentence with."""
        self._read()  # what came since; a pipe holds no more than one read takes
        text = self._kept.decode(errors="replace").strip()
        return f": {text[-_SHOWN_OF_ERRORS:]!r}" if text else ""


def _variables(notice: Notice) -> dict[str, str]:
    end = notice.not_after
    return {
        "COMPASS_EVENT": notice.event,
        "COMPASS_FINGERPRINT": notice.fingerprint or "",
        "COMPASS_NOT_AFTER": rfc3339(end) if end is not None else "",
    }


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a command that still runs, with its group."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_LIMIT.total_seconds()):
            await process.wait()


async def reap_orphans(command: Command | None, sleep: Callable[[timedelta], Awaitable[None]]) -> None:
    """For process 1, which the kernel makes the parent of what commands leave behind. Never returns.

    Nothing is reaped while the command runs: asyncio waits for its status, and would wait for ever.
    """
    while True:
        if command is None or not command.running:
            _reap()
        await sleep(_REAP_INTERVAL)


def _reap() -> None:
    """Take the status of each child that has ended."""
    with suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)
