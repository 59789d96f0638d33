"""Consumers are told at least once, through kills, restarts and folders that cannot be written."""

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.e2e.conftest import Start
from tests.support.authority import Authority
from tests.support.processes import SidecarProcess, wait_until
from tests.support.receiver import receiver
from tests.support.scripted_server import ConnectProxy, ScriptedServer, reply, server_context

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces of its own")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where hooks write what they saw."""
    return tmp_path / "marks"


def hook(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def lines(marks: Path) -> list[str]:
    return marks.read_text().splitlines() if marks.exists() else []


def said(sidecar: SidecarProcess, event: str) -> list[dict[str, object]]:
    return [
        each for line in sidecar.log.read_text().splitlines() if (each := json.loads(line))["event"] == event
    ]


def told(sidecar: SidecarProcess, kind: str, result: str) -> int:
    name = f'compass_sidecar_notifications_total{{kind="{kind}",result="{result}"}}'
    found = re.search(rf"^{re.escape(name)} (\S+)$", sidecar.client.get("/metrics").text, re.MULTILINE)
    assert found
    return int(float(found[1]))


def renew(sidecar: SidecarProcess) -> str:
    """The new fingerprint."""
    answer = sidecar.client.post("/renew")
    assert answer.status_code == 200, answer.text
    fingerprint: str = answer.json()["certificate"]["fingerprint_sha256"]
    return fingerprint


def test_the_command_runs_for_an_import_and_for_each_renewal(
    start: Start, tmp_path: Path, marks: Path
) -> None:
    command = hook(tmp_path / "hook.sh", f"echo $COMPASS_EVENT $COMPASS_FINGERPRINT >> {marks}")
    sidecar = start(on_renew_command=command).ready()
    expected = [f"imported {sidecar.fingerprint()}"]
    wait_until(lambda: lines(marks) == expected, "the command after the import")
    for _ in range(2):
        expected.append(f"renewed {renew(sidecar)}")
        wait_until(lambda: lines(marks) == expected, "the command after a renewal")
    sidecar.stop()
    sidecar.start()
    sidecar.ready()
    expected.append(f"renewed {renew(sidecar)}")
    wait_until(lambda: lines(marks) == expected, "one command for one renewal, and none for a start")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_was_cut_off_runs_again_after_a_restart(
    start: Start, tmp_path: Path, marks: Path, end: signal.Signals
) -> None:
    sidecar = start(on_renew_command=hook(tmp_path / "hook.sh", f"echo $COMPASS_EVENT >> {marks}")).ready()
    wait_until(lambda: lines(marks) == ["imported"], "the first command")
    wait_until(lambda: told(sidecar, "command", "success") == 1, "its end")
    hook(tmp_path / "hook.sh", f"echo begin >> {marks}; sleep 2; echo end >> {marks}")
    renew(sidecar)
    wait_until(lambda: lines(marks)[1:] == ["begin"], "the command")
    sidecar.process.send_signal(end)
    sidecar.process.wait(10)
    sidecar.start()
    sidecar.ready()
    wait_until(lambda: told(sidecar, "command", "success") == 1, "the second run")
    # After kill -9 the first run may have come to its end as an orphan.
    again = ["begin", "begin", "end"] if end is signal.SIGTERM else ["begin", "end", "begin", "end"]
    assert lines(marks)[1:] == again


def test_the_command_runs_once_the_files_are_there(start: Start, tmp_path: Path, marks: Path) -> None:
    published = tmp_path / "published"
    command = hook(tmp_path / "hook.sh", f"cat {published}/tls.crt > {marks}.new; mv {marks}.new {marks}")
    sidecar = start(on_renew_command=command).ready()
    wait_until(marks.exists, "the first command")
    published.rename(tmp_path / "aside")
    published.touch()
    expected = renew(sidecar)
    wait_until(lambda: said(sidecar, "publish-failed"), "the failure")
    published.unlink()
    (tmp_path / "aside").rename(published)

    def fingerprint() -> str:
        return x509.load_pem_x509_certificate(marks.read_bytes()).fingerprint(hashes.SHA256()).hex()

    wait_until(lambda: fingerprint() == expected, "the command, after the files", patience=90)
    wait_until(lambda: told(sidecar, "command", "success") == 2, "its end")
    assert not told(sidecar, "command", "failure")


def test_a_store_of_before_tells_nothing_anew(start: Start, tmp_path: Path, marks: Path) -> None:
    start().ready().stop()
    (tmp_path / "store" / "notifications.json").unlink(missing_ok=True)
    command = hook(tmp_path / "hook.sh", f"echo $COMPASS_EVENT >> {marks}")
    sidecar = start(on_renew_command=command).ready()
    renew(sidecar)
    wait_until(lambda: told(sidecar, "command", "success"), "the command")
    assert lines(marks) == ["renewed"]


def test_what_a_command_leaves_behind_holds_nothing_up(start: Start, tmp_path: Path) -> None:
    sidecar = start(on_renew_command=hook(tmp_path / "hook.sh", "echo why >&2; sleep 60 & exit 3")).ready()
    wait_until(lambda: said(sidecar, "notification-failed"), "the end of the command")
    (failed,) = said(sidecar, "notification-failed")
    assert failed["detail"] == "the command ended with status 3: 'why'"
    journal = tmp_path / "store" / "journal.jsonl"
    wait_until(lambda: "notification-failed" in journal.read_text(), "its line in the journal")


def test_a_webhook_that_was_cut_off_is_sent_again_with_the_same_id(start: Start) -> None:
    with receiver(lambda number: 503 if number < 3 else 200) as (url, got):
        sidecar = start(notify_webhook=url).ready()
        wait_until(lambda: got, "the first try")
        sidecar.kill()
        sidecar.start()
        wait_until(lambda: len(got) >= 3, "the second try")
        wait_until(lambda: told(sidecar, "webhook", "success") == 1, "its end")
    bodies = [json.loads(body) for _, body in got]
    assert {each["event"] for each in bodies} == {"imported"}
    assert len({each["id"] for each in bodies}) == 1


@pytest.mark.parametrize(
    ("given", "expected"), [({}, socket.gethostname()), ({"name": "Größe 1"}, "Größe 1")]
)
def test_a_webhook_names_the_sidecar(start: Start, given: dict[str, str], expected: str) -> None:
    with receiver(lambda _: 200) as (url, got):
        start(notify_webhook=url, **given)
        wait_until(lambda: got, "the webhook")
    assert json.loads(got[0][1])["name"] == expected


def test_a_webhook_is_verified_with_a_ca_file_of_its_own_and_goes_through_the_proxy(
    start: Start, tmp_path: Path
) -> None:
    authority = Authority.create("Webhook CA")
    (tmp_path / "webhook-ca.crt").write_bytes(authority.pem)
    server = ScriptedServer(server_context(authority, "127.0.0.1"), reply(status=204))
    with ConnectProxy() as proxy, server:
        sidecar = start(
            notify_webhook=server.url,
            notify_webhook_ca_file=str(tmp_path / "webhook-ca.crt"),
            connector_proxy=f"http://127.0.0.1:{proxy.port}",
        ).ready()
        wait_until(lambda: told(sidecar, "webhook", "success") == 1, "the webhook")
        assert f"127.0.0.1:{server.port}" in [request.target for request in proxy.requests]
        assert [request.json["event"] for request in server.requests] == ["imported"]


@pytest.fixture
def wrapped(importing: dict[str, str], tmp_path: Path) -> Iterator[list[SidecarProcess]]:
    started: list[SidecarProcess] = []
    yield started
    for each in started:
        each.close()


@as_root
def test_the_command_runs_where_no_folder_for_temporary_files_can_be_written(
    importing: dict[str, str], wrapped: list[SidecarProcess], tmp_path: Path, marks: Path
) -> None:
    inside = Path("/mnt")  # where the test's folder is seen in the namespace
    files = [value for value in importing.values() if Path(value).is_file()]
    moved = {value: str(inside / Path(shutil.copy(value, tmp_path)).name) for value in files}
    environment = {
        name: moved.get(value, value.replace(str(tmp_path), str(inside))) for name, value in importing.items()
    }
    environment["COMPASS_ON_RENEW_COMMAND"] = f"touch {inside / marks.name}"
    mounts = (
        f"mount --bind {tmp_path} {inside} && mount -t tmpfs -o ro none /tmp"
        ' && mount -t tmpfs -o ro none /var/tmp && cd /sys && exec "$@"'
    )
    wrapper = ("unshare", "--mount", "sh", "-c", mounts, "sh")
    sidecar = SidecarProcess(environment, log=tmp_path / "log", wrapper=wrapper)
    wrapped.append(sidecar)
    sidecar.ready()
    wait_until(marks.exists, "the command")
    wait_until(lambda: told(sidecar, "command", "success") == 1, "its end")


@as_root
def test_process_1_leaves_no_zombies_and_takes_no_status(
    importing: dict[str, str], wrapped: list[SidecarProcess], tmp_path: Path
) -> None:
    status = tmp_path / "status"
    status.write_text("0")
    command = hook(tmp_path / "hook.sh", f"(sleep 0.3) & exit $(cat {status})")
    wrapper = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    sidecar = SidecarProcess(
        {**importing, "COMPASS_ON_RENEW_COMMAND": command}, log=tmp_path / "log", wrapper=wrapper
    )
    wrapped.append(sidecar)
    sidecar.ready()
    wait_until(lambda: told(sidecar, "command", "success") == 1, "the first command")
    for number, expected in enumerate(["0", "3", "0", "3", "3"]):
        status.write_text(expected)
        renew(sidecar)
        ended = number + 2
        wait_until(
            lambda: sum(told(sidecar, "command", each) for each in ("success", "failure")) == ended,  # noqa: B023
            "the end of a command",
        )
    assert (told(sidecar, "command", "success"), told(sidecar, "command", "failure")) == (3, 3)
    (process,) = children(sidecar.process.pid)
    wait_until(lambda: not children(process), "the end of all orphans")


def children(parent: int) -> list[int]:
    """Zombies included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" (")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.rpartition(") ")[2].split()[1]) == parent:
            found.append(int(pid))
    return found
