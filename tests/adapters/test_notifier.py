"""Neighbours are told with a real command and a real webhook, and cannot hold anything up."""

import asyncio
import hashlib
import hmac
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from compass_sidecar.adapters import notifier as module
from compass_sidecar.adapters.notifier import Notifier, Targets
from compass_sidecar.core.generation import Facts, Generation, Origin
from compass_sidecar.errors import NotificationError
from tests.support.authority import NOW, Authority

pytestmark = pytest.mark.anyio
GENERATION = Generation(
    "name", Authority.create().credential(), Facts(Origin.RENEW, "https://connector.example", NOW)
)


class Outcomes:
    def __init__(self) -> None:
        self.seen: list[tuple[str, NotificationError | None]] = []

    def __call__(self, kind: str, error: NotificationError | None) -> None:
        self.seen.append((kind, error))

    async def wait_for(self, count: int) -> list[tuple[str, NotificationError | None]]:
        async with asyncio.timeout(20):
            while len(self.seen) < count:
                await asyncio.sleep(0.01)
        return self.seen


@asynccontextmanager
async def telling(targets: Targets) -> AsyncIterator[tuple[Notifier, Outcomes]]:
    outcomes = Outcomes()

    async def at_once(_: timedelta) -> None:
        await asyncio.sleep(0)

    notifier = Notifier(targets, now=lambda: NOW, sleep=at_once, new_id=lambda: "the-id", report=outcomes)
    try:
        yield notifier, outcomes
    finally:
        await notifier.aclose()


def script(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(text)
    return (sys.executable, str(path))


async def test_the_command_sees_the_event_and_nothing_else_of_ours(tmp_path: Path) -> None:
    os.environ["COMPASS_API_TOKEN"] = "must-not-be-seen"
    command = script(
        tmp_path / "hook.py",
        "import json, os, sys\n"
        f"json.dump([dict(os.environ), sys.stdin.read()], open({str(tmp_path / 'seen')!r}, 'w'))\n",
    )
    try:
        async with telling(Targets(command, {"PATH": "/bin", "COMPASS_PUBLISH_DIR": "/p"})) as (
            notifier,
            outcomes,
        ):
            notifier.notify("renewed", GENERATION)
            assert await outcomes.wait_for(1) == [("command", None)]
    finally:
        del os.environ["COMPASS_API_TOKEN"]
    environment, text = json.loads((tmp_path / "seen").read_text())
    environment.pop("LC_CTYPE", None)  # which Python sets for itself
    assert environment == {
        "PATH": "/bin",
        "COMPASS_PUBLISH_DIR": "/p",
        "COMPASS_EVENT": "renewed",
        "COMPASS_FINGERPRINT": GENERATION.chain.fingerprint,
        "COMPASS_NOT_AFTER": f"{GENERATION.chain.effective_not_after:%Y-%m-%dT%H:%M:%SZ}",
    }
    assert text == ""


@pytest.mark.parametrize("event", ["expiring", "renewal-failed", "connect-needed", "revoked", "recovered"])
async def test_the_command_runs_for_new_credentials_only(tmp_path: Path, event: str) -> None:
    async with telling(Targets(script(tmp_path / "hook.py", "pass"))) as (notifier, outcomes):
        notifier.notify(event, GENERATION)
        notifier.notify("connected", GENERATION)
        assert await outcomes.wait_for(1) == [("command", None)]
        await asyncio.sleep(0.05)
        assert len(outcomes.seen) == 1


async def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    command = script(tmp_path / "hook.py", "import sys; sys.exit('nginx is not there')")
    async with telling(Targets(command)) as (notifier, outcomes):
        notifier.notify("renewed", GENERATION)
        ((_, error),) = await outcomes.wait_for(1)
    assert error is not None
    assert error.detail == "the command ended with status 1: 'nginx is not there'"


async def test_a_command_that_is_not_there_says_so() -> None:
    async with telling(Targets(("/no/such/command",))) as (notifier, outcomes):
        notifier.notify("renewed", GENERATION)
        ((_, error),) = await outcomes.wait_for(1)
    assert error is not None
    assert "No such file" in error.detail


async def test_a_command_that_hangs_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_COMMAND_LIMIT", timedelta(seconds=1))
    pid = tmp_path / "pid"
    command = ("/bin/sh", "-c", f"sleep 60 & echo $! > {pid}; wait")
    async with telling(Targets(command)) as (notifier, outcomes):
        notifier.notify("renewed", GENERATION)
        ((_, error),) = await outcomes.wait_for(1)
    assert error is not None
    assert "killed" in error.detail
    stat = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not stat.exists() or " Z " in stat.read_text()


async def test_commands_run_one_at_a_time_and_the_latest_wins(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ("/bin/sh", "-c", f"echo $COMPASS_EVENT >> {log}; sleep 0.3")
    async with telling(Targets(command, {"PATH": "/bin:/usr/bin"})) as (notifier, outcomes):
        notifier.notify("connected", GENERATION)
        await asyncio.sleep(0.1)
        for _ in range(5):
            notifier.notify("renewed", GENERATION)
        await outcomes.wait_for(2)
        await asyncio.sleep(0.4)
    assert log.read_text().split() == ["connected", "renewed"]


@asynccontextmanager
async def receiver(
    answer: Callable[[int], int],
) -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """An HTTP server that answers the n-th request with the status `answer(n)`."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(answer(len(got)))
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_the_webhook_gets_every_event_signed() -> None:
    async with (
        receiver(lambda _: 204) as (url, got),
        telling(Targets(webhook=url, webhook_secret="s3cret")) as (notifier, outcomes),
    ):
        notifier.notify("expiring", GENERATION, detail="soon")
        await outcomes.wait_for(1)
    ((headers, body),) = got
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["compass-signature"] == f"sha256={expected}"
    content = json.loads(body)
    assert (content["id"], content["event"], content["detail"]) == ("the-id", "expiring", "soon")
    assert content["fingerprint_sha256"] == GENERATION.chain.fingerprint
    assert content["at"].endswith("Z")


async def test_the_webhook_is_tried_again_and_follows_no_redirect() -> None:
    async with (
        receiver(lambda number: {1: 503, 2: 302}.get(number, 200)) as (url, got),
        telling(Targets(webhook=url)) as (notifier, outcomes),
    ):
        notifier.notify("renewed", GENERATION)
        assert await outcomes.wait_for(1) == [("webhook", None)]
    assert len(got) == 3
    assert len({body for _, body in got}) == 1


async def test_a_webhook_that_is_gone_is_given_up() -> None:
    async with telling(Targets(webhook="http://127.0.0.1:1/hook")) as (notifier, outcomes):
        notifier.notify("connect-needed", None)
        ((kind, error),) = await outcomes.wait_for(1)
    assert (kind, error.detail if error else None) == ("webhook", "the webhook was given up: ConnectError")


def test_secrets_are_in_no_repr() -> None:
    assert "s3cret" not in repr(Targets(webhook="http://u:s3cret@h/", webhook_secret="s3cret"))
