"""`python -m app` and `compass-sidecar`: serve or check health at once, or hand over to the command line.

Neither loads typer or rich: they cost start time, and memory that a sidecar never needs.
"""

import gc
import os
import sys
import warnings
from contextlib import suppress


def main() -> None:
    # httpx's own command line, which it imports wherever click and rich are installed: 6 MiB for nothing.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - for as long as we live
    arguments = sys.argv[1:]
    serving = arguments in ([], ["serve"])
    try:
        sys.exit(serve() if serving else _command(arguments))
    except KeyboardInterrupt:  # most likely in the middle of an import
        sys.exit(0 if serving else 130)


def _command(arguments: list[str]) -> int:
    if arguments[:1] == ["healthcheck"]:
        from .cli.healthcheck import main as healthcheck  # noqa: PLC0415 - see above

        return healthcheck(arguments[1:], os.environ)
    _silence_warnings()
    from .cli.commands import main as command_line  # noqa: PLC0415 - see above

    return command_line()


def _silence_warnings() -> None:
    # cryptography warns of what others put into certificates: countries such as `Germany`, serial number 0.
    warnings.simplefilter("ignore", UserWarning)


def serve() -> int:
    """Run the sidecar; 2 if the configuration cannot be used, 1 if the store cannot be."""
    import signal  # noqa: PLC0415 - the health check has no time for it

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _leave)
    # Its default ends the process. A handler, since what is ignored would be ignored by our commands too.
    signal.signal(signal.SIGHUP, lambda *_: None)
    import resource  # noqa: PLC0415 - as above, and after the handlers

    _silence_warnings()
    # Files are made with the mode that they need, but no umask may take them away from ourselves.
    os.umask(os.umask(0o077) & 0o077)
    # A core dump holds every key. One byte, not none: Linux then calls no handler of dumps (`|`) either.
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    # A start allocates much and frees nothing: collecting meanwhile costs a fifth of it. `run` enables it.
    gc.disable()
    from .main import serve_until_signal  # noqa: PLC0415 - the other commands need no server

    return serve_until_signal(os.environ)


def _leave(*_: object) -> None:
    """Until the server listens, and handles signals itself. What the store does bears being killed; and
    as a container's process 1 we would outlive a signal that nobody handles."""
    try:
        if "logging" in sys.modules:
            sys.modules["logging"].shutdown()
    finally:  # whatever state an import has left it in
        os._exit(0)


if __name__ == "__main__":
    main()
