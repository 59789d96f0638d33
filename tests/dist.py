"""`make dist-test`: wheel and sdist are whole, and run where nothing else of ours is.

Not a part of the suite: it makes two environments.
"""

import email
import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from packaging.metadata import Metadata

from compass_sidecar import __version__
from tests.support.processes import free_port, wait_until

ROOT = Path(__file__).parents[1]
NAME = "compass_sidecar"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from what is committed or would be: nothing that lies about gets in."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    names = run("git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard").split("\0")
    for name in filter(lambda each: each and (ROOT / each).is_file(), names):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    uv, python = Path(sys.executable).with_name("uv"), sys.executable
    run(str(uv), "build", "--quiet", "--no-build-isolation", "--python", python, "-o", str(made), str(source))
    assert {path.name for path in made.iterdir()} - {".gitignore"} == {
        f"{NAME}-{__version__}-py3-none-any.whl",
        f"{NAME}-{__version__}.tar.gz",
    }
    return made


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def wheel_names(dist: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sdist_names(dist: Path) -> set[str]:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_metadata_is_valid_and_says_what_it_is(dist: Path) -> None:
    written = wheel_names(dist)[f"{NAME}-{__version__}.dist-info/METADATA"]
    metadata = Metadata.from_email(written, validate=True)
    assert (metadata.name, str(metadata.version)) == ("compass-sidecar", __version__)
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text()
    assert metadata.license_expression == "Apache-2.0"
    assert str(metadata.requires_python) == ">=3.11"
    assert email.message_from_bytes(written)["License-File"] == "LICENSE"


def test_the_wheel_has_the_packages_with_their_data_and_nothing_else(dist: Path) -> None:
    names = wheel_names(dist).keys()
    assert {name.split("/")[0] for name in names} == {
        "compass_sidecar",
        "compass_emulator",
        f"{NAME}-{__version__}.dist-info",
    }
    tracked = run("git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "app", "emulator").split()
    folders = {"app": "compass_sidecar", "emulator": "compass_emulator"}
    renamed = {"/".join((folders[name.partition("/")[0]], name.partition("/")[2])) for name in tracked}
    assert {name for name in names if "dist-info" not in name} == renamed


def test_the_sdist_has_the_sources_with_their_tests_and_locks(dist: Path) -> None:
    wanted = {"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "Makefile", "requirements.lock"}
    wanted |= {"tests/e2e/test_start.py", "docs/kubernetes.md", "deploy/demo.py", "pyproject.toml"}
    assert wanted <= sdist_names(dist)
    assert not [name for name in sdist_names(dist) if "__pycache__" in name or name.startswith(".venv")]


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"])
def installed(
    request: pytest.FixtureRequest, dist: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The commands of an environment in which only this is installed, with its locked dependencies."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=True)
    pip = (str(place / "bin/pip"), "install", "--quiet", "--disable-pip-version-check")
    locks = ("-r", str(ROOT / "requirements-emulator.lock"), "-r", str(ROOT / "requirements-build.lock"))
    run(*pip, "--require-hashes", *locks)
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", str(next(dist.glob(request.param))))
    return place / "bin"


def test_what_is_installed_renews_a_certificate(installed: Path, tmp_path: Path) -> None:
    run(str(installed / "pip"), "check")
    script = "import importlib.metadata as m; print(m.version('compass-sidecar'))"
    assert run(str(installed / "python"), "-c", script, cwd=tmp_path).strip() == __version__
    port = str(free_port())
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("COMPASS_", "PYTHON"))}
    connector, emulator = tmp_path / "connector", str(installed / "compass-emulator")
    ports = ("--token-port", "0", "--mtls-port", "0", "--control-port", "0", "--quiet")
    running = [subprocess.Popen([emulator, "--dir", str(connector), *ports], cwd=tmp_path, env=ours)]
    try:
        wait_until((connector / "endpoints.json").exists, "the emulator's start")
        endpoints = json.loads((connector / "endpoints.json").read_text())
        environment = ours | {
            "COMPASS_CONNECTOR_URL": endpoints["connector_url"],
            "COMPASS_CONNECTOR_CA_FILE": endpoints["ca_file"],
            "COMPASS_CLIENT_CERTIFICATE_FILE": endpoints["client_certificate_file"],
            "COMPASS_CLIENT_KEY_FILE": endpoints["client_key_file"],
            "COMPASS_STORE_DIR": str(tmp_path / "store"),
            "COMPASS_PORT": port,
        }
        running.append(subprocess.Popen([str(installed / "compass-sidecar")], cwd=tmp_path, env=environment))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200, "readiness")
            assert client.get("/status").json()["version"] == __version__
            answer = subprocess.run(
                [installed / "compass-sidecar", "renew", "--json"],
                env=environment,
                capture_output=True,
                check=True,
                timeout=60,
            )
            assert json.loads(answer.stdout)["renewed"] is True
    finally:
        for process in reversed(running):
            process.terminate()
            assert process.wait(10) == 0
