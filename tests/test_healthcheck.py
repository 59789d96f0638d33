"""The health check: what it makes of each kind of answer, and that it stays small."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from compass_sidecar.cli.healthcheck import main
from tests.support.processes import ROOT
from tests.support.scripted_server import SilentListener

HEAD = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\n\r\n"
STALLED = json.dumps({"code": "stalled", "detail": "It has not turned.\x1b[2J"}).encode()


@contextmanager
def answering(answer: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """The URL of somebody who answers one request with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(65536)
                if asked is not None:
                    asked.append(request)
                with suppress(ConnectionError):  # it leaves once it has seen enough of a long answer
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (HEAD % b"200 OK" + b"ok\n", 0, "ok"),
        (HEAD % b"503 Service Unavailable" + STALLED, 1, "stalled: It has not turned.\\u001b[2J"),
        (HEAD % b"200 OK" + b"<html>", 1, "is not the sidecar"),
        (HEAD % b"503 No" + b"[1]", 1, "is not the sidecar"),
        (b"", 1, "is not the sidecar"),
        (b"SSH-2.0\r\n", 1, "is not the sidecar"),
        (HEAD % b"200 OK" + b"x" * 1_000_000, 1, "is not the sidecar"),
    ],
)
def test_an_answer_is_judged(
    answer: bytes, status: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with answering(answer) as url:
        assert main(["--url", url], {}) == status
    out, err = capfd.readouterr()
    assert said in (err if status else out)
    assert len((out + err).splitlines()) == 1


def test_it_asks_for_life_unless_readiness_is_wanted() -> None:
    asked: list[bytes] = []
    for options in ([], ["--ready"]):
        with answering(HEAD % b"200 OK" + b"ok\n", asked) as url:
            assert main([*options, "--url", url], {}) == 0
    assert [request.split()[1] for request in asked] == [b"/livez", b"/readyz"]


def test_json_is_for_programs(capfd: pytest.CaptureFixture[str]) -> None:
    with answering(HEAD % b"200 OK" + b"ok\n") as url:
        assert main(["--json", "--url", url], {}) == 0
    assert json.loads(capfd.readouterr().out) == {"healthy": True, "detail": "ok"}


def test_nobody_there_is_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--unix-socket", str(tmp_path / "none")], {}) == 1
    assert main(["--unix-socket", "x" * 200], {}) == 1
    assert main(["--url", "http://a..b:1"], {}) == 1
    with SilentListener() as mute:
        assert main(["--url", f"http://127.0.0.1:{mute.port}", "--timeout", "100ms"], {}) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("compass-sidecar: no ") for line in lines)


@pytest.mark.parametrize("arguments", [["--url", "https://h"], ["--timeout", "soon"], ["--nonsense"], ["x"]])
def test_wrong_use_is_status_2_and_a_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments, {})
    assert exit_info.value.code == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


LOADED = """
import sys
sys.argv[0] = "compass-sidecar"
from compass_sidecar.__main__ import main
try:
    main()
except SystemExit:
    print(*sorted(name for name, module in sys.modules.items() if module is not None))
"""


def loaded(*arguments: str, **environment: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return set(done.stdout.split())


def test_the_health_check_loads_nothing_but_the_standard_library_and_little_of_that() -> None:
    modules = loaded("healthcheck", "--url", "http://127.0.0.1:1")
    assert "compass_sidecar.cli.healthcheck" in modules
    ours = {name for name in modules if name.startswith("compass_sidecar")}
    assert ours == {
        "compass_sidecar",
        "compass_sidecar.__main__",
        "compass_sidecar.cli",
        "compass_sidecar.cli.address",
        "compass_sidecar.core",
        "compass_sidecar.core.text",
        "compass_sidecar.cli.healthcheck",
    }
    assert modules.isdisjoint(
        {"typer", "rich", "httpx", "pydantic", "cryptography", "asyncio", "http.client"}
    )


def test_serving_loads_neither_typer_nor_rich() -> None:
    modules = loaded("serve", COMPASS_PORT="none")
    assert "compass_sidecar.main" in modules
    assert modules.isdisjoint(
        {"typer", "rich", "compass_sidecar.cli.commands", "compass_sidecar.cli.display"}
    )
