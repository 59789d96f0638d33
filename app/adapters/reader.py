"""Files that an operator names are read here: never on the event loop, and with an end to the wait.

A mount may hang: then one thread waits for it, and every further look is refused at once.
"""

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from . import files
from .worker import Worker

_T = TypeVar("_T")
# A file on a healthy mount takes milliseconds; the renewal loop, which may wait here, is given 90 s.
LIMIT = timedelta(seconds=10)


class Reader:
    """One for each input, so that a mount that hangs keeps nothing else from being read.

    What a look raises is raised here; besides, OSError if it takes too long, an earlier one still hangs, or
    there is no thread. Its `strerror` says so in words.
    """

    def __init__(self, name: str, *, limit: timedelta = LIMIT) -> None:
        self._limit = limit
        self._worker = Worker(name, limit=limit)
        self._hanging: Future[Any] | None = None

    def read(self, path: Path) -> bytes:
        """The content of a regular file of at most 1 MiB. Blocks; the event loop uses `run`."""
        future = self._submit(files.read_named, path)
        try:
            return future.result(self._limit.total_seconds())
        except TimeoutError as error:
            raise self._late(future, error) from error

    async def run(self, look: Callable[..., _T], *args: object) -> _T:
        """What `look(*args)` returns."""
        future = self._submit(look, *args)
        try:
            async with asyncio.timeout(self._limit.total_seconds()):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise self._late(future, error) from error

    def _submit(self, look: Callable[..., _T], *args: object) -> "Future[_T]":
        if self._hanging is not None and not self._hanging.done():
            raise TimeoutError(errno.ETIMEDOUT, "an earlier attempt to read it has not ended")
        self._hanging = None
        try:
            return self._worker.submit(look, *args)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "there is no thread to read it with") from error

    def _late(self, future: "Future[_T]", error: TimeoutError) -> OSError:
        if future.done() and not future.cancelled():
            return error  # the file system's own
        self._hanging = future
        seconds = self._limit.total_seconds()
        return TimeoutError(errno.ETIMEDOUT, f"its file system has not answered for {seconds:g} s")
