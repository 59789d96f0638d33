"""What a real sidecar logs, and what the Connector hears of it."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Start
from tests.support.processes import EmulatorProcess, SidecarProcess, wait_until

HEADERS = ("x-request-id", "x-correlation-id")


def lines(sidecar: SidecarProcess, event: str) -> list[dict[str, Any]]:
    """The lines of this event; every line has to be one."""
    said = [json.loads(line) for line in sidecar.log.read_text().splitlines()]
    assert all(list(each)[:3] == ["at", "level", "event"] for each in said)
    return [each for each in said if each["event"] == event]


def test_log_journal_and_connector_know_an_attempt_by_one_id(
    start: Start, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    sidecar = start(log_level="debug").ready()
    assert sidecar.client.post("/renew").status_code == 200
    emulator.fault("html-200@sign")
    assert sidecar.client.post("/renew").status_code == 502
    emulator.heal()
    heard = [each for each in emulator.control("GET", "/")["requests"] if each["headers"].get(HEADERS[0])]
    sidecar.stop()

    (renewed,), failed = lines(sidecar, "renewed"), lines(sidecar, "attempt-failed")
    ids = [renewed["correlation_id"], failed[0]["correlation_id"]]
    assert ids[0] != ids[1]
    for correlation_id, operations in zip(
        ids, [["configuration", "sign", "probe"], ["configuration", "sign"]], strict=True
    ):
        calls = [each for each in heard if each["headers"][HEADERS[0]] == correlation_id]
        assert [each["operation"] for each in calls] == operations
        assert all(each["headers"][HEADERS[1]] == correlation_id for each in calls)
        called = [
            each for each in lines(sidecar, "connector-called") if each["correlation_id"] == correlation_id
        ]
        assert [each["operation"] for each in called] == operations
    assert lines(sidecar, "published")[-1]["correlation_id"] == ids[0]
    journal = [json.loads(each) for each in (tmp_path / "store" / "journal.jsonl").read_text().splitlines()]
    kept = {each["event"]: each.get("correlation_id") for each in journal}
    assert (kept["renewed"], kept["published"]) == (ids[0], ids[0])
    assert "correlation_id" not in lines(sidecar, "imported")[0]


def test_a_life_at_debug_level_tells_no_secret(
    start: Start, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    token, url = emulator.control("POST", "/tokens", {})["token"], emulator.endpoints["token_connector_url"]
    hidden = {"api_token": "nobody-may-see-this-one", "notify_webhook_secret": "nor-this-one-at-all"}
    sidecar = start(
        log_level="debug",
        client_certificate_file="",
        client_key_file="",
        connector_url="",
        token=token,
        token_connector_url=url,
        notify_webhook="http://127.0.0.1:9/hidden-in-a-url",
        connector_proxy="",
        **hidden,
    )
    sidecar.ready()
    bearer = {"Authorization": f"Bearer {hidden['api_token']}"}
    assert sidecar.client.post("/renew", headers=bearer).status_code == 200
    emulator.fault("private-key-in-pem@sign")
    assert sidecar.client.post("/renew", headers=bearer).status_code == 502
    body = {
        "token": "a-second-token-that-is-refused",
        "connector_url": emulator.endpoints["token_connector_url"],
    }
    assert sidecar.client.post("/connect", headers=bearer, json=body).status_code == 502
    sidecar.stop()
    told = sidecar.log.read_text() + (tmp_path / "store" / "journal.jsonl").read_text()
    assert lines(sidecar, "connected")
    assert lines(sidecar, "connector-called")
    for secret in (token, body["token"], "hidden-in-a-url", *hidden.values(), "PRIVATE", "CERTIFICATE"):
        assert secret not in told


def test_a_start_and_an_end_are_told(start: Start) -> None:
    sidecar = start().ready()
    assert sidecar.stop() == 0
    wait_until(lambda: lines(sidecar, "stopped"), "the last line")
    (serving,) = lines(sidecar, "serving")
    assert f"http://127.0.0.1:{sidecar.port}" in serving["addresses"]


def test_the_console_form_is_for_people(start: Start) -> None:
    sidecar = start(log_format="console").ready()
    sidecar.stop()
    said = sidecar.log.read_text()
    assert "\x1b" not in said  # no terminal
    assert [each.split()[2] for each in said.splitlines()] == [
        "published",
        "imported",
        "state-changed",
        "serving",
        "stopped",
    ]
