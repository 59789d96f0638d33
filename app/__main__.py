"""`python -m app` and `compass-sidecar`: serve at once, or hand over to the command line.

Serving loads neither typer nor rich: they cost start time and memory that a sidecar never needs.
"""

import gc
import logging
import os
import signal
import sys
import warnings

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
    # A start may take long, and as a container's process 1 we outlive each signal that nobody handles.
    # Until the server does, nothing of ours needs more care than a kill gets.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # Importing allocates much and frees nothing: collecting meanwhile costs a fifth of the start.
    gc.disable()
    import uvloop  # noqa: PLC0415 - the other commands need no server

    from app.adapters.logs import ForPeople, JSONLines, configure_logging  # noqa: PLC0415
    from app.main import run  # noqa: PLC0415
    from app.settings import Settings, find_store_dir  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    try:
        settings = Settings.from_environment(os.environ, default_store_dir=find_store_dir())
        terminal = sys.stderr.isatty()
        if (settings.log_format or ("console" if terminal else "json")) == "json":
            formatter: logging.Formatter = JSONLines()
        else:
            formatter = ForPeople(color=terminal and not os.environ.get("NO_COLOR"))
        configure_logging(level=settings.log_level, formatter=formatter)
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
