"""What a folder is asked and given from outside: a trial without a trace, a file replaced as a whole."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from compass_sidecar.adapters import files
from compass_sidecar.adapters.filestore import Store
from tests.support.authority import NOW


def test_a_trial_leaves_no_trace(tmp_path: Path) -> None:
    before = tmp_path.stat()
    files.try_out(tmp_path, 64 * 1024)
    after = tmp_path.stat()
    assert (after.st_mtime_ns, after.st_nlink) == (before.st_mtime_ns, before.st_nlink)
    assert list(tmp_path.iterdir()) == []


def test_a_trial_fails_where_writing_would(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(OSError, match=r"No such file|Not a directory"):
            files.try_out(path, 1)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_where_there_are_no_files_without_a_name_permission_and_room_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        files.try_out(tmp_path, 1)
        with pytest.raises(OSError, match="No space left on device"):
            files.try_out(tmp_path, 2**62)
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(PermissionError):
            files.try_out(tmp_path, 1)


def test_a_delivered_file_is_new_whole_and_keeps_its_mode_and_its_links(tmp_path: Path) -> None:
    target, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to("file")
    files.deliver(link, b"one")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    target.chmod(0o600)
    with target.open("rb") as reader:
        files.deliver(link, b"two")
        assert reader.read() == b"one"
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"two", 0o600)
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [target, link]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=files.deliver, args=(pipe, b"content"))
    writer.start()
    assert pipe.read_bytes() == b"content"
    writer.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_is_no_place_to_deliver_to(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        files.deliver(tmp_path, b"")
    with pytest.raises(FileNotFoundError):
        files.deliver(tmp_path / "none" / "file", b"")


def test_who_holds_a_store_is_known_from_outside(tmp_path: Path) -> None:
    assert Store.holder(tmp_path) is None
    store = Store.open(tmp_path, now=lambda: NOW, warn=lambda *_: None)
    assert Store.holder(tmp_path) == f"pid {os.getpid()} on {os.uname().nodename}"
    store.close()
    assert Store.holder(tmp_path) is None
