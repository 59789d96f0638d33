"""Makes sidecar processes in a twentieth of a second: a process that has imported everything, and forks.

    python -m tests.torture.forge

What is forked runs `main()` just as `python -m app` does, with an environment and a log of its own; it is
also what `python -m app` itself is started from where a test wants the real command line.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import PATIENCE, ROOT, free_port


class Gone(Exception):
    """The sidecar has ended; the message is its exit status and log."""


class Forge:
    """Starts sidecars; for several threads. Ends with `close`."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        """One line there, one line back."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._guard:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

    def start(self, environment: dict[str, str], log: Path, **options: Any) -> "Forged":
        """A sidecar. `held`: it waits for `go`. `fresh`: by `python -m app`. `uid`, `umask`: with these."""
        return Forged(self, environment, log, options)

    def close(self) -> None:
        """Nothing more is started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Forged:
    """A sidecar process, and a client for its API."""

    def __init__(self, forge: Forge, environment: dict[str, str], log: Path, options: dict[str, Any]) -> None:
        port = free_port()
        self._forge = forge
        self._status: int | None = None
        self._end = threading.Lock()
        self._log, self._begin = log, log.stat().st_size if log.exists() else 0
        usual = {"PATH": os.environ["PATH"], "COMPASS_PORT": str(port), "COMPASS_KEY_SIZE": "2048"}
        self.pid: int = forge.ask(environment={**usual, **environment}, log=str(log), **options)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    @property
    def log(self) -> str:
        """What this process, and no earlier one, has said."""
        with self._log.open(errors="replace") as file:
            file.seek(self._begin)
            return file.read()

    def go(self) -> None:
        """Let one that was started with `held` begin."""
        self._forge.ask(go=self.pid)

    def exit_status(self) -> int | None:
        """None while it runs; negative for a signal."""
        with self._end:
            if self._status is None:
                self._status = self._forge.ask(poll=self.pid)
            return self._status

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until the condition holds. `Gone` if the process ends first, AssertionError without patience."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if condition():
                    return
            if self.exit_status() is not None:
                raise Gone(f"with status {self.exit_status()}: {self.log}")
            time.sleep(0.01)
        raise AssertionError(f"{what} did not happen within {PATIENCE:g} s: {self.log}")

    def answers(self, path: str, *statuses: int) -> "Forged":
        """Wait until this path has one of these statuses."""
        self.wait(lambda: self.client.get(path).status_code in statuses, f"{path} with {statuses}")
        return self

    def ended(self) -> int:
        """Wait for its end: the exit status."""
        with contextlib.suppress(Gone):
            self.wait(lambda: False, "its end")
        status = self.exit_status()
        assert status is not None
        return status

    def status(self) -> dict[str, Any]:
        """`GET /status`."""
        content: dict[str, Any] = self.client.get("/status").json()
        return content

    def fingerprint(self) -> str | None:
        """Of the current certificate, None without one."""
        certificate = self.status()["certificate"]
        return None if certificate is None else certificate["fingerprint_sha256"]

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self._signal(9)

    def stop(self) -> int:
        """SIGTERM: the exit status."""
        self._signal(15)
        return self.ended()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.exit_status() is None:
                os.kill(self.pid, number)

    def __enter__(self) -> "Forged":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()
        self.ended()


# -- the process that forks -------------------------------------------------------------------


def main() -> None:
    """Answer one request a line until there are no more."""
    # Everything that a sidecar imports, so that no fork has to, nor could as another user.
    import encodings.idna  # noqa: F401

    import uvloop  # noqa: F401

    import compass_sidecar.__main__
    import compass_sidecar.adapters.logs
    import compass_sidecar.main  # noqa: F401

    held: dict[int, int] = {}
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None = None
        if "go" in request:
            os.close(held.pop(request["go"]))
        elif "poll" in request:
            answer = _poll(request["poll"], ended)
        else:
            answer = _fork(request, held)
            ended.pop(answer, None)  # process numbers are used again
        print(json.dumps(answer), flush=True)
    for pid in set(held):
        os.kill(pid, 9)


def _poll(pid: int, ended: dict[int, int]) -> int | None:
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == 0:
            return None
        ended[pid] = os.waitstatus_to_exitcode(status)
    return ended[pid]


def _fork(request: dict[str, Any], held: dict[int, int]) -> int:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reading)
        if request.get("held"):
            held[pid] = writing
        else:
            os.close(writing)
        return pid
    try:
        _become(request, reading, [writing, *held.values()])
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001 - what an interpreter would print, in the sidecar's own log
        import traceback

        traceback.print_exc()
    os._exit(1)


def _become(request: dict[str, Any], reading: int, others: Sequence[int]) -> None:
    for descriptor in others:
        os.close(descriptor)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    for number in (1, 2):
        os.dup2(log, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.read(reading, 1)  # ends when the other side is closed: at once, or with `go`
    os.environ.clear()
    os.environ.update(request["environment"])
    os.umask(request.get("umask", 0o022))
    if "uid" in request:
        os.setgroups([])
        os.setgid(request["uid"])
        os.setuid(request["uid"])
    if request.get("fresh"):
        os.execv(sys.executable, [sys.executable, "-m", "compass_sidecar"])  # noqa: S606 - the very command line
    from compass_sidecar.__main__ import main as sidecar

    sys.argv = ["compass-sidecar"]
    sidecar()


if __name__ == "__main__":
    main()
