"""`python -m app` and `compass-sidecar`: serve at once, or hand over to the command line.

Serving loads neither typer nor rich: they cost start time and memory that a sidecar never needs.
"""

import gc
import os
import resource
import sys
import warnings
from contextlib import suppress

from app.errors import SettingsError, SidecarError


def main() -> None:
    # Operators configure countries such as `Germany`, about which cryptography warns on every parse.
    warnings.filterwarnings("ignore", message="Attribute's length must be")
    if sys.argv[1:] in ([], ["serve"]):
        sys.exit(serve())
    from app.cli import app  # noqa: PLC0415 - see above

    app(prog_name="compass-sidecar")


def serve() -> int:
    """Run the sidecar; 2 if the configuration cannot be used, 1 if the store cannot be."""
    # Files are made with the mode that they need, but no umask may take them away from ourselves.
    os.umask(os.umask(0o077) & 0o077)
    # A core dump holds every key. One byte, not none: Linux then calls no handler of dumps (`|`) either.
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    # Importing allocates much and frees nothing: collecting meanwhile costs a fifth of the start.
    gc.disable()
    import uvloop  # noqa: PLC0415 - the other commands need no server

    from app.adapters.logs import configure_logging  # noqa: PLC0415
    from app.main import run  # noqa: PLC0415
    from app.settings import Settings, find_store_dir  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    try:
        settings = Settings.from_environment(os.environ, default_store_dir=find_store_dir())
        as_json = settings.log_format == "json" or (settings.log_format is None and not sys.stderr.isatty())
        configure_logging(level=settings.log_level, as_json=as_json)
        uvloop.run(run(settings, os.environ))
    except SettingsError as error:
        for problem in error.problems:
            print(f"compass-sidecar: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 0
    except SidecarError as error:
        print(f"compass-sidecar: {error.detail}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    main()
