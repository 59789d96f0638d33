"""A command on a terminal of its own, as somebody at a keyboard would see it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.processes import ROOT


def _take_terminal() -> None:
    """So that ^C typed there is a signal here."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@dataclass(frozen=True)
class Seen:
    """What came out, control sequences included, and the exit status."""

    status: int
    text: str


def on_terminal(
    *arguments: str, environ: Mapping[str, str], typed: str = "", when: str = "", columns: int = 100
) -> Seen:
    """Run `python -m app` there; `typed` is typed as soon as `when` is to be read."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    without = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "compass_sidecar", *arguments],
        cwd=ROOT,
        env={**without, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - it takes no lock
    )
    os.close(theirs)
    limit = threading.Timer(60, process.kill)
    limit.start()
    text, waiting = "", typed
    try:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the last process on the terminal has left
                break
            text += part.decode("utf-8", "replace")
            if waiting and when in text:
                os.write(ours, waiting.encode())
                waiting = ""
        return Seen(process.wait(), text)
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        os.close(ours)
