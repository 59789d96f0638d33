"""`make compose-test`: the services of docker-compose.yml, together, each in a network namespace of its own.

Not a part of the suite: it needs root and images.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("compose")
    folder.chmod(0o755)
    made = Project(ROOT / "docker-compose.yml", folder)
    try:
        made.up()
        yield made
    finally:
        made.close()


def call(project: Project, url: str, *options: str, seen_from: str = "sidecar") -> Any:
    return json.loads(project.network.curl(seen_from, url, *options))


def status_of(project: Project, url: str, *options: str, seen_from: str = "sidecar") -> str:
    code = ("-o", "/dev/null", "-w", "%{http_code}")
    return project.network.curl(seen_from, *code, *options, url)


def fingerprint(project: Project) -> str:
    text: str = call(project, "http://localhost:8080/status")["certificate"]["fingerprint_sha256"]
    return text


def test_the_consumer_opens_the_connector_with_the_first_credential_and_with_the_next(
    project: Project,
) -> None:
    before = fingerprint(project)
    project.await_log("consumer", f"{before} opened the Connector")
    token = (ROOT / "deploy/compose/api-token").read_text().strip()
    bearer = ("-H", f"Authorization: Bearer {token}")
    assert call(project, "http://localhost:8080/renew", "-X", "POST", *bearer)["renewed"] is True
    after = fingerprint(project)
    assert after != before
    project.await_log("consumer", f"{after} opened the Connector")


def test_a_renewal_over_the_network_needs_the_token_from_the_secret(project: Project) -> None:
    url = f"http://{project.network.addresses['sidecar']}:8080/renew"
    assert status_of(project, url, "-X", "POST", seen_from="consumer") == "401"
    wrong = ("-H", "Authorization: Bearer of-something-quite-different")
    assert status_of(project, url, "-X", "POST", *wrong, seen_from="consumer") == "401"


def test_the_sidecar_answers_to_the_name_of_its_service_only(project: Project) -> None:
    url = f"http://{project.network.addresses['sidecar']}:8080/status"
    for host, expected in (("sidecar", "200"), ("another.example", "421")):
        assert status_of(project, url, "-H", f"Host: {host}", seen_from="consumer") == expected


def test_the_consumer_can_read_what_is_published_and_not_the_store(project: Project) -> None:
    consumer = project.containers["consumer"]
    assert consumer.execute("python", "-c", "open('/run/compass-sidecar/tls.key')").returncode == 0
    assert consumer.execute("python", "-c", "open('/run/compass-sidecar/x', 'w')").returncode == 1
    assert consumer.execute("python", "-c", "open('/connector/client.key')").returncode == 1


def test_nobody_may_more_than_they_should(project: Project) -> None:
    for name, container in project.containers.items():
        lines = dict(line.split(":\t", 1) for line in container.proc("status").splitlines() if ":\t" in line)
        uid = project.services[name].get("user", "65532:65532").split(":")[0]
        assert set(lines["Uid"].split()) == {uid}
        assert (lines["NoNewPrivs"], int(lines["CapEff"], 16), int(lines["CapBnd"], 16)) == ("1", 0, 0)


@pytest.mark.parametrize("name", ["sidecar", "emulator", "consumer"])
def test_memory_stays_far_below_the_limit(project: Project, name: str) -> None:
    """The limits themselves are an engine's to enforce."""
    lines = dict(
        line.split(":\t", 1) for line in project.containers[name].proc("status").splitlines() if ":\t" in line
    )
    limit = int(project.services[name]["mem_limit"].removesuffix("m"))
    assert int(lines["VmHWM"].split()[0]) / 1024 < limit * 0.75


def test_sigterm_ends_the_project(project: Project) -> None:
    """The last test: nothing runs after it."""
    ends = project.down()
    assert all(status == 0 and seconds < 5 for status, seconds in ends.values()), ends
