"""Blocking calls in a thread of their own: one after the other, with an end to every wait for them."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
_Call = tuple["Future[Any]", Callable[[], Any]]


class Worker:
    """A thread that the end of the process does not wait for.

    A call that hangs delays those behind it, and each caller gives up after `limit`. A call that was given
    up before its turn is not made.
    """

    def __init__(self, name: str, *, limit: timedelta) -> None:
        self._name = name
        self._limit = limit
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the thread now: later there may be none to be had. Raises RuntimeError if there is none."""
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=_work, args=(self._calls,), name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def submit(self, call: Callable[..., _T], *args: object) -> "Future[_T]":
        """The call's result, or whatever it raises. Raises RuntimeError if there is no thread."""
        self.start()
        future: Future[_T] = Future()
        self._calls.put((future, partial(copy_context().run, call, *args)))
        return future

    async def run(self, call: Callable[..., _T], *args: object) -> _T:
        """As `submit`, for the event loop. Raises TimeoutError if it takes too long."""
        async with asyncio.timeout(self._limit.total_seconds()):
            return await asyncio.wrap_future(self.submit(call, *args))

    def drain(self, timeout: timedelta) -> None:
        """Return when all that was submitted is done, or the time is over. Blocks."""
        wait_for([self.submit(lambda: None)], timeout.total_seconds())


def _work(calls: "SimpleQueue[_Call]") -> None:
    while True:
        future, call = calls.get()
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - MemoryError included: the caller must hear of it
            future.set_exception(error)
        del future, call  # a key must not stay in memory until the next call
