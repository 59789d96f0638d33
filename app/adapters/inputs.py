"""What an operator may change while the sidecar runs: mounted credential files and tokens."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from ..core.credential import Credential
from ..core.token import OneTimeToken, parse_token
from ..errors import KeyMismatch, RequestRefused

# kubelet swaps a Secret's files one volume at a time; a pair that does not fit now may in a moment.
_PATIENCE = 10
_PAUSE = timedelta(seconds=1)
_LONGEST_TOKEN = 16 * 1024


class Files(Protocol):
    """Blocking."""

    def changed(self) -> bool:
        """Whether the files are others than at the last `read`; True before the first."""

    def read(self) -> Credential:
        """Raises CredentialError, with a sentence that names the file."""


class Clock(Protocol):
    async def sleep(self, duration: timedelta) -> None: ...


class OperatorInputs:
    """Looked at on start and at every look of the loop; only what has changed is read."""

    def __init__(
        self,
        *,
        clock: Clock,
        files: Files | None,
        token: str | None,
        token_file: Path | None,
        token_url: str | None,
        token_used: Callable[[str], bool],
    ) -> None:
        self._clock = clock
        self._files = files
        self._token = token
        self._token_file = token_file
        self._token_url = token_url
        self._token_used = token_used
        self._spent: set[str] = set()

    async def credential(self) -> Credential | None:
        if self._files is None or not await asyncio.to_thread(self._files.changed):
            return None
        for _ in range(_PATIENCE):
            try:
                return await asyncio.to_thread(self._files.read)
            except KeyMismatch:
                await self._clock.sleep(_PAUSE)
        return await asyncio.to_thread(self._files.read)

    async def token(self) -> OneTimeToken | None:
        text = await asyncio.to_thread(self._read_token)
        if not text:
            return None
        token = parse_token(text, self._token_url)
        if token.digest in self._spent or self._token_used(token.digest):
            return None
        return token

    def spend(self, token: OneTimeToken) -> None:
        self._spent.add(token.digest)

    def _read_token(self) -> str:
        if self._token_file is None:
            return self._token or ""
        try:
            with self._token_file.open("rb") as file:
                return file.read(_LONGEST_TOKEN + 1).decode("utf-8-sig").strip()
        except FileNotFoundError:
            return ""  # an operator may put it there later
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise RequestRefused(f"the token file {self._token_file} cannot be read: {reason}") from error
