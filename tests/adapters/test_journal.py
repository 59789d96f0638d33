"""The journal: the newest events survive crashes, rotations and disks that refuse them."""

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compass_sidecar.adapters.journal import Journal

MIB = 1024 * 1024


class Warnings:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def __call__(self, code: str, detail: str) -> None:
        self.codes.append(code)


@pytest.fixture
def warn() -> Warnings:
    return Warnings()


def numbers(journal: Journal, count: int) -> list[object]:
    return [event["number"] for event in journal.tail(count)]


def test_events_come_back_in_order_with_the_newest_last(tmp_path: Path, warn: Warnings) -> None:
    journal = Journal(tmp_path, warn=warn)
    for number in range(30):
        journal.append({"event": "renewed", "number": number, "at": "2026-11-23T20:03:00Z"})
    for each in (journal, Journal(tmp_path, warn=warn)):
        assert numbers(each, 20) == list(range(10, 30))
        assert numbers(each, 1) == [29]
        assert each.tail(0) == []
        assert numbers(each, 1000) == list(range(30))
    assert warn.codes == []


def test_a_line_is_the_event_and_nothing_else_whatever_its_text(tmp_path: Path, warn: Warnings) -> None:
    event = {
        "event": "renewal-failed",
        "detail": "one\ntwo\rthree\u2028four \x00 \U0001f525",
        "retryable": True,
    }
    Journal(tmp_path, warn=warn).append(event)
    content = (tmp_path / "journal.jsonl").read_bytes()
    assert content.count(b"\n") == 1
    assert json.loads(content) == event
    assert Journal(tmp_path, warn=warn).tail(1) == [event]


def test_the_file_is_for_us_alone(tmp_path: Path, warn: Warnings) -> None:
    before = os.umask(0)
    try:
        Journal(tmp_path, warn=warn).append({"number": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "journal.jsonl").stat().st_mode) == 0o600


def test_nobody_can_change_the_journal_through_what_tail_returned(tmp_path: Path, warn: Warnings) -> None:
    journal = Journal(tmp_path, warn=warn)
    journal.append({"number": 1})
    journal.tail(1)[0]["number"] = 2
    assert numbers(journal, 1) == [1]


def test_tail_reads_no_disk(tmp_path: Path, warn: Warnings) -> None:
    journal = Journal(tmp_path, warn=warn)
    journal.append({"number": 1})
    (tmp_path / "journal.jsonl").unlink()
    assert numbers(journal, 1) == [1]


def test_at_one_mebibyte_it_rotates_and_keeps_one_old_file(tmp_path: Path, warn: Warnings) -> None:
    journal = Journal(tmp_path, warn=warn)
    for number in range(700):
        journal.append({"number": number, "detail": "x" * 4000})
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"journal.jsonl", "journal.jsonl.1"}
    assert max(sizes.values()) <= MIB
    assert sizes["journal.jsonl.1"] > MIB - 5000
    lines = (tmp_path / "journal.jsonl.1").read_bytes() + (tmp_path / "journal.jsonl").read_bytes()
    kept = [json.loads(line)["number"] for line in lines.splitlines()]
    assert kept == list(range(kept[0], 700))
    assert numbers(Journal(tmp_path, warn=warn), 20) == list(range(680, 700))


def test_right_after_a_rotation_the_tail_comes_from_the_old_file(tmp_path: Path, warn: Warnings) -> None:
    journal = Journal(tmp_path, warn=warn)
    number = 0
    while not (tmp_path / "journal.jsonl.1").exists():
        journal.append({"number": number, "detail": "x" * 10_000})
        number += 1
    assert len((tmp_path / "journal.jsonl").read_bytes().splitlines()) == 1
    assert numbers(Journal(tmp_path, warn=warn), 5) == list(range(number - 5, number))


@pytest.mark.parametrize(
    "torn",
    [b'{"number": 2', b"{", b"\x00" * 100, b"\xff\xfe", b'{"number": 2}', b"[1]\n5\nnull\n", b"[" * 90_000],
)
def test_a_torn_last_line_is_passed_over_and_the_next_begins_on_its_own(
    tmp_path: Path, warn: Warnings, torn: bytes
) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b'{"number": 1}\n' + torn)
    journal = Journal(tmp_path, warn=warn)
    journal.append({"number": 3})
    assert numbers(journal, 9)[-1] == 3
    again = numbers(Journal(tmp_path, warn=warn), 9)
    assert again == ([1, 2, 3] if torn.endswith(b"}") else [1, 3])
    assert (tmp_path / "journal.jsonl").read_bytes().splitlines()[-1] == b'{"number": 3}'
    assert warn.codes == []


def test_a_line_that_was_cut_by_a_full_disk_costs_only_itself(
    tmp_path: Path, warn: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, warn=warn)
    journal.append({"number": 1})
    real = os.write
    budget = [5]

    def short(descriptor: int, content: bytes) -> int:
        if not budget[0]:
            raise OSError(28, "No space left on device")
        written = real(descriptor, bytes(content)[: budget[0]])
        budget[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        journal.append({"number": 2})
    assert warn.codes == ["journal-write-failed"]
    journal.append({"number": 3})
    assert numbers(journal, 9) == [1, 2, 3]
    assert numbers(Journal(tmp_path, warn=warn), 9) == [1, 3]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to("/etc/passwd"),
        os.mkfifo,
    ],
)
def test_what_cannot_be_written_is_a_warning_and_stays_in_memory(
    tmp_path: Path, warn: Warnings, spoil: Callable[[Path], Any]
) -> None:
    spoil(tmp_path / "journal.jsonl")
    journal = Journal(tmp_path, warn=warn)
    journal.append({"number": 1})
    assert numbers(journal, 1) == [1]
    assert set(warn.codes) <= {"journal-write-failed", "journal-unreadable"}
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_is_gone_is_a_warning(tmp_path: Path, warn: Warnings) -> None:
    journal = Journal(tmp_path / "gone", warn=warn)
    journal.append({"number": 1})
    assert warn.codes == ["journal-write-failed"]


def test_an_event_that_is_no_json_is_a_warning(tmp_path: Path, warn: Warnings) -> None:
    journal = Journal(tmp_path, warn=warn)
    circle: dict[str, object] = {"number": 1}
    circle["self"] = circle
    journal.append(circle)
    journal.append({"number": 2, "path": tmp_path})
    assert warn.codes == ["journal-write-failed"]
    assert journal.tail(9) == [{"number": 2, "path": str(tmp_path)}]


def test_threads_never_mix_their_lines(tmp_path: Path, warn: Warnings) -> None:
    journal = Journal(tmp_path, warn=warn)

    def work(thread: int) -> None:
        for number in range(100):
            journal.append({"number": number, "thread": thread, "detail": "x" * 2000})

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    lines = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir(), reverse=True)).splitlines()
    events = [json.loads(line) for line in lines]
    for thread in range(8):
        mine = [event["number"] for event in events if event["thread"] == thread]
        assert mine == list(range(100))[-len(mine) :]
    assert warn.codes == []
