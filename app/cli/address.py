"""Where a running sidecar listens: by a command's options, else by the variables that it reads itself.

Standard library only, and little of it: the health check has no time to import more.
"""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where it listens, not where we do
_PORT = "8080"


class Address(NamedTuple):
    """A Unix socket if there is one, else `host` and `port`."""

    host: str
    port: int
    unix_socket: str | None = None

    @property
    def url(self) -> str:
        """The origin, as in `Host`; over a Unix socket any will do."""
        if self.unix_socket is not None:
            return "http://localhost"
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def __str__(self) -> str:
        return self.unix_socket or self.url


def find_address(
    environ: Mapping[str, str], *, url: str | None = None, unix_socket: str | None = None
) -> Address:
    """Where the local API is. An option wins over the variables. ValueError says what is wrong with it."""
    if url is not None and unix_socket is not None:
        raise ValueError("--url and --unix-socket exclude each other")
    if url is not None:
        return _parse(url)
    if path := unix_socket or environ.get("COMPASS_UNIX_SOCKET", "").strip():
        return Address("localhost", 0, path)
    return _listener(environ, "COMPASS_HOST", environ.get("COMPASS_PORT", ""))


def find_health_address(
    environ: Mapping[str, str], *, url: str | None = None, unix_socket: str | None = None
) -> Address:
    """The same for health checks: the listener made for them, where there is one, comes first."""
    port = environ.get("COMPASS_HEALTH_PORT", "").strip()
    if url is None and unix_socket is None and _is_port(port):
        return _listener(environ, "COMPASS_HEALTH_HOST", port)
    return find_address(environ, url=url, unix_socket=unix_socket)


def _listener(environ: Mapping[str, str], variable: str, port: str) -> Address:
    host = environ.get(variable, "").split(",")[0].strip() or "127.0.0.1"
    # Kubernetes may have put an address of a Service there, which the sidecar passes over too.
    number = port.strip() if _is_port(port.strip()) else _PORT
    return Address(_WILDCARDS.get(host, host), int(number))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 65_536


def _parse(url: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http" or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise ValueError("--url should be http://HOST:PORT and nothing else; the sidecar speaks no TLS")
    return Address(host, port or 80)
