"""Containers of our images, run by crun, the low-level runtime under podman: real namespaces, users,
capabilities and a read-only root. As root, with buildah and iproute2, and without an engine.

What an engine adds is done here as Docker does it: names that resolve, volumes that take over the owner
of what the image has at their place, and health checks. There are no resource limits.
"""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

PATIENCE = 60.0
# crun 1.8 refuses a machine that has both versions of cgroups, although it is told to use none.
_CRUN = 'mount -t cgroup2 none /sys/fs/cgroup && exec crun --root "$0" --cgroup-manager=disabled "$@"'
_NETWORK = "10.213.87"


def run(*command: object) -> str:
    """What it prints. AssertionError with what it complains about, if it fails."""
    words = [str(each) for each in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.stderr or done.stdout}")
    return done.stdout


class Image:
    """An image of the local storage, mounted; `close` when no container uses it any more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._container = run("buildah", "from", "--pull-never", name).strip()
        self.root = Path(run("buildah", "mount", self._container).strip())
        content = json.loads(run("buildah", "inspect", "--type", "image", name))
        self.config: dict[str, Any] = content["Docker"]["config"]

    @cached_property
    def environment(self) -> dict[str, str]:
        return dict(each.split("=", 1) for each in self.config["Env"])

    def close(self) -> None:
        run("buildah", "rm", self._container)


class Network:
    """A bridge; each member is a network namespace of its own on it."""

    def __init__(self) -> None:
        self._hub = f"compass{os.getpid()}"
        self.addresses: dict[str, str] = {}
        run("ip", "netns", "add", self._hub)
        run("ip", "-n", self._hub, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self._hub, "link", "set", "bridge", "up")

    def join(self, name: str) -> None:
        space, number = self.space(name), len(self.addresses) + 1
        self.addresses[name] = f"{_NETWORK}.{number}"
        run("ip", "netns", "add", space)
        peer = ("peer", "name", "eth0", "netns", space)
        run("ip", "-n", self._hub, "link", "add", f"port{number}", "type", "veth", *peer)
        run("ip", "-n", self._hub, "link", "set", f"port{number}", "master", "bridge", "up")
        run("ip", "-n", space, "address", "add", f"{_NETWORK}.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", space, "link", "set", device, "up")

    def space(self, name: str) -> str:
        return f"{self._hub}-{name}"

    def curl(self, name: str, *arguments: object) -> str:
        """From inside the member's namespace, and with this machine's curl."""
        return run("ip", "netns", "exec", self.space(name), "curl", "-sS", "-m", "30", *arguments)

    def close(self) -> None:
        for name in [*(self.space(each) for each in self.addresses), self._hub]:
            run("ip", "netns", "delete", name)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a container is to be run. `mounts` and `tmpfs` go by their place in the container."""

    image: Image
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: Sequence[str] | None = None
    command: Sequence[str] = ()
    user: str | None = None
    groups: Sequence[int] = ()
    mounts: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    tmpfs: Mapping[str, str] = field(default_factory=lambda: {"/tmp": "mode=1777"})
    system_calls: Sequence[str] | None = None  # those that are not refused; None: all


class Container:
    """One that runs: read-only root, no capabilities, no new privileges, process 1 in its own namespace.

    It is the member of the network that is called like it, or one of several of the one named `member`.
    """

    def __init__(
        self, name: str, wish: Wish, network: Network, folder: Path, *, member: str | None = None
    ) -> None:
        self.name = network.space(name)
        self.wish = wish
        self._bundle = folder / name
        self._state = folder / "crun"
        self._bundle.mkdir()
        hosts = self._bundle / "hosts"
        hosts.write_text(
            "127.0.0.1 localhost\n::1 localhost\n"
            + "".join(f"{address} {each}\n" for each, address in network.addresses.items())
        )
        self._config = self._render(member or name, network, hosts)
        (self._bundle / "config.json").write_text(json.dumps(self._config))
        self.log = self._bundle / "log"
        with self.log.open("wb") as log:
            command = self._crun("run", "--bundle", str(self._bundle), self.name)
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _crun(self, *arguments: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", _CRUN, str(self._state), *arguments]

    def _render(self, name: str, network: Network, hosts: Path) -> dict[str, Any]:
        config, wish = self.wish.image.config, self.wish
        entrypoint = wish.entrypoint if wish.entrypoint is not None else config["Entrypoint"]
        uid, _, gid = (wish.user or config["User"]).partition(":")
        environment = {**wish.image.environment, "HOME": "/", **wish.environment}
        mounts = [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "mode=755"),
            _mount("/etc/hosts", "bind", str(hosts), "bind", "ro"),
            *(_mount(at, "tmpfs", "tmpfs", "nosuid", "nodev", text) for at, text in wish.tmpfs.items()),
            *(_mount(at, "bind", str(path), "bind", mode) for at, (path, mode) in self._volumes().items()),
        ]
        spaces = [{"type": each} for each in ("pid", "mount", "ipc", "uts")]
        path = f"/run/netns/{network.space(name)}"
        nothing = {each: [] for each in ("bounding", "effective", "inheritable", "permitted", "ambient")}
        return {
            "ociVersion": "1.0.2",
            "hostname": name,
            "root": {"path": str(wish.image.root), "readonly": True},
            "process": {
                "args": [*entrypoint, *wish.command],
                "cwd": config["WorkingDir"] or "/",
                "env": [f"{key}={value}" for key, value in environment.items()],
                "user": {"uid": int(uid), "gid": int(gid or 0), "additionalGids": list(wish.groups)},
                "capabilities": nothing,
                "noNewPrivileges": True,
            },
            "mounts": mounts,
            "linux": {
                "namespaces": [*spaces, {"type": "network", "path": path}],
                "readonlyPaths": ["/proc/sys"],
                **({} if wish.system_calls is None else {"seccomp": _filter(wish.system_calls)}),
            },
        }

    def _volumes(self) -> dict[str, tuple[Path, str]]:
        """What was asked for, and anonymous volumes for what the image declares besides."""
        given = {**self.wish.mounts}
        for at in self.wish.image.config.get("Volumes") or {}:
            if at not in given and at not in self.wish.tmpfs:
                given[at] = (volume(self._bundle / at.replace("/", "_"), self.wish.image, at), "rw")
        return given

    def execute(self, *arguments: str, patience: float = PATIENCE) -> "subprocess.CompletedProcess[str]":
        """`docker exec`: with the container's user, environment and no capabilities."""
        process = {**self._config["process"], "args": list(arguments)}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(json.dumps(process))
            file.flush()
            command = self._crun("exec", "--process", file.name, self.name)
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience)

    def await_health(self, test: Sequence[str] | None = None, *, patience: float = PATIENCE) -> None:
        """Until the health check, of the image or another one, says yes."""
        kind, *words = test or self.wish.image.config["Healthcheck"]["Test"]
        assert kind == "CMD", "a health check with a shell"
        end = time.monotonic() + patience
        while (done := self.execute(*words)).returncode != 0:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"not healthy: {done.stderr}{self.log.read_text()}"
            time.sleep(0.3)

    def await_start(self) -> None:
        """Until process 1 handles SIGTERM."""
        end = time.monotonic() + PATIENCE
        while not self._handles_sigterm():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def _handles_sigterm(self) -> bool:
        try:
            caught = re.search(r"SigCgt:\t(\w+)", self.proc("status"))
        except (AssertionError, OSError, KeyError):
            return False  # crun is still at it
        return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

    def proc(self, name: str) -> str:
        """A file of process 1 in /proc, as this machine sees it."""
        state = json.loads(run(*self._crun("state", self.name)))
        return Path(f"/proc/{state['pid']}", name).read_text()

    def stop(self, name: str = "TERM") -> tuple[int, float]:
        """The exit status and the seconds until then."""
        began = time.monotonic()
        if self.process.poll() is None:
            run(*self._crun("kill", self.name, name))
        return self.process.wait(PATIENCE), time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop("KILL")


def volume(path: Path, image: Image, at: str) -> Path:
    """An empty volume, which takes over the owner and the mode of what the image has at its place."""
    if path.exists():
        return path
    path.mkdir()
    there = image.root / at.lstrip("/")
    if there.is_dir():
        shutil.copystat(there, path)
        os.chown(path, there.stat().st_uid, there.stat().st_gid)
    return path


def _mount(at: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    words = [word for option in options for word in option.split(",") if word]
    return {"destination": at, "type": kind, "source": source, "options": words}


def _filter(names: Sequence[str]) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_ALLOW"}],
    }
