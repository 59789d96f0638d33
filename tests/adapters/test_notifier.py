"""Consumers are told with a real command, a real webhook and a real store, and cannot hold anything up."""

import asyncio
import hashlib
import hmac
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from compass_sidecar.adapters.anchors import Anchors
from compass_sidecar.adapters.command import Command
from compass_sidecar.adapters.filestore import Store
from compass_sidecar.adapters.notifier import Channel, Notifier
from compass_sidecar.adapters.transport import Transport
from compass_sidecar.adapters.webhook import Webhook
from compass_sidecar.adapters.worker import Worker
from compass_sidecar.core.generation import Facts, Generation, Origin
from compass_sidecar.core.notice import Notice
from compass_sidecar.errors import NotificationError, StoreWriteFailed
from tests.support.authority import NOW, Authority
from tests.support.clock import FakeClock
from tests.support.receiver import receiver

pytestmark = pytest.mark.anyio
AUTHORITY = Authority.create()
PATH = {"PATH": "/bin:/usr/bin"}


@cache  # signatures are random
def generation(origin: Origin = Origin.RENEW, number: int = 0) -> Generation:
    facts = Facts(origin, "https://connector.example", NOW + timedelta(minutes=number))
    return Generation(f"name{number}", AUTHORITY.credential(number=number), facts)


GENERATION = generation()


class Telling:
    """A notifier whose tasks run, over the store in a folder; what it reported."""

    def __init__(self, directory: Path, channels: Mapping[str, Channel]) -> None:
        self.clock = FakeClock()
        self.reported: list[tuple[str, str | None]] = []
        self.warned: list[str] = []
        self.store = Store.open(directory, now=self.clock.now, warn=lambda code, _: self.warned.append(code))
        self.ids = iter(range(1000))
        self.notifier = Notifier(
            channels,
            store=self.store,
            disk=Worker("store", limit=timedelta(seconds=20)),
            clock=self.clock,
            new_id=lambda: f"id-{next(self.ids)}",
            report=lambda kind, error: self.reported.append((kind, error.detail if error else None)),
        )
        self.tasks = [asyncio.create_task(task()) for task in self.notifier.tasks().values()]

    async def ended(self, count: int) -> list[tuple[str, str | None]]:
        async with asyncio.timeout(20):
            while len(self.reported) < count:
                await asyncio.sleep(0.01)
        return self.reported


@asynccontextmanager
async def telling(
    directory: Path, *, current: Generation | None = None, **channels: Channel
) -> AsyncIterator[Telling]:
    """What a process is for the notifier: it ends in the middle of whatever it does."""
    made = Telling(directory, channels)
    try:
        await made.notifier.restore(current)
        yield made
    finally:
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
        made.store.close()


class Fake:
    """A channel whose n-th delivery ends with `script[n]`: an exception, None for success, or "hang"."""

    latest_only = False

    def __init__(self, *script: Exception | str | None) -> None:
        self.script = list(script)
        self.got: list[Notice] = []
        self.busy = asyncio.Event()

    def wants(self, event: str) -> bool:
        return event != "unwanted"

    async def deliver(self, notice: Notice) -> None:
        self.got.append(notice)
        end = self.script.pop(0) if self.script else None
        if end == "hang":
            self.busy.set()
            await asyncio.Event().wait()
        if isinstance(end, Exception):
            raise end

    @property
    def events(self) -> list[str]:
        return [each.event for each in self.got]


def script(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(text)
    return (sys.executable, str(path))


# -- at least once ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "event"),
    [(Origin.CONNECT, "connected"), (Origin.RENEW, "renewed"), (Origin.IMPORT, "imported")],
)
async def test_a_new_credential_is_told_once_as_what_it_is(
    tmp_path: Path, origin: Origin, event: str
) -> None:
    channel = Fake()
    async with telling(tmp_path, webhook=channel) as now:
        for _ in range(3):
            now.notifier.announce(generation(origin))
        assert await now.ended(1) == [("webhook", None)]
    async with telling(tmp_path, current=generation(origin), webhook=channel) as later:
        later.notifier.announce(generation(origin))
        later.notifier.notify("expiring", GENERATION)
        await later.ended(1)
    assert channel.events == [event, "expiring"]


async def test_a_revocation_is_told_after_the_renewal(tmp_path: Path) -> None:
    channel = Fake()
    revoked = replace(GENERATION, facts=replace(GENERATION.facts, revoked_at=NOW + timedelta(hours=1)))
    async with telling(tmp_path, webhook=channel) as now:
        for each in (GENERATION, revoked, revoked):
            now.notifier.announce(each)
        await now.ended(2)
    assert channel.events == ["renewed", "revoked"]
    assert channel.got[1].at == NOW + timedelta(hours=1)


async def test_a_try_that_was_cut_off_is_made_again_with_the_same_id(tmp_path: Path) -> None:
    channel = Fake("hang")
    async with telling(tmp_path, webhook=channel) as now:
        now.notifier.announce(GENERATION)
        await channel.busy.wait()
    async with telling(tmp_path, current=GENERATION, webhook=channel) as later:
        later.notifier.announce(GENERATION)
        assert await later.ended(1) == [("webhook", None)]
        assert later.clock.elapsed() >= timedelta(seconds=10)
    assert channel.events == ["renewed", "renewed"]
    assert len({each.id for each in channel.got}) == 1
    assert [each.tries for each in channel.got] == [1, 2]


async def test_the_third_cut_is_the_last(tmp_path: Path) -> None:
    channel = Fake("hang", "hang", "hang")
    for _ in range(3):
        channel.busy.clear()
        async with telling(tmp_path, current=GENERATION if channel.got else None, webhook=channel) as now:
            now.notifier.announce(GENERATION)
            await channel.busy.wait()
    async with telling(tmp_path, current=GENERATION, webhook=channel) as later:
        later.notifier.announce(GENERATION)
        assert await later.ended(1) == [("webhook", "the webhook was cut off 3 times")]
    async with telling(tmp_path, current=GENERATION, webhook=channel) as last:
        last.notifier.announce(GENERATION)
        last.notifier.announce(generation(number=1))
        assert await last.ended(1) == [("webhook", None)]
    assert [each.fingerprint for each in channel.got] == [
        *[GENERATION.chain.fingerprint] * 3,
        generation(number=1).chain.fingerprint,
    ]


async def test_what_was_activated_before_a_kill_is_told_after_it(tmp_path: Path) -> None:
    channel = Fake()
    async with telling(tmp_path, webhook=channel):
        pass
    # Killed between the activation and the first word about it.
    async with telling(tmp_path, current=GENERATION, webhook=channel) as later:
        later.notifier.announce(GENERATION)
        await later.ended(1)
    assert channel.events == ["renewed"]


async def test_changes_that_wait_behind_a_busy_receiver_survive_a_kill(tmp_path: Path) -> None:
    channel = Fake("hang")
    async with telling(tmp_path, webhook=channel) as now:
        for number in range(3):
            now.notifier.announce(generation(number=number))
        await channel.busy.wait()
        async with asyncio.timeout(20):
            while len((now.store.notifications() or {}).get("webhook", [])) < 3:
                await asyncio.sleep(0.01)
    async with telling(tmp_path, current=generation(number=2), webhook=channel) as later:
        later.notifier.announce(generation(number=2))
        await later.ended(3)
    told = [generation(number=number).chain.fingerprint for number in (0, 0, 1, 2)]
    assert [each.fingerprint for each in channel.got] == told


async def test_without_a_record_the_current_credential_counts_as_told(tmp_path: Path) -> None:
    channel = Fake()
    async with telling(tmp_path, current=GENERATION, webhook=channel) as now:
        now.notifier.announce(GENERATION)
        now.notifier.announce(generation(number=1))
        await now.ended(1)
    assert [each.fingerprint for each in channel.got] == [generation(number=1).chain.fingerprint]


async def test_a_channel_that_is_new_begins_with_the_next_credential(tmp_path: Path) -> None:
    old, new = Fake(), Fake()
    async with telling(tmp_path, webhook=old) as now:
        now.notifier.announce(GENERATION)
        await now.ended(1)
    async with telling(tmp_path, current=GENERATION, webhook=old, command=new) as later:
        for each in (GENERATION, generation(number=1)):
            later.notifier.announce(each)
        await later.ended(2)
    assert [len(old.got), len(new.got)] == [2, 1]


async def test_a_failure_counts_as_told(tmp_path: Path) -> None:
    channel = Fake(NotificationError("no"))
    async with telling(tmp_path, command=channel) as now:
        now.notifier.announce(GENERATION)
        assert await now.ended(1) == [("command", "no")]
    async with telling(tmp_path, current=GENERATION, command=channel) as later:
        later.notifier.announce(GENERATION)
        later.notifier.notify("expiring", GENERATION)
        await later.ended(1)
    assert channel.events == ["renewed", "expiring"]


async def test_other_events_are_not_repeated_after_a_kill(tmp_path: Path) -> None:
    channel = Fake("hang")
    async with telling(tmp_path, webhook=channel) as now:
        now.notifier.notify("expiring", GENERATION)
        await channel.busy.wait()
    async with telling(tmp_path, webhook=channel) as later:
        later.notifier.announce(GENERATION)
        await later.ended(1)
    assert channel.events == ["expiring", "renewed"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError(), OSError(11, "try again")])
async def test_no_exception_ends_the_telling(tmp_path: Path, error: Exception) -> None:
    channel = Fake(error, error, error)
    async with telling(tmp_path, webhook=channel) as now:
        now.notifier.announce(GENERATION)
        now.notifier.notify("expiring", GENERATION)
        assert await now.ended(2) == [("webhook", "the webhook was cut off 3 times"), ("webhook", None)]
    assert channel.events == ["renewed", "renewed", "renewed", "expiring"]
    assert now.clock.elapsed() >= timedelta(seconds=20)


async def test_a_store_that_cannot_be_written_keeps_nobody_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreWriteFailed("the disk is full")

    monkeypatch.setattr(Store, "save_notifications", full)
    channel = Fake()
    async with telling(tmp_path, webhook=channel) as now:
        now.notifier.announce(GENERATION)
        assert await now.ended(1) == [("webhook", None)]


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"webhook": 1, "sha256": "no"}', None])
async def test_a_damaged_record_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "notifications.json"
    if damage is None:
        path.mkdir()
    else:
        path.write_bytes(damage)
    channel = Fake()
    async with telling(tmp_path, current=GENERATION, webhook=channel) as now:
        assert now.warned == ["notifications-damaged"]
        now.notifier.announce(GENERATION)
        now.notifier.announce(generation(number=1))
        await now.ended(1)
    assert len(channel.got) == 1
    assert path.is_file()


async def test_what_a_later_version_wrote_is_kept(tmp_path: Path) -> None:
    channel = Fake("hang")
    async with telling(tmp_path, webhook=channel) as now:
        now.notifier.announce(GENERATION)
        await channel.busy.wait()
        record: dict[str, Any] = now.store.notifications() or {}
        record["webhook"][0]["colour"] = "blue"
        now.store.save_notifications({**record, "pigeon": [1]})
    async with telling(tmp_path, current=GENERATION, webhook=channel) as later:
        await later.ended(1)
        kept = later.store.notifications() or {}
    assert (kept["pigeon"], kept["webhook"][0]["colour"], kept["webhook"][0]["told"]) == ([1], "blue", True)


# -- the command ------------------------------------------------------------------------------


async def test_the_command_sees_the_event_and_nothing_else_of_ours(tmp_path: Path) -> None:
    os.environ["COMPASS_API_TOKEN"] = "must-not-be-seen"
    words = script(
        tmp_path / "hook.py",
        "import json, os, sys\n"
        f"json.dump([dict(os.environ), sys.stdin.read()], open({str(tmp_path / 'seen')!r}, 'w'))\n",
    )
    command = Command(words, {"PATH": "/bin", "COMPASS_PUBLISH_DIR": "/p"})
    try:
        async with telling(tmp_path / "store", command=command) as now:
            now.notifier.announce(GENERATION)
            assert await now.ended(1) == [("command", None)]
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
    async with telling(tmp_path, command=Command(("true",), PATH)) as now:
        now.notifier.notify(event, GENERATION)
        now.notifier.announce(GENERATION)
        assert await now.ended(1) == [("command", None)]
        await asyncio.sleep(0.05)
        assert len(now.reported) == 1


async def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    words = script(tmp_path / "hook.py", "import sys; sys.exit('nginx is not there')")
    async with telling(tmp_path / "store", command=Command(words, {})) as now:
        now.notifier.announce(GENERATION)
        assert await now.ended(1) == [("command", "the command ended with status 1: 'nginx is not there'")]


async def test_only_the_end_of_what_a_command_complains_is_kept(tmp_path: Path) -> None:
    flood = "import os, sys\nfor _ in range(300): os.write(2, b'x' * 65536)\nsys.exit('the last words')"
    words = script(tmp_path / "hook.py", flood)
    async with telling(tmp_path / "store", command=Command(words, {})) as now:
        now.notifier.announce(GENERATION)
        ((_, detail),) = await now.ended(1)
    assert detail is not None
    assert detail.endswith("xxthe last words'")
    assert len(detail) < 400


async def test_what_a_command_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    words = ("/bin/sh", "-c", "echo why >&2; sleep 60 & exit 3")
    async with telling(tmp_path, command=Command(words, PATH)) as now:
        now.notifier.announce(GENERATION)
        assert await now.ended(1) == [("command", "the command ended with status 3: 'why'")]


async def test_a_command_that_is_not_there_says_so_at_once(tmp_path: Path) -> None:
    async with telling(tmp_path, command=Command(("/no/such/command",), {})) as now:
        now.notifier.announce(GENERATION)
        detail = "the command cannot be run: no such file or directory"
        assert await now.ended(1) == [("command", detail)]
        assert now.clock.elapsed() == timedelta(0)


async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    words = ("/bin/sh", "-c", f"sleep 60 & echo $! > {pid}; wait")
    command = Command(words, PATH, limit=timedelta(seconds=1))
    async with telling(tmp_path / "store", command=command) as now:
        now.notifier.announce(GENERATION)
        assert await now.ended(1) == [("command", "the command was killed after 1 s")]
    assert has_ended(int(pid.read_text()))


def has_ended(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or " Z " in stat.read_text()


async def test_commands_run_one_at_a_time_and_the_latest_wins(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ("/bin/sh", "-c", f"echo $COMPASS_FINGERPRINT >> {log}; sleep 0.3")
    async with telling(tmp_path / "store", command=Command(words, PATH)) as now:
        now.notifier.announce(generation(number=0))
        async with asyncio.timeout(20):
            while not log.exists():
                await asyncio.sleep(0.01)
        for number in range(1, 4):
            now.notifier.announce(generation(number=number))
        await now.ended(2)
        await asyncio.sleep(0.4)
    assert log.read_text().split() == [generation(number=number).chain.fingerprint for number in (0, 3)]


async def test_a_command_that_is_cut_off_is_killed_and_run_again(tmp_path: Path) -> None:
    pid, second = tmp_path / "pid", tmp_path / "second"
    words = ("/bin/sh", "-c", f"test -e {pid} && exec touch {second}; echo $$ > {pid}; exec sleep 60")
    async with telling(tmp_path / "store", command=Command(words, PATH)) as now:
        now.notifier.announce(GENERATION)
        async with asyncio.timeout(20):
            while not pid.exists() or not pid.read_text():
                await asyncio.sleep(0.01)
    assert has_ended(int(pid.read_text()))
    async with telling(tmp_path / "store", current=GENERATION, command=Command(words, PATH)) as later:
        assert await later.ended(1) == [("command", None)]
    assert second.exists()


# -- the webhook ------------------------------------------------------------------------------


async def at_once(_: timedelta) -> None:
    await asyncio.sleep(0)


def webhook(url: str, secret: str | None = None) -> Webhook:
    transport = Transport(
        anchors=Anchors("COMPASS_NOTIFY_WEBHOOK_CA_FILE", None),
        proxy_for=lambda _: None,
        timeout=timedelta(seconds=10),
        now=lambda: NOW,
        schemes=("https", "http"),
    )
    return Webhook(url, name="n", secret=secret, transport=transport, sleep=at_once)


async def test_the_webhook_gets_every_event_signed(tmp_path: Path) -> None:
    with receiver(lambda _: 204) as (url, got):
        async with telling(tmp_path, webhook=webhook(url, "s3cret")) as now:
            now.notifier.notify("expiring", GENERATION, detail="soon")
            await now.ended(1)
    ((headers, body),) = got
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["compass-signature"] == f"sha256={expected}"
    content = json.loads(body)
    assert (content["event"], content["detail"], content["name"]) == ("expiring", "soon", "n")
    assert content["id"]
    assert content["fingerprint_sha256"] == GENERATION.chain.fingerprint
    assert content["at"].endswith("Z")


async def test_the_webhook_is_tried_again_and_follows_no_redirect(tmp_path: Path) -> None:
    with receiver(lambda number: {1: 503, 2: 302}.get(number, 200)) as (url, got):
        async with telling(tmp_path, webhook=webhook(url)) as now:
            now.notifier.announce(GENERATION)
            assert await now.ended(1) == [("webhook", None)]
    assert len(got) == 3
    assert len({body for _, body in got}) == 1


async def test_a_webhook_that_cannot_be_reached_is_given_up_in_plain_words(tmp_path: Path) -> None:
    async with telling(tmp_path, webhook=webhook("http://127.0.0.1:1/hook?hunter2")) as now:
        now.notifier.notify("connect-needed", None)
        ((_, detail),) = await now.ended(1)
    assert detail == (
        "the webhook failed: no answer from 127.0.0.1:1: Connection refused: "
        "nothing listens there: it is down, or its URL has a wrong host or port"
    )


def test_secrets_are_in_no_repr() -> None:
    assert "s3cret" not in repr(webhook("http://u:s3cret@h/", "s3cret"))
