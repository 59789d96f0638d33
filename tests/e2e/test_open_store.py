"""A store folder in which every user can write."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o700, 0o1777, 0o775])
def test_a_folder_that_every_user_can_write_to_is_a_reason(start: Start, tmp_path: Path, mode: int) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    sidecar = start().ready()
    is_open = mode in (0o777, 0o707)
    status = sidecar.status()
    assert status["state"] == "connected"
    assert ("store-open-to-others" in status["reasons"]) == is_open
    warned = [event for event in events(sidecar.log) if event["event"] == "store-open-to-others"]
    assert [event["level"] for event in warned] == ["warning"] * is_open


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another owner")
def test_a_credential_that_another_user_planted_is_named_and_not_used(start: Start, tmp_path: Path) -> None:
    first = start().ready()
    planted = first.fingerprint()
    first.stop()
    for path in (tmp_path / "store").rglob("*"):
        os.chown(path, 1234, 1234, follow_symlinks=False)
    (tmp_path / "store").chmod(0o777)
    sidecar = start(client_certificate_file="", client_key_file="").started()
    assert sidecar.status()["certificate"] is None
    detail = next(e["detail"] for e in events(sidecar.log) if e["event"] == "store-open-to-others")
    assert "generations (uid 1234)" in detail
    sidecar.stop()
    (tmp_path / "store").chmod(0o700)
    for path in (tmp_path / "store").glob("generations.foreign-*"):
        assert planted[:12] in next(path.iterdir()).name
    again = start().ready()
    assert again.client.post("/renew").status_code == 200
