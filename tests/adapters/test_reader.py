"""Files that an operator names: regular ones only, and nothing waits for a mount that hangs."""

import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from compass_sidecar.adapters.files import read_named
from compass_sidecar.adapters.reader import Reader

pytestmark = pytest.mark.anyio
A_MOMENT = timedelta(milliseconds=100)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def refusal(path: Path | str) -> str:
    with pytest.raises(OSError, match=r".") as caught:
        Reader("test").read(Path(path))
    return str(caught.value.strerror)


def test_a_regular_file_is_read_through_links_and_up_to_a_mebibyte(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2**20)
    (tmp_path / "link").symlink_to("file")
    assert Reader("test").read(tmp_path / "link") == b"x" * 2**20
    (tmp_path / "file").write_bytes(b"x" * (2**20 + 1))
    assert refusal(tmp_path / "link") == "it is larger than 1048576 bytes"


def test_what_is_no_regular_file_is_refused_in_words(tmp_path: Path, pipe: tuple[int, int]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket") == "it is a socket, and not a regular file"
    assert refusal(tmp_path / "pipe") == "it is a pipe, and not a regular file"
    assert refusal(tmp_path) == "it is a folder"
    assert refusal("/dev/zero") == "it is a device, and not a regular file"
    for name in ("/dev/stdin", f"/dev/fd/{pipe[0]}", f"/proc/self/fd/{pipe[0]}", "/dev/../dev/stdin"):
        assert refusal(name) == "it is standard input or a pipe, and not a regular file"


def test_an_open_file_is_refused_even_if_it_is_a_regular_one(tmp_path: Path) -> None:
    """As with `compass-sidecar < token`: the next look would begin where this one ended."""
    with (tmp_path / "file").open("w+b") as file:
        assert refusal(f"/dev/fd/{file.fileno()}") == "it is standard input or a pipe, and not a regular file"


async def test_while_one_look_hangs_no_second_one_begins(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    reader, healed, looked = Reader("test", limit=A_MOMENT), threading.Event(), threading.Event()
    with pytest.raises(TimeoutError) as caught:
        await reader.run(healed.wait, 30)
    assert caught.value.strerror == "its file system has not answered for 0.1 s"
    with pytest.raises(TimeoutError) as caught:
        await reader.run(looked.set)
    assert caught.value.strerror == "an earlier attempt to read it has not ended"
    with pytest.raises(TimeoutError):
        reader.read(tmp_path / "file")
    assert not looked.is_set()
    healed.set()


async def test_a_mount_that_answers_again_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    reader, healed, left = Reader("test", limit=A_MOMENT), threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        await reader.run(lambda: (healed.wait(30), left.set()))
    healed.set()
    assert left.wait(30)
    while True:
        try:
            assert reader.read(tmp_path / "file") == b"content"
        except TimeoutError:  # the thread has not handed it over yet, or this machine is slow
            continue
        break


async def test_what_a_look_raises_is_raised() -> None:
    with pytest.raises(FileNotFoundError):
        await Reader("test").run(read_named, Path("/nowhere/at/all"))
    with pytest.raises(KeyError):
        await Reader("test").run(dict[str, str]().__getitem__, "x")
