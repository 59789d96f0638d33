"""A start in an environment that is not right says what is wrong with it, and what would be right."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.processes import free_port, wait_until

# Root may write anywhere, and give files to any group.
WITHOUT_RIGHTS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
A_GROUP = "59123"


def serve(folder: Path, *wrapper: str, **variables: str) -> tuple[int, list[str]]:
    """The exit status and the lines of a start that is expected to fail."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPASS_")}
    environment |= {"COMPASS_PORT": str(free_port()), "COMPASS_CONNECTOR_URL": "https://c.example.org/"}
    environment |= {f"COMPASS_{name.upper()}": value for name, value in variables.items()}
    command = [*wrapper, sys.executable, "-m", "compass_sidecar"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stderr.splitlines()


def test_the_quotes_of_an_env_file_are_refused_and_nothing_is_made_of_them(tmp_path: Path) -> None:
    variables = {name: f'"{tmp_path}/{name}"' for name in ("store_dir", "publish_dir", "connector_ca_file")}
    status, lines = serve(tmp_path, **variables, api_token='"0123456789abcdef"')
    assert status == 2
    assert len(lines) == 4
    assert all("begins and ends with a quote" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_named_with_uid_mode_and_fs_group(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o555)
    if os.geteuid() == 0:
        os.chown(tmp_path / "store", 12345, 12345)
    status, lines = serve(tmp_path, *WITHOUT_RIGHTS, store_dir=str(tmp_path / "store"))
    assert status == 2
    assert f"COMPASS_STORE_DIR: {tmp_path}/store is not writable" in lines[-1]
    for named in (f"uid {os.geteuid()}", "mode 0555", "fsGroup"):
        assert named in lines[-1]


@pytest.mark.parametrize("place", ["publish_dir", "unix_socket"])
def test_a_group_that_is_not_ours_is_named_with_supplemental_groups(place: str, tmp_path: Path) -> None:
    where = {place: str(tmp_path / "place"), "store_dir": str(tmp_path / "store")}
    status, lines = serve(tmp_path, *WITHOUT_RIGHTS, **where, publish_group=A_GROUP)
    assert status == 2
    assert lines[-1].startswith("compass-sidecar: COMPASS_PUBLISH_GROUP: ")
    assert A_GROUP in lines[-1]
    assert "supplementalGroups" in lines[-1]
    assert not any(stat.S_ISSOCK(path.lstat().st_mode) for path in tmp_path.iterdir())


def test_a_token_file_that_is_missing_is_named_in_log_status_and_check(start: Start, tmp_path: Path) -> None:
    sidecar = start(
        client_certificate_file="",
        client_key_file="",
        token_file=str(tmp_path / "not-there"),
    ).started()
    waiting = f"waiting for COMPASS_TOKEN_FILE {tmp_path}/not-there, checked every 30 s"
    wait_until(lambda: waiting in json.dumps(sidecar.status()), "the status")
    assert waiting in sidecar.log.read_text()
    assert waiting in sidecar.command("check").stdout


def test_what_kubernetes_injects_for_a_service_called_compass_is_ignored_and_logged_once(
    start: Start,
) -> None:
    injected = {
        "service_host": "10.0.0.1",
        "service_port": "443",
        "service_port_http": "443",
        "port_443_tcp": "tcp://10.0.0.1:443",
        "port_443_tcp_addr": "10.0.0.1",
        "health_port": "tcp://10.0.0.1:443",
        "egress_port": "sctp://10.0.0.3:9",
        "sidecar_port": "udp://10.0.0.2:53",
    }
    sidecar = start(**injected).ready()
    lines = [json.loads(line) for line in sidecar.log.read_text().splitlines()]
    (ignored,) = [line["names"] for line in lines if line["event"] == "ignored-variables"]
    assert ignored == sorted(f"COMPASS_{name.upper()}" for name in injected)
