"""Why a renewal fails, in plain words: what somebody new finds in `status` and `check`, without a log.

Each cause is real: a port where nobody listens, a full file system, a clock that is wrong, a proxy.
"""

import json
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.authority import Authority
from tests.support.processes import EmulatorProcess, SidecarProcess, free_port, wait_until
from tests.support.scripted_server import ConnectProxy, SilentListener, reply

RECONNECT = "one-time token"


@dataclass
class Scene:
    """A sidecar in trouble, to be closed with the test."""

    emulator: EmulatorProcess
    environ: dict[str, str]
    folder: Path
    stack: ExitStack

    def begin(self, **changes: str) -> SidecarProcess:
        """A sidecar that answers, whatever else it does."""
        log = self.folder / f"log{len(list(self.folder.glob('log*')))}"
        sidecar = SidecarProcess(self.environ | changes, log=log)
        self.stack.callback(sidecar.close)
        return sidecar.started()


@pytest.fixture
def scene(importing: dict[str, str], emulator: EmulatorProcess, tmp_path: Path) -> Iterator[Scene]:
    environ = importing | {"COMPASS_PUBLISH_DIR": ""}
    with ExitStack() as stack:
        yield Scene(emulator, environ, tmp_path, stack)


def renew(sidecar: SidecarProcess) -> SidecarProcess:
    """An attempt, however it ends."""
    sidecar.client.post("/renew")
    return sidecar


@dataclass(frozen=True)
class Words:
    """What has to be said: by `/status` as reasons and last error, by `check` in its line of that name."""

    line: str
    check: tuple[str, ...]
    error: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def down(scene: Scene) -> SidecarProcess:
    return renew(scene.begin(COMPASS_CONNECTOR_URL=f"https://127.0.0.1:{free_port()}/connector/graphql"))


def wrong_ca_file(scene: Scene) -> SidecarProcess:
    path = scene.folder / "other-ca.pem"
    path.write_bytes(Authority.create("Another CA").pem)
    return renew(scene.begin(COMPASS_CONNECTOR_CA_FILE=str(path)))


def no_ca_file(scene: Scene) -> SidecarProcess:
    assert scene.begin().ready().stop() == 0  # without a credential there is no start
    path = scene.folder / "ca.pem"
    path.write_text("nothing")
    return renew(scene.begin(COMPASS_CONNECTOR_CA_FILE=str(path)))


def revoked(scene: Scene) -> SidecarProcess:
    sidecar = renew(scene.begin())  # not the certificate that the others import
    scene.emulator.control("POST", "/revoke", {"fingerprint": sidecar.fingerprint()})
    return renew(sidecar)


def expired(scene: Scene) -> SidecarProcess:
    """With nothing left to renew early, since the loop must not be quicker than we are."""
    scene.environ |= {"COMPASS_RENEWAL_WINDOW_RATIO": "0.01", "COMPASS_RENEWAL_JITTER_RATIO": "0"}
    scene.emulator.control("POST", "/lifetime", {"lifetime": "3s"})
    try:
        sidecar = renew(scene.begin())
        sidecar.kill()
    finally:
        scene.emulator.control("POST", "/lifetime", {"lifetime": "2160h"})
    time.sleep(3)
    sidecar.start()
    sidecar.started()
    wait_until(lambda: sidecar.status()["renewal"]["last_error"], "an attempt")
    return sidecar


def store_full(scene: Scene) -> SidecarProcess:
    disk = Path(scene.stack.enter_context(tempfile.TemporaryDirectory()))
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk; the limit on file sizes is tried everywhere")
    scene.stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
    scene.environ["COMPASS_STORE_DIR"] = str(disk / "store")
    sidecar = scene.begin()
    with pytest.raises(OSError, match="No space left"):
        fill(disk)
    return renew(sidecar)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def files_may_not_grow(scene: Scene) -> SidecarProcess:
    sidecar = scene.begin()
    sidecar.prefix = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh")
    resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    return renew(sidecar)


def clock_ahead(scene: Scene) -> SidecarProcess:
    scene.environ |= faked("+2d")
    return renew(scene.begin())


def clock_behind(scene: Scene) -> SidecarProcess:
    scene.environ |= faked("-2d")
    return renew(scene.begin())


def faked(offset: str) -> dict[str, str]:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    assert library, "`make test` installs it: apt-get install faketime"
    return {"LD_PRELOAD": str(library), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}


def no_such_name(scene: Scene) -> SidecarProcess:
    return renew(scene.begin(COMPASS_CONNECTOR_URL="https://does-not-exist.invalid/connector/graphql"))


def subject_refused(scene: Scene) -> SidecarProcess:
    sidecar = scene.begin()
    scene.emulator.fault("csr-invalid-common-name@sign")
    return renew(sidecar)


def proxy(scene: Scene, made: Any) -> SidecarProcess:
    found = scene.stack.enter_context(made)
    return renew(scene.begin(COMPASS_CONNECTOR_PROXY=f"http://me:hunter2@127.0.0.1:{found.port}"))


def proxy_forbids(scene: Scene) -> SidecarProcess:
    return proxy(scene, ConnectProxy(refusal=reply(status=403)))


def proxy_wants_a_password(scene: Scene) -> SidecarProcess:
    return proxy(scene, ConnectProxy(refusal=reply(status=407)))


def proxy_hangs(scene: Scene) -> SidecarProcess:
    scene.environ["COMPASS_CONNECTOR_TIMEOUT"] = "2s"
    return proxy(scene, SilentListener())


def proxy_gone(scene: Scene) -> SidecarProcess:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return renew(scene.begin(COMPASS_CONNECTOR_PROXY=f"http://127.0.0.1:{port}"))


CAUSES: dict[Callable[[Scene], SidecarProcess], Words] = {
    down: Words(
        "connection",
        check=("Connection refused: nothing listens there: it is down, or its URL has a wrong host or port",),
        error=("nothing listens there: it is down",),
        unchecked=("TLS", "Connector", "clock"),
    ),
    wrong_ca_file: Words(
        "TLS",
        check=("is signed by none of the authorities in COMPASS_CONNECTOR_CA_FILE", "other-ca.pem"),
        error=("is signed by none of the authorities in COMPASS_CONNECTOR_CA_FILE", "other-ca.pem"),
        unchecked=("Connector",),
    ),
    no_ca_file: Words(
        "TLS",
        check=("COMPASS_CONNECTOR_CA_FILE", "ca.pem cannot be used: it is not PEM"),
        error=("COMPASS_CONNECTOR_CA_FILE", "ca.pem cannot be used: it is not PEM"),
        reasons=("connector-ca-unusable",),
        unchecked=("connection", "Connector"),
    ),
    revoked: Words(
        "Connector",
        check=("did not recognise", "certificate may be revoked", "only a new one-time token helps"),
        error=("did not recognise", "certificate may be revoked", "only a new one-time token helps"),
    ),
    expired: Words(
        "credential",
        check=("expired at 20", "request a one-time token in Compass, then `compass-sidecar connect"),
        error=("regards our certificate as expired", "only a new one-time token helps"),
        reasons=("credential-expired",),
    ),
    store_full: Words(
        "store",
        check=("is full (no space left on device)", "make room on its volume, or make that larger"),
        error=("cannot be stored in ", "no space left on device; make room on its volume"),
    ),
    files_may_not_grow: Words(
        "store",
        check=("cannot be written (file too large)", "ulimit -f"),
        error=("cannot be stored in ", "file too large; raise the limit on the size of files (ulimit -f)"),
    ),
    clock_ahead: Words(
        "clock",
        check=(" ahead of the Connector's", "set the clock of this machine (NTP)"),
        reasons=("clock-skew",),
    ),
    clock_behind: Words(
        "TLS",
        check=("certificate is not yet valid: this machine's clock says 20", "else set the clock"),
        error=("certificate is not yet valid: this machine's clock says 20", "else set the clock"),
    ),
    no_such_name: Words(
        "name resolution",
        check=(
            "no answer from does-not-exist.invalid: its name cannot be resolved",
            "DNS of this machine or pod",
        ),
        error=(
            "no answer from does-not-exist.invalid: its name cannot be resolved",
            "DNS of this machine or pod",
        ),
        unchecked=("connection", "TLS", "Connector"),
    ),
    subject_refused: Words(
        "last renewal",
        check=("connector-rejected", "it rejected the subject that it had assigned"),
        error=("it rejected the subject that it had assigned", "contact the Compass operator"),
    ),
    proxy_forbids: Words(
        "proxy",
        check=("the proxy answered 403", "it does not allow this host", "NO_PROXY"),
        error=("the proxy answered 403", "it does not allow this host", "NO_PROXY"),
        unchecked=("connection", "TLS", "Connector"),
    ),
    proxy_wants_a_password: Words(
        "proxy",
        check=("the proxy answered 407", "it does not accept the user name and the password"),
        error=("the proxy answered 407", "it does not accept the user name and the password"),
    ),
    proxy_hangs: Words(
        "proxy",
        check=("within 2 s: the proxy accepted the connection and sent nothing",),
        error=("within 2 s: the proxy accepted the connection and sent nothing",),
    ),
    proxy_gone: Words(
        "proxy",
        check=("no answer from the proxy 127.0.0.1:", "Connection refused"),
        error=("no answer from the proxy 127.0.0.1:", "Connection refused"),
    ),
}


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_the_cause_is_told_in_plain_words(scene: Scene, cause: Callable[[Scene], SidecarProcess]) -> None:
    sidecar, words = cause(scene), CAUSES[cause]
    status = sidecar.status()
    assert set(words.reasons) <= set(status["reasons"])
    if words.error:
        detail = status["renewal"]["last_error"]["detail"]
        assert all(part in detail for part in words.error), detail
    done = sidecar.command("check", "--json")
    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    found = checks[words.line]
    assert (done.returncode, found["outcome"]) == (1, "failed"), done.stdout
    assert all(part in found["detail"] for part in words.check), found["detail"]
    assert {checks[name]["outcome"] for name in words.unchecked} <= {"not-checked"}
    assert "hunter2" not in done.stdout + done.stderr + json.dumps(status)


def test_status_on_the_command_line_says_reasons_and_the_last_error(scene: Scene) -> None:
    sidecar = down(scene)
    for _ in range(2):
        renew(sidecar)
    done = sidecar.command("status")
    assert done.returncode == 1
    assert "reasons      renewal-failing: Three or more attempts to renew failed in a row." in done.stdout
    assert "last error   connector-unavailable: no answer from 127.0.0.1:" in done.stdout
    assert "nothing listens there" in done.stdout
