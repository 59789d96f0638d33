"""Every block of docs/consumers.md is run as it stands there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.support.processes import ROOT, EmulatorProcess, SidecarProcess, free_port, wait_until

TOKEN = "sixteen-characters-and-more"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
RECIPES = dict(
    re.findall(
        r"^## (.+?)$.*?^```\w+\n(.*?)^```$",
        (ROOT / "docs" / "consumers.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)


def recipe(beginning: str) -> str:
    (text,) = [text for title, text in RECIPES.items() if title.startswith(beginning)]
    return text


@pytest.fixture
def sidecar(start: Start) -> SidecarProcess:
    return start(api_token=TOKEN, expose_private_key="true").ready()


@pytest.fixture
def environment(sidecar: SidecarProcess, emulator: EmulatorProcess, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SIDECAR": f"http://localhost:{sidecar.port}",
        "PUBLISHED": str(tmp_path / "published"),
        "TARGET": emulator.endpoints["connector_url"],
        "TARGET_CA": emulator.endpoints["ca_file"],
        "COMPASS_API_TOKEN": TOKEN,
    }


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(text: str, environment: dict[str, str], folder: Path) -> str:
    return run(["sh", "-euc", text], environment, folder)


def test_every_recipe_is_run() -> None:
    assert len(RECIPES) == 6


def test_curl_fetches_the_chain_when_it_has_changed(
    sidecar: SidecarProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    text = recipe("curl: the chain")
    first = shell(text, environment, tmp_path)
    before = (tmp_path / "chain.pem").read_bytes()
    assert first.startswith("notAfter=")
    shell(text, environment, tmp_path)
    assert (tmp_path / "chain.pem").read_bytes() == before
    assert sidecar.client.post("/renew", headers=BEARER).status_code == 200
    shell(text, environment, tmp_path)
    assert (
        (tmp_path / "chain.pem").read_bytes()
        == sidecar.client.get("/certificate/chain.pem").content
        != before
    )


def test_curl_calls_with_the_published_pair(environment: dict[str, str], tmp_path: Path) -> None:
    assert '"data"' in shell(recipe("curl: a call"), environment, tmp_path)


def test_python_follows_the_rotation(
    sidecar: SidecarProcess, emulator: EmulatorProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    more = """
import sys, time
first = following.client
print("ready", flush=True)
while following.client is first:
    time.sleep(0.05)
print(following.client.post(os.environ["TARGET"], json={"query": "{ __typename }"}).status_code)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", recipe("Python") + more],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert '"data"' in process.stdout.readline()
    assert process.stdout.readline() == "ready\n"
    renewed = sidecar.client.post("/renew", headers=BEARER).json()
    assert process.communicate(timeout=30)[0].strip() == "200"
    last = emulator.control("GET", "/")["requests"][-1]
    assert last["peer_fingerprint_sha256"] == renewed["certificate"]["fingerprint_sha256"]


@pytest.fixture
def nginx(
    environment: dict[str, str], emulator: EmulatorProcess, tmp_path: Path
) -> Iterator[tuple[str, list[str]]]:
    port, target = free_port(), urlsplit(emulator.endpoints["connector_url"])
    values = {**environment, "PORT": str(port), "TARGET_ORIGIN": f"https://{target.netloc}"}
    server = Template(recipe("nginx")).safe_substitute(values)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log; daemon off; user root;\n"
        f"events {{}}\nhttp {{ access_log off; client_body_temp_path {tmp_path}/body;\n{server} }}\n"
    )
    command = ["nginx", "-e", f"{tmp_path}/error.log", "-c", str(configuration)]
    process = subprocess.Popen(command, cwd=tmp_path)
    yield f"http://127.0.0.1:{port}{target.path}", command
    process.terminate()
    process.wait(10)


def test_nginx_adds_the_client_certificate_and_takes_the_new_one_on_reload(
    nginx: tuple[str, list[str]], sidecar: SidecarProcess, emulator: EmulatorProcess
) -> None:
    url, command = nginx

    def call() -> str:
        answer = httpx.post(url, json={"query": "{ __typename }"}, trust_env=False)
        assert answer.status_code == 200, answer.text
        seen: str = emulator.control("GET", "/")["requests"][-1]["peer_fingerprint_sha256"]
        return seen

    wait_until(lambda: httpx.post(url, json={}, trust_env=False), "nginx's start")
    assert call() == sidecar.fingerprint()
    assert sidecar.client.post("/renew", headers=BEARER).status_code == 200
    subprocess.run([*command, "-s", "reload"], check=True, timeout=10)
    wait_until(lambda: call() == sidecar.fingerprint(), "the reload")


def test_java_opens_the_bundle(environment: dict[str, str], tmp_path: Path) -> None:
    listed = shell(recipe("Java"), environment, tmp_path)
    assert "PrivateKeyEntry" in listed


def test_openssl_opens_the_bundle(environment: dict[str, str], tmp_path: Path) -> None:
    first_half = recipe("Java").split("keytool")[0]
    shell(first_half, environment, tmp_path)
    command = ["openssl", "pkcs12", "-in", "bundle.p12", "-passin", "pass:changeit", "-nodes", "-info"]
    shown = run(command, environment, tmp_path)
    assert "BEGIN PRIVATE KEY" in shown


def test_node_calls_with_the_published_pair(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "call.js").write_text(recipe("Node"))
    assert '"data"' in run(["node", "call.js"], environment, tmp_path)
