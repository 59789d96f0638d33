"""The command line's way to a running sidecar: its local API, over TCP or the Unix socket."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ..errors import SidecarError

_LONGEST = 4 * 1024 * 1024  # far above any answer of ours
_ERRNO = re.compile(r"\[Errno (-?[0-9]+)\] ")


class SidecarUnreachable(SidecarError):
    code = "sidecar-unreachable"
    retryable = True


class StrangeAnswer(SidecarError):
    code = "not-the-sidecar"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read to its end. `text` is for people or files, `content` for programs."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object. StrangeAnswer if it is none."""
        try:
            content = json.loads(self.text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise StrangeAnswer(f"an answer with status {self.status} that is not the sidecar's")
        return content


@dataclass(frozen=True, slots=True)
class Local:
    """Where the sidecar is, and what opens it."""

    url: str = "http://127.0.0.1:8080"
    unix_socket: str | None = None
    token: str | None = field(default=None, repr=False)

    def call(
        self,
        method: str,
        path: str,
        *,
        json: object | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        """The answer, whatever its status. Raises SidecarUnreachable if there is none, or StrangeAnswer."""
        sent = dict(headers or {})
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        try:
            transport = httpx.HTTPTransport(uds=self.unix_socket) if self.unix_socket else None
            with (
                httpx.Client(transport=transport, trust_env=False, timeout=timeout) as client,
                client.stream(method, self.url + path, json=json, headers=sent) as response,
            ):
                return Answer(response.status_code, response.headers, _read(response))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            where = self.unix_socket or self.url
            raise SidecarUnreachable(f"no sidecar answers at {where}: {_reason(error)}") from error


def _read(response: httpx.Response) -> str:
    chunks, size = [], 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > _LONGEST:
            raise StrangeAnswer("an answer without an end, which is not the sidecar's")
        chunks.append(chunk)
    return b"".join(chunks).decode("utf-8", "replace")


def _reason(error: Exception) -> str:
    """In a few words: httpx repeats the number of the error, and asyncio all addresses that it tried."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.RemoteProtocolError):
        return "what listens there does not speak HTTP as the sidecar does"
    text = str(error)
    if (number := _ERRNO.match(text)) and int(number[1]) > 0:
        return os.strerror(int(number[1]))
    return _ERRNO.sub("", text) or type(error).__name__
