"""Settings as a start reads them, files included."""

from collections.abc import Mapping
from pathlib import Path

from compass_sidecar.adapters.reader import Reader
from compass_sidecar.settings import SYSTEM_STORE_DIR, Settings

_READER = Reader("settings")


def settings_of(environ: Mapping[str, str], *, default_store_dir: Path = SYSTEM_STORE_DIR) -> Settings:
    return Settings.from_environment(environ, read=_READER.read, default_store_dir=default_store_dir)
