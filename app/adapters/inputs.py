"""What an operator may change while the sidecar runs: mounted credential files and tokens."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from ..core.credential import Credential
from ..core.token import OneTimeToken, parse_token
from ..errors import KeyMismatch, MalformedCredential, RequestRefused
from . import files
from .anchors import Anchors
from .reader import Reader

# kubelet swaps a Secret's files one volume at a time; a pair that does not fit now may in a moment.
_PATIENCE = 10
_PAUSE = timedelta(seconds=1)


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
        anchors: Anchors,
        token: str | None,
        token_file: Path | None,
        token_url: str | None,
        token_used: Callable[[str], bool],
    ) -> None:
        self._clock = clock
        self._files = files
        self._anchors = anchors
        self._token = token
        self._token_file = token_file
        self._token_url = token_url
        self._token_used = token_used
        self._spent: set[str] = set()
        self._pair_reader, self._token_reader = Reader("credential files"), Reader("token file")
        self._given_up = False
        self.awaited: str | None = None

    async def check_anchors(self) -> None:
        await self._anchors.check()

    async def credential(self) -> Credential | None:
        if self._files is None:
            return None
        try:
            return await self._changed_credential(self._files)
        except OSError as error:
            names = "COMPASS_CLIENT_CERTIFICATE_FILE or COMPASS_CLIENT_KEY_FILE"
            raise MalformedCredential(f"{names} cannot be read: {files.reason(error)}") from error

    async def _changed_credential(self, pair: Files) -> Credential | None:
        if not await self._pair_reader.run(pair.changed) and not self._given_up:
            return None
        self._given_up = False
        try:
            return await self._read(pair)
        except OSError:
            self._given_up = True  # the pair counts as seen, and nothing else would have it read again
            raise

    async def _read(self, pair: Files) -> Credential:
        for _ in range(_PATIENCE):
            try:
                return await self._pair_reader.run(pair.read)
            except KeyMismatch:
                await self._clock.sleep(_PAUSE)
        return await self._pair_reader.run(pair.read)

    async def token(self) -> OneTimeToken | None:
        text = await self._token_text()
        if not text:
            return None
        token = parse_token(text, self._token_url)
        if token.digest in self._spent or self._token_used(token.digest):
            return None
        return token

    def spend(self, token: OneTimeToken) -> None:
        self._spent.add(token.digest)

    async def _token_text(self) -> str:
        if self._token_file is None:
            return self._token or ""
        try:
            content = await self._token_reader.run(files.read_named, self._token_file)
            self.awaited = None
            return content.decode("utf-8-sig").strip()
        except FileNotFoundError:  # an operator may put it there later
            self.awaited = f"waiting for COMPASS_TOKEN_FILE {self._token_file}, checked every 30 s"
            return ""
        except (OSError, UnicodeDecodeError) as error:
            reason = files.reason(error) if isinstance(error, OSError) else "it is not UTF-8 text"
            raise RequestRefused(f"the token file {self._token_file} cannot be read: {reason}") from error
