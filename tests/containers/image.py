"""`make image-test`: the images, run as they are meant to be: by a number, on a read-only root, without
capabilities, without a way to new privileges, and without a shell.

Not a part of the suite: it needs root and images.
"""

import fcntl
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compass_sidecar import __version__
from tests.support.containers import Container, Image, Network, Wish, run

ROOT = Path(__file__).parents[2]
UID = 65532
LIMIT = 90_000_000  # bytes that the application may add to its base
STORE, PUBLISHED = "/var/lib/compass-sidecar", "/run/compass-sidecar"
SHELLS = {f"/bin/{name}": (Path("/dev/null"), "ro") for name in ("sh", "bash", "dash")}
IMPORTING = {
    "COMPASS_CONNECTOR_URL": "https://emulator:8444/connector/graphql",
    "COMPASS_CONNECTOR_CA_FILE": "/emulator/server-ca.crt",
    "COMPASS_CLIENT_CERTIFICATE_FILE": "/emulator/client.crt",
    "COMPASS_CLIENT_KEY_FILE": "/emulator/client.key",
    "COMPASS_PUBLISH_DIR": PUBLISHED,
    "COMPASS_HOST": "0.0.0.0",
    "COMPASS_RENEWAL_MIN_INTERVAL": "0s",
}


class Stage:
    """Both images, a network, and an emulator on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.containers: list[Container] = []
        self.sidecar = Image("localhost/compass-sidecar:latest")
        self.emulator = Image("localhost/compass-emulator:latest")
        self.network = Network()
        for name in ("emulator", "sidecar"):
            self.network.join(name)
        options = ("--host", "0.0.0.0", "--server-name", "emulator", "--advertise", "emulator")
        self.state = folder / "state"
        self.state.mkdir()
        os.chown(self.state, UID, UID)
        wish = Wish(image=self.emulator, command=options, mounts={"/state": (self.state, "rw"), **SHELLS})
        self.connector = self.start("emulator", wish)
        self.connector.await_health()

    def start(self, name: str, wish: Wish) -> Container:
        """Instead of the one of that name before."""
        for container in self.containers:
            if container.name == self.network.space(name):
                container.close()
        folder = self.folder / str(len(self.containers))
        folder.mkdir()
        container = Container(name, wish, self.network, folder)
        self.containers.append(container)
        return container

    def close(self) -> None:
        for container in reversed(self.containers):
            container.close()
        self.network.close()
        self.sidecar.close()
        self.emulator.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("image")
    folder.chmod(0o755)
    made = Stage(folder)
    yield made
    made.close()


@pytest.fixture
def sidecar(stage: Stage) -> Iterator[Container]:
    container = start_sidecar(stage)
    container.await_health(["CMD", "compass-sidecar", "healthcheck", "--ready"])
    yield container
    container.close()


def start_sidecar(stage: Stage, *command: str, **options: Any) -> Container:
    mounts = {"/emulator": (stage.state, "ro"), **SHELLS, **options.pop("mounts", {})}
    environment = IMPORTING | options.pop("environment", {})
    wish = Wish(image=stage.sidecar, command=command, environment=environment, mounts=mounts, **options)
    return stage.start("sidecar", wish)


def call(stage: Stage, path: str, *options: object) -> Any:
    return json.loads(stage.network.curl("sidecar", f"http://localhost:8080{path}", *options))


def process_status(container: Container) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in container.proc("status").splitlines() if ":\t" in line)


# --- what it may ---------------------------------------------------------------------------------


def test_it_runs_as_a_number_that_may_nothing(stage: Stage, sidecar: Container) -> None:
    for container in (sidecar, stage.connector):
        status = process_status(container)
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(UID)}
        assert status["NSpid"].split()[-1] == "1"
        assert status["NoNewPrivs"] == "1"
        sets = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert not any(sets.values()), sets


def test_it_can_write_to_its_volumes_and_tmp_only(sidecar: Container) -> None:
    script = (
        "import os, errno, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try: os.close(os.open(path + '/probe', os.O_CREAT | os.O_WRONLY)); print(path, 'written')\n"
        "    except OSError as error: print(path, errno.errorcode[error.errno])\n"
    )
    said = sidecar.execute("python", "-c", script, "/", "/opt/sidecar", "/etc", "/var", STORE, "/tmp")
    assert said.stdout.split("\n")[:-1] == [
        *("/ EROFS", "/opt/sidecar EROFS", "/etc EROFS", "/var EROFS"),
        *(f"{STORE} written", "/tmp written"),
    ]


def test_there_is_nothing_to_install_or_compile_with(stage: Stage, sidecar: Container) -> None:
    for python in ("python", "/usr/bin/python3"):
        for module in ("pip", "setuptools", "ensurepip"):
            assert sidecar.execute(python, "-c", f"import {module}").returncode == 1, (python, module)
    names = {path.name for path in files(stage.sidecar.root)}
    assert names.isdisjoint({"cc", "gcc", "c++", "ld", "make", "pip", "pip3"})
    assert not [name for name in names if re.match(r"(pip|setuptools)-.*\.whl", name)]


def test_a_shell_is_not_there_in_these_tests(sidecar: Container) -> None:
    said = sidecar.execute("/bin/sh", "-c", "echo hello")
    assert said.returncode != 0
    assert "hello" not in said.stdout


# --- what it does --------------------------------------------------------------------------------


def test_it_renews_publishes_and_answers(stage: Stage, sidecar: Container) -> None:
    before = call(stage, "/status")["certificate"]["fingerprint_sha256"]
    after = call(stage, "/renew", "-X", "POST")
    assert after["renewed"] is True
    assert after["certificate"]["fingerprint_sha256"] != before
    said = sidecar.execute("compass-sidecar", "status", "--json")
    assert json.loads(said.stdout)["state"] == "connected", said.stderr
    link = sidecar.execute("python", "-c", f"print(open('{PUBLISHED}/tls.crt').read(), end='')")
    assert link.stdout == stage.network.curl("sidecar", "http://localhost:8080/certificate/chain.pem")


def test_its_health_check_follows_its_health(stage: Stage) -> None:
    sidecar = start_sidecar(stage)
    sidecar.await_health()
    test = stage.sidecar.config["Healthcheck"]["Test"]
    assert test == ["CMD", "compass-sidecar", "healthcheck"]
    assert sidecar.execute(*test[1:], "--url", "http://127.0.0.1:9").returncode == 1
    sidecar.close()


def test_it_keeps_its_credential_in_the_volume(stage: Stage, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, UID, UID)
    seen = []
    for _ in range(2):
        sidecar = start_sidecar(stage, mounts={STORE: (store, "rw")})
        sidecar.await_health(["CMD", "compass-sidecar", "healthcheck", "--ready"])
        seen.append(call(stage, "/status")["certificate"]["fingerprint_sha256"])
        if len(seen) == 1:
            seen.append(call(stage, "/renew", "-X", "POST")["certificate"]["fingerprint_sha256"])
        sidecar.stop()
    imported, renewed, after_restart = seen
    assert imported != renewed == after_restart


def test_it_works_on_volumes_as_kubernetes_makes_them(stage: Stage, tmp_path: Path) -> None:
    """Owned by root, writable for fsGroup, with the setgid bit."""
    group = 65533
    mounts = {}
    for at in (STORE, PUBLISHED):
        path = tmp_path / Path(at).parts[1]
        path.mkdir()
        os.chown(path, 0, group)
        path.chmod(0o2775)
        mounts[at] = (path, "rw")
    environment = {"COMPASS_PUBLISH_GROUP": str(group)}
    sidecar = start_sidecar(stage, mounts=mounts, environment=environment, groups=[group])
    sidecar.await_health(["CMD", "compass-sidecar", "healthcheck", "--ready"])
    key = (mounts[PUBLISHED][0] / "tls.key").stat()
    assert (key.st_uid, key.st_gid, key.st_mode & 0o777) == (UID, group, 0o640)
    assert (mounts[STORE][0] / "current/tls.key").stat().st_mode & 0o777 == 0o600
    sidecar.close()


def test_the_tmpfs_of_the_compose_file_can_be_its_store(stage: Stage) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    found = re.search(rf'# +tmpfs: \[.*"{STORE}:([a-z0-9=,]+)"', text)
    assert found is not None
    sidecar = start_sidecar(stage, tmpfs={"/tmp": "mode=1777", STORE: found[1]})
    sidecar.await_health(["CMD", "compass-sidecar", "healthcheck", "--ready"])
    sidecar.close()


def test_a_volume_of_another_owner_is_explained(stage: Stage, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o755)
    sidecar = start_sidecar(stage, mounts={STORE: (store, "rw")})
    assert sidecar.process.wait(30) == 2
    said = sidecar.log.read_text()
    assert "COMPASS_STORE_DIR" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("refused", [set(), {"setpriority", "chown", "fchown", "fchownat"}])
def test_it_renews_under_the_system_call_filter_of_the_systemd_unit(stage: Stage, refused: set[str]) -> None:
    """And under a stricter one, as long as nothing needs a group."""
    allowed = sorted(system_calls(ROOT / "deploy/systemd/compass-sidecar.service") - refused)
    group = {} if refused else {"COMPASS_PUBLISH_GROUP": "65533"}
    sidecar = start_sidecar(stage, environment=group, groups=[65533], system_calls=allowed)
    sidecar.await_health(["CMD", "compass-sidecar", "healthcheck", "--ready"])
    assert "Seccomp:\t2" in sidecar.proc("status")
    assert call(stage, "/renew", "-X", "POST")["renewed"] is True
    sidecar.close()


def system_calls(unit: Path) -> set[str]:
    """What `SystemCallFilter` allows: a list, and further lines that add to it or take away."""
    allowed: set[str] = set()
    for words in re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE):
        named = set().union(*(expand(word) for word in words.removeprefix("~").split()))
        allowed = allowed - named if words.startswith("~") else allowed | named
    return allowed


def expand(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    lines = run("systemd-analyze", "syscall-filter", word).splitlines()[1:]
    return set().union(*(expand(line.strip()) for line in lines if line.strip() and "#" not in line))


# --- how it ends ---------------------------------------------------------------------------------


def test_sigterm_ends_it_within_five_seconds(stage: Stage, sidecar: Container) -> None:
    waiting = "http://localhost:8080/certificate/chain.pem?wait=60s"
    tag = stage.network.curl("sidecar", "-I", "http://localhost:8080/certificate/chain.pem")
    etag = re.search(r"(?i)^etag: (\S+)", tag, re.MULTILINE)
    assert etag is not None
    options = ("-o", "/dev/null", "-w", "%{http_code}", "-H", f"If-None-Match: {etag[1]}")
    waiter = run_in_background(stage.network.space("sidecar"), *options, waiting)
    status, seconds = sidecar.stop()
    report(f"SIGTERM: status {status} after {seconds:.2f} s")
    assert status == 0
    assert seconds < 5
    assert waiter.communicate(timeout=10)[0] == "304"


def test_sigterm_ends_it_while_it_waits_for_the_lock_of_its_store(stage: Stage, tmp_path: Path) -> None:
    """As process 1 it has no default action that would end it."""
    store = tmp_path / "store"
    store.mkdir()
    with (store / "lock").open("w") as lock:
        for path in (store, store / "lock"):
            os.chown(path, UID, UID)
        fcntl.flock(lock, fcntl.LOCK_EX)
        sidecar = start_sidecar(stage, mounts={STORE: (store, "rw")})
        sidecar.await_start()
        status, seconds = sidecar.stop()
    assert (status, seconds < 5) == (0, True), seconds


def test_sigterm_ends_the_emulator(stage: Stage) -> None:
    wish = Wish(image=stage.emulator, command=("--quiet",), mounts=SHELLS)
    emulator = stage.start("sidecar", wish)
    emulator.await_health()
    status, seconds = emulator.stop()
    assert (status, seconds < 5) == (0, True), seconds


# --- what it is made of --------------------------------------------------------------------------


def test_every_module_that_it_imports_is_compiled(stage: Stage) -> None:
    sidecar = start_sidecar(stage, environment={"PYTHONVERBOSE": "1"})
    sidecar.await_health(["CMD", "compass-sidecar", "healthcheck", "--ready"])
    call(stage, "/renew", "-X", "POST")
    sidecar.stop()
    loaded = re.findall(r"code object from '?([^'\s]+?)'?$", sidecar.log.read_text(), re.MULTILINE)
    assert len(loaded) > 300
    assert [path for path in loaded if not path.endswith(".pyc")] == []
    packages = next(stage.sidecar.root.glob("opt/sidecar/lib/python3*/site-packages"))
    sources = list(packages.rglob("*.py"))
    bare = [path for path in sources if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))]
    assert (len(sources) > 500, bare) == (True, [])


def test_the_image_says_what_it_is(stage: Stage) -> None:
    for image, title in ((stage.sidecar, "compass-sidecar"), (stage.emulator, "compass-emulator")):
        labels = image.config["Labels"]
        assert labels["org.opencontainers.image.title"] == title
        assert labels["org.opencontainers.image.version"] == __version__
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
        assert image.config["User"] == f"{UID}:{UID}"
    assert stage.sidecar.environment["COMPASS_STORE_DIR"] == STORE
    assert set(stage.sidecar.config["Volumes"]) == {STORE, PUBLISHED}
    for at in (STORE, PUBLISHED):
        there = (stage.sidecar.root / at.lstrip("/")).stat()
        assert (there.st_uid, there.st_gid) == (UID, UID)


def test_the_application_adds_less_than_ninety_megabytes(stage: Stage) -> None:
    base = Image(stage.sidecar.config["Labels"]["org.opencontainers.image.base.name"])
    try:
        before = {path.relative_to(base.root): look(path) for path in files(base.root)}
    finally:
        base.close()
    after = {path.relative_to(stage.sidecar.root): look(path) for path in files(stage.sidecar.root)}
    added = sum(facts[0] for path, facts in after.items() if before.get(path) != facts)
    report(f"size: {added / 1e6:.1f} MB above a base of {sum(f[0] for f in before.values()) / 1e6:.1f} MB")
    assert 20_000_000 < added < LIMIT


def files(root: Path) -> Iterator[Path]:
    return (Path(folder, name) for folder, _, names in os.walk(root) for name in names)


def look(path: Path) -> tuple[int, int]:
    facts = path.lstat()
    return facts.st_size, int(facts.st_mtime)


def run_in_background(space: str, *arguments: str) -> Any:
    command = ["ip", "netns", "exec", space, "curl", "-sS", "-m", "60", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    return process


def report(line: str) -> None:
    print(f"\n  {line}")
