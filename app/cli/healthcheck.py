"""`compass-sidecar healthcheck`: for a container's HEALTHCHECK, so that nothing but Python is needed there.

It runs every few seconds for years, and so imports nothing but a little of the standard library.

It asks for `/livez`: whoever acts on the answer can only restart the container, and that heals a loop
that hangs, but neither a Connector that is down nor a missing token. `--ready` asks for `/readyz`, for
those who wait for a credential, such as `depends_on: {condition: service_healthy}`.
"""

import argparse
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from ..core.text import parse_duration, visible
from .address import Address, find_health_address

_LONGEST = 64 * 1024
_OK = b"ok\n"
_HELP = """\
exit status: 0 healthy, 1 not healthy, 2 wrong use

examples:
  HEALTHCHECK CMD ["compass-sidecar", "healthcheck"]
  compass-sidecar healthcheck --ready --url http://127.0.0.1:8080
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"compass-sidecar: {message}; see `compass-sidecar healthcheck --help`\n")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Ask once; the exit status. Says why in one line."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        address = find_health_address(environ, url=asked.url, unix_socket=asked.unix_socket)
    except ValueError as error:
        parser.error(str(error))
    healthy, said = _ask(address, "/readyz" if asked.ready else "/livez", asked.timeout)
    line = _as_json(healthy, said) if asked.json else f"{'' if healthy else 'compass-sidecar: '}{said}"
    with suppress(OSError):  # the status is the answer, and nobody who listens is no reason for another
        os.write(1 if healthy or asked.json else 2, f"{line}\n".encode(errors="replace"))
    return 0 if healthy else 1


def _parser() -> _Parser:
    parser = _Parser(
        prog="compass-sidecar healthcheck",
        description="Ask the sidecar whether it is alive; for a container's HEALTHCHECK.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ready", action="store_true", help="ask for a usable credential as well (/readyz)")
    parser.add_argument("--url", help="where it listens; default from COMPASS_HEALTH_PORT, else COMPASS_PORT")
    parser.add_argument("--unix-socket", help="the socket on which it listens; default COMPASS_UNIX_SOCKET")
    parser.add_argument("--timeout", type=_seconds, default="5s", help="how long it may take; default 5s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _seconds(text: str) -> float:
    try:
        return parse_duration(text).total_seconds() or 0.001  # 0 would be no limit at all
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _ask(address: Address, path: str, timeout: float) -> tuple[bool, str]:
    try:
        answer = _get(address, path, timeout)
    except TimeoutError:
        return False, f"no answer from {address} within {timeout:g} s"
    except (OSError, UnicodeError) as error:  # a host name may be none
        reason = getattr(error, "strerror", None) or "not a host name"
        return False, f"no sidecar answers at {address}: {reason}"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ")[1:2]
    if status == [b"200"] and body == _OK:
        return True, "ok"
    return False, _reason(body) or f"what answers at {address} is not the sidecar"


def _get(address: Address, path: str, timeout: float) -> bytes:
    """The whole answer, with one limit around all of it."""
    end = time.monotonic() + timeout
    with _connect(address, timeout) as connection:
        host = address.url.removeprefix("http://")
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _LONGEST:
            if (left := end - time.monotonic()) <= 0:
                raise TimeoutError
            connection.settimeout(left)
            part = connection.recv(_LONGEST)
            if not part:
                break
            answer += part
        return answer


def _connect(address: Address, timeout: float) -> socket.socket:
    if address.unix_socket is None:
        return socket.create_connection((address.host, address.port), timeout)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(address.unix_socket)
    except BaseException:
        connection.close()
        raise
    return connection


def _reason(body: bytes) -> str | None:
    """The code and the detail of a problem of the sidecar's."""
    import json  # noqa: PLC0415 - only if something is wrong

    try:
        problem = json.loads(body)
        text = f"{problem['code']}: {problem['detail']}"
    except (ValueError, TypeError, KeyError):
        return None
    return visible(text)


def _as_json(healthy: bool, said: str) -> str:
    import json  # noqa: PLC0415 - not for the usual case

    return json.dumps({"healthy": healthy, "detail": said})
