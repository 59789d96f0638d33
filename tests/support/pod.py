"""Runs the pod of the StatefulSet as kubelet would, with `Container` in place of a cluster.

Volumes are owned by root and by the pod's group, a Secret's files are behind a symlink that is swapped, and a
native sidecar holds the others back until its startup probe says yes. Limits are not enforced.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.containers import Container, Image, Network, Wish

Object = Mapping[str, Any]
_NAME = "pod"


class Secret:
    """The folder of a Secret volume; `put` is what kubelet does after a change."""

    def __init__(self, folder: Path, *, group: int, mode: int) -> None:
        self.folder, self._group, self._mode = folder, group, mode
        folder.mkdir(mode=0o755)
        self._turn = 0

    def put(self, files: Mapping[str, bytes]) -> None:
        self._turn += 1
        data = self.folder / f"..{self._turn}"
        data.mkdir(mode=0o755)
        for name, content in files.items():
            (data / name).write_bytes(content)
            os.chown(data / name, 0, self._group)
            (data / name).chmod(self._mode)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        (self.folder / "..next").symlink_to(data.name)
        (self.folder / "..next").rename(self.folder / "..data")


class Pod:
    """One pod of the StatefulSet in `file`, with these images and these changes of the variables."""

    def __init__(
        self,
        file: Path,
        folder: Path,
        network: Network,
        *,
        images: Mapping[str, Image],
        more: Mapping[str, str],
        extra: Mapping[str, Path],
        application: tuple[str, ...],
    ) -> None:
        stateful_set: Object = yaml.safe_load(file.read_text())["spec"]
        self._spec: Object = stateful_set["template"]["spec"]
        self._claims = [each["metadata"]["name"] for each in stateful_set["volumeClaimTemplates"]]
        self._group: int = self._spec["securityContext"]["fsGroup"]
        self._images, self._more, self._extra, self._application = images, more, extra, application
        self._folder, self._network = folder, network
        self.secrets: dict[str, Secret] = {}
        self._volumes = {each["name"]: self._volume(each) for each in self._spec["volumes"]}
        self._volumes |= {name: self._folder_for_group(name) for name in self._claims}
        self.sidecar, self.neighbour = self._spec["initContainers"][0], self._spec["containers"][0]
        self.containers: dict[str, Container] = {}
        self._starts = 0

    def _volume(self, volume: Object) -> Path:
        if "secret" not in volume:
            return self._folder_for_group(volume["name"])
        secret = Secret(
            self._folder / volume["name"], group=self._group, mode=volume["secret"]["defaultMode"]
        )
        self.secrets[volume["secret"]["secretName"]] = secret
        return secret.folder

    def _folder_for_group(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir()
        os.chown(path, 0, self._group)
        path.chmod(0o2777)
        return path

    def start(self, container: Object) -> Container:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        environment = {each["name"]: each["value"] for each in container.get("env", ())}
        is_sidecar = container is self.sidecar
        wish = Wish(
            image=self._images[container["image"]],
            environment={**environment, **(self._more if is_sidecar else {})},
            entrypoint=None if is_sidecar else self._application,
            user=f"{context['runAsUser']}:{context['runAsGroup']}",
            groups=[self._group],
            mounts={
                **{
                    each["mountPath"]: (
                        self._volumes[each["name"]],
                        "ro" if each.get("readOnly") else "rw",
                    )
                    for each in container["volumeMounts"]
                },
                **{at: (path, "ro") for at, path in self._extra.items()},
            },
            tmpfs={},
        )
        self._starts += 1
        folder = self._folder / f"start{self._starts}"
        folder.mkdir()
        started = Container(container["name"], wish, self._network, folder, member=_NAME)
        self.containers[container["name"]] = started
        return started

    def probe(self, name: str) -> bool:
        """One of the sidecar's, as kubelet asks: at the pod's address."""
        get = self.sidecar[name]["httpGet"]
        port = {each["name"]: each["containerPort"] for each in self.sidecar["ports"]}[get["port"]]
        url = f"http://{self._network.addresses[_NAME]}:{port}{get['path']}"
        code = ("-o", "/dev/null", "-w", "%{http_code}")
        try:
            return self._network.curl("node", *code, url) == "200"
        except AssertionError:
            return False

    def end(self) -> list[tuple[int, float]]:
        """As kubelet does: the application first, then its sidecar; and what is in memory is gone."""
        ends = [self.containers[each["name"]].stop() for each in (self.neighbour, self.sidecar)]
        for volume in self._spec["volumes"]:
            if "emptyDir" in volume:
                shutil.rmtree(self._volumes[volume["name"]])
                self._folder_for_group(volume["name"])
        return ends
