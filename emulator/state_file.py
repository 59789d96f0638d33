"""What outlives a restart besides keys: system auths with their tokens, and revoked fingerprints."""

import asyncio
import contextlib

from .director import Director
from .folder import Folder
from .registry import Registry

_NAME = "state.json"
_SOON_SECONDS = 0.1  # a write takes as long as half a call, and a soak test mints a token per call


class StateFile:
    """Saved a moment after a change, with all the changes until then, and at the end."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._saving: asyncio.TimerHandle | None = None
        self._director: Director | None = None
        self._registry: Registry | None = None

    def load(self, director: Director, registry: Registry) -> None:
        """Fills them with what was saved, and saves them from now on."""
        state = self._folder.read_json(_NAME)
        with contextlib.suppress(TypeError, ValueError):  # a damaged file is no reason not to start
            director.load(state.get("system_auths", []), state.get("owners", {}))
            registry.load(state.get("revoked", []))
        self._director, self._registry = director, registry

    def changed(self) -> None:
        """To be called after every change."""
        with contextlib.suppress(RuntimeError):  # without an event loop nobody has opened the doors yet
            if self._saving is None:
                self._saving = asyncio.get_running_loop().call_later(_SOON_SECONDS, self.save)

    def save(self) -> None:
        """Writes now."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        if self._director is not None and self._registry is not None:
            state = {**self._director.dump(), "revoked": self._registry.dump()}
            self._folder.write_json(_NAME, state)
