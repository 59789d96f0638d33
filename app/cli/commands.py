"""The command line: what an operator asks a running sidecar, and `check`, which needs none.

Exit status: 0 good, 1 something is wrong, 2 wrong use or configuration, 130 interrupted. Every error is
one line on stderr.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from .. import __version__
from ..adapters import files
from ..adapters.clock import Clock
from ..adapters.local import Local, StrangeAnswer
from ..errors import SettingsError, SidecarError
from . import display
from .client import (
    WrongUse,
    content_of,
    date_of,
    find_sidecar,
    one_time_token,
    parse_fingerprint,
    parse_limit,
    print_json,
)
from .healthcheck import main as ask_health

_ABOUT = """Holds, renews and serves an application's Compass client certificate.

Without a command it serves, configured by COMPASS_ variables. The other commands talk to the sidecar that
runs: they find it by the same variables, or by --url or --unix-socket, and present COMPASS_API_TOKEN.

\b
First steps:
  compass-sidecar check     what is right and wrong with configuration and Connector
  compass-sidecar           serve
  compass-sidecar status    what it holds, what happens next, why it does not
"""
_EXIT = """\b
Exit status:
  0  good
  1  something is wrong: with the sidecar, its credential or the Connector
  2  wrong use, or a configuration that cannot be used
  130  interrupted
"""
_EPILOG = f"{_EXIT}\nEach command has --help with examples, and --json for programs."

app = typer.Typer(
    help=_ABOUT,
    epilog=_EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_MEDIA_TYPES = {"pem": "application/pem-certificate-chain", "json": "application/json"}
_PEM = re.compile(r"(-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+")
_UNDER_WAY = "still under way; see `compass-sidecar status`"
_TYPED = 12  # digits of a fingerprint that somebody has to type to revoke it
_PAUSE = 0.3  # seconds between two looks of `wait`
_SLOWEST = 330.0  # the sidecar itself answers within five minutes

URL = Annotated[str | None, typer.Option(metavar="URL", help="Where the sidecar listens: http://HOST:PORT.")]
Socket = Annotated[str | None, typer.Option(metavar="PATH", help="The Unix socket on which it listens.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON, the API's own.")]


class Format(StrEnum):
    PEM = "pem"
    JSON = "json"


def main() -> int:
    """Run the command in `sys.argv`; the exit status."""
    _prepare_streams()
    try:
        status = app(prog_name="compass-sidecar", standalone_mode=False)
        sys.stdout.flush()
    except SidecarError as error:
        return _complain(error.detail, 2 if isinstance(error, WrongUse) else 1)
    except TyperException as error:
        return _complain(
            f"{error.format_message().rstrip('.')}; see `compass-sidecar --help`", error.exit_code
        )
    except (Abort, EOFError):
        return _complain("nobody answered")
    except OSError as error:
        # Python must not try to write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 1  # whoever read our output has left, and knows
        return _complain(f"the output cannot be written: {files.reason(error)}")
    return status if isinstance(status, int) else 0


def _prepare_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        # An old terminal's encoding may lack a character of ours or of a subject's.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _complain(text: str, status: int = 1) -> int:
    typer.echo(f"compass-sidecar: {display.plain(text)}", err=True)
    return status


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"compass-sidecar {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """See `_ABOUT`."""


def _epilog(*examples: str, status: str = "0 good, 1 something is wrong, 2 wrong use.") -> str:
    lines = "\n".join(f"  compass-sidecar {example}".rstrip() for example in examples)
    return f"\b\nExamples:\n{lines}\n\nExit status: {status}"


# --- commands ----------------------------------------------------------------------------------


@app.command(
    epilog=_epilog(
        "",
        "serve 2> log",
        status="0 ended by SIGTERM or SIGINT, 1 the store is in use or fails, 2 a wrong configuration.",
    )
)
def serve() -> None:
    """Run the sidecar; the default command.

    It is configured by COMPASS_ variables: see docs/configuration.md.
    """
    from ..__main__ import serve as run  # noqa: PLC0415 - the other commands need no server

    raise typer.Exit(run())


@app.command(
    epilog=_epilog(
        "check",
        "check --json | jq '.checks[] | select(.outcome == \"failed\")'",
        status="0 all is well, 1 something is wrong, 2 the configuration cannot be used.",
    )
)
def check(as_json: AsJSON = False) -> None:
    """Find out what is wrong, and change nothing.

    Looks at configuration, store, credential, clock, and the way to the Connector: name, proxy, TLS, and a
    call that the Connector has to authenticate. Each line says what was looked at and, if it is wrong, what
    to do about it. No running sidecar is needed or disturbed. Run it where the sidecar runs, with the same
    variables.
    """
    from .check import examine  # noqa: PLC0415 - the other commands need no settings and no cryptography
    from .findings import Finding, Outcome  # noqa: PLC0415

    findings: list[Finding] = []
    try:
        console = display.out()
        with display.progress("checking", console=console):

            def report(finding: Finding) -> None:
                findings.append(finding)
                if not as_json:
                    display.show_finding(finding.name, finding.outcome, finding.detail, console=console)

            examine(os.environ, report)
    except SettingsError as error:
        findings = [Finding("configuration", Outcome.FAILED, problem) for problem in error.problems]
        if as_json:
            print_json({"ok": False, "checks": [asdict(each) for each in findings]})
        for problem in error.problems:
            _complain(problem)
        raise typer.Exit(2) from error
    ok = all(each.outcome is not Outcome.FAILED for each in findings)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(each) for each in findings]})
    raise typer.Exit(0 if ok else 1)


@app.command(
    epilog=_epilog(
        "status", "status --json | jq .renewal", status="0 connected, 1 any other state, such as degraded."
    )
)
def status(url: URL = None, unix_socket: Socket = None, as_json: AsJSON = False) -> None:
    """Show what it holds and what comes next.

    The state and its reasons, the certificate, when it is renewed, and why the last attempt failed.
    """
    sidecar = find_sidecar(os.environ, url, unix_socket)
    answer = sidecar.call("GET", "/status")
    content = content_of(answer, as_json=as_json)
    if as_json:
        print_json(content)
    else:
        try:
            display.show_status(content, where=sidecar.unix_socket or sidecar.url, now=date_of(answer))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StrangeAnswer("an answer that is not the sidecar's") from error
    raise typer.Exit(0 if content.get("state") == "connected" else 1)


@app.command(epilog=_epilog("renew", "renew --json | jq .certificate.not_after"))
def renew(url: URL = None, unix_socket: Socket = None, as_json: AsJSON = False) -> None:
    """Renew now, and show the new certificate.

    The schedule does not matter. The old one stays in use until the Connector has accepted the new one, and
    if that fails.
    """
    sidecar = find_sidecar(os.environ, url, unix_socket)
    with _going_on("renewing: a new key, its signature, and its proof"):
        answer = sidecar.call("POST", "/renew", timeout=_SLOWEST, headers={"Prefer": "wait=300"})
    _show_renewed(content_of(answer, as_json=as_json), "renewed", as_json=as_json)


@app.command(
    epilog=_epilog(
        "connect --token-file token --connector-url https://compass-gateway.example.org/connector/graphql",
        "connect --token-file - < token",
        "connect                                  (asks for the token, or takes it from COMPASS_TOKEN)",
    )
)
def connect(
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File with the one-time token; - is standard input."),
    ] = None,
    connector_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Token-Secured Connector URL, for a plain token; default COMPASS_TOKEN_CONNECTOR_URL.",
        ),
    ] = None,
    url: URL = None,
    unix_socket: Socket = None,
    as_json: AsJSON = False,
) -> None:
    """Connect with a one-time token.

    For the first time, or anew after expiry or revocation. The token comes from --token-file, else
    COMPASS_TOKEN or COMPASS_TOKEN_FILE, else standard input, where it is asked for on a terminal. It is no
    argument, since every user of the machine can see those. A token that brings its URL along needs no
    --connector-url. The sidecar wants its API token, or the Unix socket.
    """
    sidecar = find_sidecar(os.environ, url, unix_socket)
    token, source = one_time_token(os.environ, token_file)
    connector_url = connector_url or os.environ.get("COMPASS_TOKEN_CONNECTOR_URL", "").strip() or None
    body = {"token": token} | ({"connector_url": connector_url} if connector_url else {})
    with _going_on("connecting: a key, its signature, and its proof"):
        answer = sidecar.call("POST", "/connect", json=body, timeout=_SLOWEST)
    content = content_of(answer, as_json=as_json, hint=f"the token came from {source}")
    _show_renewed(content, "connected", as_json=as_json)


@app.command(
    epilog=_epilog(
        "revoke                                   (shows the certificate and asks)",
        'revoke --confirm "$(compass-sidecar status --json | jq -r .certificate.fingerprint_sha256)"',
    )
)
def revoke(
    confirm: Annotated[
        str | None,
        typer.Option(metavar="FINGERPRINT", help="SHA-256 of the current certificate, in hex."),
    ] = None,
    url: URL = None,
    unix_socket: Socket = None,
    as_json: AsJSON = False,
) -> None:
    """Revoke the current certificate, for good.

    Nobody accepts it any more, and only a new one-time token, or a newer import, leads out of that. The
    sidecar wants its API token, or the Unix socket.
    """
    sidecar = find_sidecar(os.environ, url, unix_socket)
    fingerprint = parse_fingerprint(confirm) if confirm is not None else _ask_which(sidecar)
    with _going_on("revoking"):
        answer = sidecar.call("POST", "/revoke", json={"confirm": fingerprint}, timeout=_SLOWEST)
    content = content_of(answer, as_json=as_json)
    if as_json:
        print_json(content)
    else:
        typer.echo(f"revoked: {fingerprint}" if content.get("revoked") else _UNDER_WAY)
    raise typer.Exit(0 if content.get("revoked") else 1)


@app.command(
    epilog=_epilog(
        "certificate -o chain.pem", "certificate | openssl x509 -noout -dates", "certificate --json"
    )
)
def certificate(
    form: Annotated[
        Format, typer.Option("--format", help="The chain as PEM, or all about it as JSON.")
    ] = Format.PEM,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write it here, by one rename; default: print it."
        ),
    ] = None,
    url: URL = None,
    unix_socket: Socket = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print the chain, or write it to a file.

    Leaf first, without the key.
    """
    form = Format.JSON if as_json else form
    sidecar = find_sidecar(os.environ, url, unix_socket)
    answer = sidecar.call("GET", "/certificate", headers={"Accept": _MEDIA_TYPES[form]})
    if answer.status != 200:
        content_of(answer, as_json=as_json)
    if form is Format.PEM and not _PEM.fullmatch(answer.text):
        raise StrangeAnswer("an answer that is not the sidecar's")
    text = answer.text if form is Format.PEM else json.dumps(answer.content, indent=2) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        files.deliver(output, text.encode())
    except OSError as error:
        raise SidecarError(f"{output} cannot be written: {files.reason(error)}") from error


@app.command(
    epilog=_epilog(
        "wait && exec my-application",
        "wait --timeout 0 --unix-socket /run/compass/api.sock",
        status="0 ready, 1 not ready in time, 2 wrong use.",
    )
)
def wait(
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long at most, such as 30s or 10m; 0: for ever.")
    ] = "5m",
    url: URL = None,
    unix_socket: Socket = None,
    as_json: AsJSON = False,
) -> None:
    """Wait until it is ready: for entrypoints.

    Ready means that it runs, and has a credential that can be used. The sidecar need not have been started
    yet.
    """
    sidecar = find_sidecar(os.environ, url, unix_socket)
    reason = _wait(sidecar, parse_limit(timeout))
    if as_json:
        print_json({"ready": reason is None, "reason": reason})
    if reason is not None:
        raise SidecarError(f"not ready after {timeout}: {reason}")
    if not as_json:
        typer.echo("ready")


@app.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def healthcheck(context: typer.Context) -> None:
    """Ask if it is alive: for HEALTHCHECK."""
    raise typer.Exit(ask_health(context.args, os.environ))


# --- parts of them ------------------------------------------------------------------------------


@contextmanager
def _going_on(text: str) -> Iterator[None]:
    """While the sidecar does something that does not end with us."""
    try:
        with display.progress(text):
            yield
    except KeyboardInterrupt:
        _complain("interrupted; the sidecar goes on with it: see `compass-sidecar status`")
        raise


def _show_renewed(content: Mapping[str, Any], word: str, *, as_json: bool) -> None:
    if as_json:
        print_json(content)
    elif not content.get("renewed"):
        typer.echo(_UNDER_WAY)
    else:
        try:
            held, seconds = content["certificate"], content["duration_seconds"]
            typer.echo(f"{word} in {seconds:.1f} s: {display.plain(held['fingerprint_sha256'])}")
            typer.echo(f"valid until {display.plain(held['effective_not_after'])}")
        except (KeyError, TypeError, ValueError) as error:
            raise StrangeAnswer("an answer that is not the sidecar's") from error
    raise typer.Exit(0 if content.get("renewed") else 1)


def _wait(sidecar: Local, limit: timedelta) -> str | None:
    """Until it is ready; why it is not, if the time is over (0: it never is)."""
    clock, pause = Clock(), threading.Event()
    end = clock.monotonic() + limit
    with display.progress("waiting for the sidecar") as say:
        while (reason := _unready(sidecar)) is not None:
            if limit and clock.monotonic() >= end:
                return reason
            say(f"waiting: {reason}")
            pause.wait(_PAUSE)
    return None


def _unready(sidecar: Local) -> str | None:
    try:
        answer = sidecar.call("GET", "/readyz", timeout=5)
        if answer.status == 200 and answer.text == "ok\n":
            return None
        content_of(answer, as_json=False)
    except SidecarError as error:
        return error.detail
    return "an answer that is not the sidecar's"


def _ask_which(sidecar: Local) -> str:
    """The fingerprint of the current certificate, after somebody at a terminal has typed its beginning."""
    held = content_of(sidecar.call("GET", "/status"), as_json=False).get("certificate")
    if not isinstance(held, dict):
        raise SidecarError("not-connected: there is no credential to revoke")
    fingerprint = parse_fingerprint(str(held.get("fingerprint_sha256")))
    if not sys.stdin.isatty():
        raise WrongUse(
            f"--confirm is needed where nobody can be asked; the current certificate is {fingerprint}"
        )
    typer.echo(f"{display.plain(held.get('subject'))}\n{fingerprint}", err=True)
    typed = typer.prompt(f"To revoke it for good, type the first {_TYPED} digits", err=True)
    if typed.replace(":", "").strip().lower() != fingerprint[:_TYPED]:
        raise SidecarError("not revoked: that is not how the fingerprint begins")
    return fingerprint
