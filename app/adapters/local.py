"""The command line's way to a running sidecar: its local API, over TCP or the Unix socket."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.errors import SidecarError


class SidecarUnreachable(SidecarError):
    code = "sidecar-unreachable"
    retryable = True


@dataclass(frozen=True, slots=True)
class Local:
    """Where the sidecar is, and what opens it."""

    url: str = "http://127.0.0.1:8080"
    unix_socket: Path | None = None
    token: str | None = field(default=None, repr=False)

    def call(
        self,
        method: str,
        path: str,
        *,
        json: object | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> httpx.Response:
        """The answer, whatever its status. Raises SidecarUnreachable if there is none."""
        transport = httpx.HTTPTransport(uds=str(self.unix_socket)) if self.unix_socket else None
        sent = dict(headers or {})
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        try:
            with httpx.Client(transport=transport, trust_env=False, timeout=timeout) as client:
                return client.request(method, self.url + path, json=json, headers=sent)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            where = self.unix_socket or self.url
            raise SidecarUnreachable(f"no sidecar answers at {where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__
