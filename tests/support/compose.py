"""Runs what docker-compose.yml says, with `Container` in place of an engine.

What this does not know stops it, so that nothing in the file goes unnoticed. It does not enforce resource
limits and publishes no ports: a port is reached from the namespace of its service.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.containers import PATIENCE, Container, Image, Network, Wish, volume

KNOWN = {
    *("build", "cap_drop", "command", "cpus", "depends_on", "entrypoint", "environment", "group_add"),
    *("healthcheck", "mem_limit", "pids_limit", "ports", "read_only", "restart", "secrets", "security_opt"),
    *("tmpfs", "user", "volumes"),
}


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


class Project:
    """`up` starts the services in the order of their dependencies and waits for what they wait for."""

    def __init__(self, file: Path, folder: Path) -> None:
        self._root, self._folder = file.parent, folder
        self._content = load(file)
        self.services: dict[str, dict[str, Any]] = self._content["services"]
        self._images: dict[str, Image] = {}
        self.containers: dict[str, Container] = {}
        self.network = Network()
        for name in self.services:
            self.network.join(name)

    def up(self) -> None:
        waiting = list(self.services)
        while waiting:
            ready = [name for name in waiting if self._dependencies(name).keys() <= self.containers.keys()]
            assert ready, f"{waiting} wait for each other"
            for name in ready:
                self._await(self._dependencies(name))
                wish = self.wish(name)
                self.containers[name] = Container(name, wish, self.network, self._folder)
                waiting.remove(name)

    def wish(self, name: str) -> Wish:
        service = self.services[name]
        assert service.keys() <= KNOWN, service.keys() - KNOWN
        # `Container` has no weaker way to run anything.
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        image = self._image(service["build"]["target"])
        return Wish(
            image=image,
            environment={key: str(value) for key, value in service.get("environment", {}).items()},
            entrypoint=service.get("entrypoint"),
            command=service.get("command", ()),
            user=service.get("user"),
            groups=[int(each) for each in service.get("group_add", ())],
            mounts={**self._volumes(service, image), **self._secrets(service)},
            tmpfs=dict(each.split(":", 1) for each in service.get("tmpfs", ())),
        )

    def _image(self, target: str) -> Image:
        if target not in self._images:
            self._images[target] = Image(f"localhost/compass-{target}:latest")
        return self._images[target]

    def _volumes(self, service: Mapping[str, Any], image: Image) -> dict[str, tuple[Path, str]]:
        mounts = {}
        for text in service.get("volumes", ()):
            source, at, mode = (*text.split(":"), "rw")[:3]
            if source.startswith("."):
                mounts[at] = ((self._root / source).resolve(strict=True), mode)
            else:
                assert source in self._content["volumes"]
                mounts[at] = (volume(self._folder / f"volume-{source}", image, at), mode)
        return mounts

    def _secrets(self, service: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
        files = {name: self._content["secrets"][name]["file"] for name in service.get("secrets", ())}
        return {
            f"/run/secrets/{name}": ((self._root / file).resolve(strict=True), "ro")
            for name, file in files.items()
        }

    def _dependencies(self, name: str) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = self.services[name].get("depends_on", {})
        return found

    def _await(self, dependencies: Mapping[str, Mapping[str, str]]) -> None:
        for name, dependency in dependencies.items():
            assert dependency == {"condition": "service_healthy"}
            test = self.services[name].get("healthcheck", {}).get("test")
            self.containers[name].await_health(test)

    def await_log(self, name: str, text: str, *, patience: float = PATIENCE) -> str:
        """The log of a service once it has this in it."""
        end = time.monotonic() + patience
        while text not in (log := self.containers[name].log.read_text()):
            assert self.containers[name].process.poll() is None, log
            assert time.monotonic() < end, f"{name} did not say {text!r}: {log}"
            time.sleep(0.2)
        return log

    def down(self) -> dict[str, tuple[int, float]]:
        """The exit status of each service, and how long it took."""
        return {name: self.containers[name].stop() for name in reversed(self.containers)}

    def close(self) -> None:
        for container in self.containers.values():
            container.close()
        self.network.close()
        for image in self._images.values():
            image.close()
