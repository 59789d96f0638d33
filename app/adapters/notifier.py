"""Telling neighbours: a command after a new credential, a webhook for every event.

A neighbour that fails, hangs or floods never fails or delays a renewal: everything happens in two
tasks of their own, behind bounded queues.
"""

import asyncio
import hashlib
import hmac
import json
import os
import signal
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx

from ..core.generation import Generation
from ..errors import NotificationError

_COMMAND_EVENTS = frozenset({"connected", "renewed"})
_COMMAND_LIMIT = timedelta(seconds=30)
_REQUEST_LIMIT = timedelta(seconds=10)
# About two minutes in all: a receiver that restarts is waited for, one that is gone is not.
_WEBHOOK_PAUSES = tuple(timedelta(seconds=each) for each in (1, 2, 5, 15, 30, 60))
# Events are rare; whoever has missed this many will not want them all.
_QUEUE = 100
_ERROR_TAIL = 300


@dataclass(frozen=True, slots=True)
class Notice:
    """One event, as the neighbours are told of it. `id` lets a receiver drop what came twice."""

    id: str
    event: str
    at: datetime
    generation: Generation | None
    detail: str | None

    def body(self) -> bytes:
        chain = self.generation.chain if self.generation is not None else None
        content = {
            "id": self.id,
            "event": self.event,
            "at": _text(self.at),
            "fingerprint_sha256": chain.fingerprint if chain else None,
            "not_before": _text(chain.not_before) if chain else None,
            "not_after": _text(chain.effective_not_after) if chain else None,
            "detail": self.detail,
        }
        return json.dumps(content).encode()


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class Targets:
    """Who is told. `environment` has PATH, HOME and LANG for the command, and nothing else."""

    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    webhook: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)


class Notifier:
    """Needs a running event loop from the first `notify` on. `report(kind, error)` hears how each ended."""

    def __init__(
        self,
        targets: Targets,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[timedelta], Awaitable[None]],
        new_id: Callable[[], str],
        report: Callable[[str, NotificationError | None], None],
    ) -> None:
        self._targets = targets
        self._now = now
        self._sleep = sleep
        self._new_id = new_id
        self._report = report
        # One place: the latest wins, since the command reads whatever is current.
        self._commands: asyncio.Queue[Notice] = asyncio.Queue(1)
        self._posts: asyncio.Queue[Notice] = asyncio.Queue(_QUEUE)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def notify(self, event: str, generation: Generation | None, *, detail: str | None = None) -> None:
        notice = Notice(self._new_id(), event, self._now(), generation, detail)
        if self._targets.command is not None and event in _COMMAND_EVENTS:
            _put(self._commands, notice)
            self._work("command", self._commands, self._run)
        if self._targets.webhook is not None:
            _put(self._posts, notice)
            self._work("webhook", self._posts, self._post)

    async def aclose(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _work(
        self, kind: str, queue: asyncio.Queue[Notice], deliver: Callable[[Notice], Awaitable[None]]
    ) -> None:
        if kind not in self._tasks:
            self._tasks[kind] = asyncio.create_task(self._deliver_all(kind, queue, deliver))

    async def _deliver_all(
        self, kind: str, queue: asyncio.Queue[Notice], deliver: Callable[[Notice], Awaitable[None]]
    ) -> None:
        while True:
            notice = await queue.get()
            try:
                await deliver(notice)
            except NotificationError as error:
                self._report(kind, error)
            else:
                self._report(kind, None)

    # --- the command ---------------------------------------------------------------------------

    async def _run(self, notice: Notice) -> None:
        command = self._targets.command or ()
        with tempfile.TemporaryFile() as errors:  # a pipe would be held open by what it leaves behind
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    env=self._environment(notice),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise NotificationError(f"the command cannot be run: {error.strerror}") from error
            await self._wait_for(process)
            if process.returncode:
                errors.seek(max(errors.seek(0, os.SEEK_END) - _ERROR_TAIL, 0))
                tail = errors.read().decode(errors="replace").strip()
                raise NotificationError(f"the command ended with status {process.returncode}: {tail!r}")

    async def _wait_for(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(_COMMAND_LIMIT.total_seconds()):
                await process.wait()
        except TimeoutError as error:
            raise NotificationError("the command was killed after 30 s") from error
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def _environment(self, notice: Notice) -> dict[str, str]:
        chain = notice.generation.chain if notice.generation is not None else None
        return {
            **self._targets.environment,
            "COMPASS_EVENT": notice.event,
            "COMPASS_FINGERPRINT": chain.fingerprint if chain else "",
            "COMPASS_NOT_AFTER": _text(chain.effective_not_after) if chain else "",
        }

    # --- the webhook ---------------------------------------------------------------------------

    async def _post(self, notice: Notice) -> None:
        body = notice.body()
        headers = {"Content-Type": "application/json"}
        if self._targets.webhook_secret is not None:
            digest = hmac.new(self._targets.webhook_secret.encode(), body, hashlib.sha256).hexdigest()
            headers["Compass-Signature"] = f"sha256={digest}"
        reason = ""
        for pause in (*_WEBHOOK_PAUSES, None):
            reason = await self._try_to_post(body, headers)
            if not reason:
                return
            if pause is not None:
                await self._sleep(pause)
        raise NotificationError(f"the webhook was given up: {reason}")

    async def _try_to_post(self, body: bytes, headers: Mapping[str, str]) -> str:
        """Why it failed; empty if the receiver took it. Its answer's body is not even read."""
        # 24 ms with the system's trust store, so not on the event loop.
        context = await asyncio.to_thread(ssl.create_default_context)
        try:
            async with (
                asyncio.timeout(_REQUEST_LIMIT.total_seconds()),
                httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False) as client,
                client.stream("POST", self._targets.webhook or "", content=body, headers=headers) as answer,
            ):
                return "" if answer.is_success else f"status {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return type(error).__name__


def _put(queue: asyncio.Queue[Notice], notice: Notice) -> None:
    """Put it in; the oldest makes place when the queue is full."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(notice)
