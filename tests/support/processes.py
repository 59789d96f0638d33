"""The emulator and the sidecar as real processes, on ports of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], what: str, *, patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {patience:g} s")


class EmulatorProcess:
    """`python -m emulator`, with its control endpoint."""

    def __init__(self, directory: Path, *options: str) -> None:
        ports = ("--token-port", "0", "--mtls-port", "0", "--control-port", "0")
        command = [
            sys.executable,
            "-m",
            "compass_emulator",
            "--dir",
            str(directory),
            "--quiet",
            *ports,
            *options,
        ]
        self.process = subprocess.Popen(command, cwd=ROOT)
        wait_until((directory / "endpoints.json").exists, "the emulator's start")
        self.endpoints: dict[str, Any] = json.loads((directory / "endpoints.json").read_text())
        # One for all calls: to read the system's trust store takes longer than a call.
        self.client = httpx.Client(base_url=self.endpoints["control_url"], trust_env=False)

    def control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = self.client.request(method, path, json=body)
        assert answer.is_success, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def fault(self, text: str) -> None:
        self.control("POST", "/faults", {"fault": text})

    def heal(self) -> None:
        self.control("DELETE", "/faults")

    def signatures(self) -> int:
        count: int = self.control("GET", "/")["counters"]["signatures"]
        return count

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(10)


class SidecarProcess:
    """`python -m compass_sidecar`, or another `module` that runs it, with a client for its API.

    `environment` has the COMPASS_ variables. `wrapper` is a command that runs what follows it.
    Standard error is `log`, unless `stderr` is something else.
    """

    def __init__(
        self,
        environment: dict[str, str],
        *,
        log: Path,
        module: str = "compass_sidecar",
        wrapper: tuple[str, ...] = (),
        stderr: Any = None,
    ) -> None:
        self.module = module
        self.wrapper = wrapper
        self.stderr = stderr
        self.port = free_port()
        self.log = log
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("COMPASS_")},
            "COMPASS_PORT": str(self.port),
            "COMPASS_KEY_SIZE": "2048",
            **environment,
        }
        self.prefix: tuple[str, ...] = ()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, sys.executable, "-m", self.module],
                cwd=ROOT,
                env=self.environment,
                stderr=log if self.stderr is None else self.stderr,
            )

    def ready(self) -> "SidecarProcess":
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.client.get("/readyz").status_code == 200

        wait_until(answers, "readiness")
        return self

    def started(self) -> "SidecarProcess":
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.client.get("/livez").status_code == 200

        wait_until(answers, "the sidecar's start")
        return self

    def status(self) -> dict[str, Any]:
        content: dict[str, Any] = self.client.get("/status").json()
        return content

    def fingerprint(self) -> str:
        text: str = self.status()["certificate"]["fingerprint_sha256"]
        return text

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Another command with the same environment; `prefix` is what runs it, if anything."""
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "compass_sidecar", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """The exit status after SIGTERM."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.kill()
