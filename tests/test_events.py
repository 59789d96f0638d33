"""Events go to the log and, in order, to the journal."""

import logging
from collections.abc import Mapping

import pytest

from compass_sidecar.core.catalogue import Event
from compass_sidecar.engine.events import SHOWN, EventLog
from tests.support.authority import NOW


def test_an_event_is_logged_and_written_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    written: list[Mapping[str, object]] = []
    events = EventLog(now=lambda: NOW, append=written.append, tail=[])
    with caplog.at_level(logging.INFO):
        events.record(Event.RENEWED, fingerprint="ab", not_after=NOW, detail=None)
    at = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
    assert written == [{"at": at, "event": "renewed", "fingerprint": "ab", "not_after": at}]
    assert caplog.records[0].message == "renewed"
    assert events.newest() == tuple(written)


def test_the_newest_are_kept() -> None:
    events = EventLog(now=lambda: NOW, append=lambda _: None, tail=[{"event": "old"}])
    for number in range(30):
        events.record(Event.ATTEMPT_FAILED, detail=str(number))
    assert [int(str(entry["detail"])) for entry in events.newest()] == list(range(30 - SHOWN, 30))


def test_a_journal_that_has_no_thread_fails_no_renewal(caplog: pytest.LogCaptureFixture) -> None:
    def starved(entry: Mapping[str, object]) -> None:
        raise RuntimeError("can't start new thread")

    observed: list[str] = []
    events = EventLog(
        now=lambda: NOW, append=starved, tail=[], observe=lambda event, _: observed.append(event)
    )
    events.record(Event.RENEWED, fingerprint="ab")
    assert [entry["event"] for entry in events.newest()] == observed == ["renewed"]
    assert caplog.records[-1].message == "internal-error"
    assert caplog.records[-1].exc_info is not None
