"""Events go to the log and, in order, to the journal."""

import logging
import threading
from collections.abc import Mapping

import pytest

from compass_sidecar.engine.events import SHOWN, EventLog
from tests.support.authority import NOW


def test_an_event_is_logged_and_written_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    written: list[Mapping[str, object]] = []
    events = EventLog(now=lambda: NOW, append=written.append, tail=[])
    with caplog.at_level(logging.INFO):
        events.record("renewed", fingerprint="ab", not_after=NOW, detail=None)
    events.close()
    at = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
    assert written == [{"at": at, "event": "renewed", "fingerprint": "ab", "not_after": at}]
    assert caplog.records[0].message == "renewed"
    assert events.newest() == tuple(written)


def test_the_newest_are_kept_and_a_slow_disk_is_not_waited_for() -> None:
    go_on = threading.Event()
    written: list[Mapping[str, object]] = []

    def slowly(entry: Mapping[str, object]) -> None:
        go_on.wait(10)
        written.append(entry)

    events = EventLog(now=lambda: NOW, append=slowly, tail=[{"event": "old"}])
    for number in range(30):
        events.record("attempt-failed", number=number)
    assert [entry["number"] for entry in events.newest()] == list(range(30 - SHOWN, 30))
    assert written == []
    go_on.set()
    events.close()
    assert [entry["number"] for entry in written] == list(range(30))
