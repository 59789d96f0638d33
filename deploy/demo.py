"""The main job, to watch: emulator and sidecar start, a certificate is imported, renewed and verified.

`--once` ends with status 0 after one verified renewal; without it the certificates, which live two
minutes, are renewed by themselves until Ctrl-C.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"
PATIENCE = 60
Processes = list[subprocess.Popen[bytes]]


def main() -> int:
    # However it is ended, what it started ends too; and a shell's `&` has us ignore Ctrl-C.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after one verified renewal")
    parser.add_argument("--port", type=int, default=8080, help="where the sidecar listens; 0: a free port")
    options = parser.parse_args()
    options.port = options.port or free_port()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        with processes() as running:
            return show(running, options)
    except KeyboardInterrupt:
        print("\nended")
        return 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def show(running: Processes, options: argparse.Namespace) -> int:
    say("1. A Compass Connector (the emulator) starts, and issues a first certificate.")
    endpoints = start_emulator(running)
    say("2. The sidecar starts with it.")
    start_sidecar(running, endpoints, options.port)
    with httpx.Client(base_url=f"http://127.0.0.1:{options.port}", timeout=90) as client:
        wait_for(running, lambda: client.get("/readyz").status_code == 200, "the sidecar")
        before = client.get("/status").json()["certificate"]
        describe("before", before)
        say("3. POST /renew: CSR information, key, CSR, signature, verification, proof, switch.")
        answer = client.post("/renew")
        if answer.status_code != 200:
            print(answer.text, file=sys.stderr)
            return 1
        after = answer.json()["certificate"]
        describe("after", after)
        print(f"   took    {answer.json()['duration_seconds']:.2f} s")
        if after["fingerprint_sha256"] == before["fingerprint_sha256"]:
            print("the certificate did not change", file=sys.stderr)
            return 1
        say("4. The chain that a consumer fetches verifies, and the Connector accepts the published pair.")
        if not verify(client, endpoints):
            return 1
        if options.once:
            return 0
        print_hints(options.port)
        return watch(running, client)


@contextmanager
def processes() -> Iterator[Processes]:
    """Ends them all in the reverse order."""
    running: Processes = []
    try:
        yield running
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def start_emulator(running: Processes) -> dict[str, Any]:
    folder = FOLDER / "emulator"
    ports = ("--token-port", "0", "--mtls-port", "0", "--control-port", "0")
    command = [
        sys.executable,
        "-m",
        "compass_emulator",
        "--dir",
        str(folder),
        "--lifetime",
        "2m",
        *ports,
        "--quiet",
    ]
    running.append(subprocess.Popen(command, cwd=ROOT, start_new_session=True))
    wait_for(running, (folder / "endpoints.json").exists, "the emulator")
    endpoints: dict[str, Any] = json.loads((folder / "endpoints.json").read_text())
    return endpoints


def start_sidecar(running: Processes, endpoints: dict[str, Any], port: int) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPASS_")}
    environment |= {
        "COMPASS_CONNECTOR_URL": endpoints["connector_url"],
        "COMPASS_CONNECTOR_CA_FILE": endpoints["ca_file"],
        "COMPASS_CLIENT_CERTIFICATE_FILE": endpoints["client_certificate_file"],
        "COMPASS_CLIENT_KEY_FILE": endpoints["client_key_file"],
        "COMPASS_STORE_DIR": str(FOLDER / "store"),
        "COMPASS_PUBLISH_DIR": str(FOLDER / "published"),
        "COMPASS_PORT": str(port),
    }
    log = (FOLDER / "sidecar.log").open("wb")
    running.append(
        subprocess.Popen(
            [sys.executable, "-m", "compass_sidecar"],
            cwd=ROOT,
            env=environment,
            stderr=log,
            start_new_session=True,
        )
    )


def wait_for(running: Processes, condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for process in running:
            if process.poll() is not None:
                sys.exit(f"{what} ended with status {process.returncode}: {last_words()}")
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit(f"{what} was not ready within {PATIENCE} s")


def last_words() -> str:
    """The line in which the sidecar says why it ends; it is the only one that is not JSON."""
    lines = (FOLDER / "sidecar.log").read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if not line.startswith("{")), f"see {FOLDER}/sidecar.log")


def verify(client: httpx.Client, endpoints: dict[str, Any]) -> bool:
    """With openssl and curl, as a consumer would."""
    published = FOLDER / "published"
    with tempfile.TemporaryDirectory() as name:
        chain, authority = Path(name, "tls.crt"), Path(name, "ca.crt")
        chain.write_bytes(client.get("/certificate/chain.pem").content)
        authority.write_bytes(client.get("/certificate/ca.pem").content)
        checked = run("openssl", "verify", "-CAfile", authority, "-untrusted", chain, chain)
    pair = ("--cert", published / "tls.crt", "--key", published / "tls.key")
    query = ("-H", "Content-Type: application/json", "-d", '{"query":"{ __typename }"}')
    called = run("curl", "-sS", "--cacert", endpoints["ca_file"], *pair, *query, endpoints["connector_url"])
    return checked and called


def run(*command: object) -> bool:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    outcome = (done.stdout + done.stderr).strip()
    print(f"   {command[0]:<7} {outcome.splitlines()[-1] if outcome else done.returncode}")
    return done.returncode == 0


def watch(running: Processes, client: httpx.Client) -> int:
    say("5. Certificates live two minutes: watch them being renewed. Ctrl-C ends it.")
    seen: str | None = None
    while all(process.poll() is None for process in running):
        status = client.get("/status").json()
        now = status["certificate"]["fingerprint_sha256"]
        if seen is not None and now != seen:
            print()
            describe("renewed", status["certificate"])
        seen = now
        left, due = status["remaining_seconds"], status["renewal"]["due_at"]
        print(f"\r   {status['state']}, {left:.0f} s left, renewal due {due}  ", end="", flush=True)
        time.sleep(1)
    return 1


def print_hints(port: int) -> None:
    say("Try it yourself, while it runs:")
    for path in ("/status", "/certificate", "/certificate/chain.pem", "/readyz?verbose"):
        print(f"   curl -s 'http://localhost:{port}{path}'")
    print(f"   curl -s -X POST http://localhost:{port}/renew")
    print(f"   ls -l {FOLDER.relative_to(ROOT)}/published")


def describe(title: str, certificate: dict[str, Any]) -> None:
    print(f"   {title:<7} {certificate['fingerprint_sha256'][:16]}…")
    print(f"           {certificate['not_before']} to {certificate['not_after']}, {certificate['subject']}")


def say(text: str) -> None:
    print(f"\n{text}")


if __name__ == "__main__":
    sys.exit(main())
