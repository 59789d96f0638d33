"""The command line: what an operator asks a running sidecar.

Exit status: 0 good, 1 something is wrong, 2 wrong use.
"""

import json
import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from app.adapters.local import Local
from app.errors import SidecarError

app = typer.Typer(
    help="Holds, renews and serves an application's Compass client certificate.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_MEDIA_TYPES = {"pem": "application/pem-certificate-chain", "json": "application/json"}

URL = Annotated[
    str | None, typer.Option(help="Where the sidecar listens; default from COMPASS_HOST and _PORT.")
]
Socket = Annotated[
    Path | None, typer.Option(envvar="COMPASS_UNIX_SOCKET", help="The Unix socket on which it listens.")
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print the API's answer as it is.")]


class Format(StrEnum):
    PEM = "pem"
    JSON = "json"


@app.command()
def serve() -> None:
    """Run the sidecar, configured by COMPASS_ variables. The default command."""
    from app.__main__ import serve as run  # noqa: PLC0415 - the other commands need no server

    raise typer.Exit(run())


@app.command()
def status(url: URL = None, unix_socket: Socket = None, as_json: AsJSON = False) -> None:
    """Show state, certificate, and what happens next. Status 1 unless it is connected."""
    content = _ask(url, unix_socket, "GET", "/status")
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        for line in _panel(content):
            typer.echo(line)
    raise typer.Exit(0 if content["state"] in ("connected", "degraded") else 1)


@app.command()
def renew(url: URL = None, unix_socket: Socket = None, as_json: AsJSON = False) -> None:
    """Renew now, and show the new certificate."""
    content = _ask(url, unix_socket, "POST", "/renew", timeout=330, headers={"Prefer": "wait=300"})
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    elif content["renewed"]:
        certificate = content["certificate"]
        typer.echo(f"renewed in {content['duration_seconds']:.1f} s: {certificate['fingerprint_sha256']}")
        typer.echo(f"valid until {certificate['effective_not_after']}")
    else:
        typer.echo("still under way; see `compass-sidecar status`")
    raise typer.Exit(0 if content["renewed"] else 1)


@app.command()
def certificate(
    url: URL = None,
    unix_socket: Socket = None,
    form: Annotated[
        Format, typer.Option("--format", help="The chain as PEM, or all about it as JSON.")
    ] = Format.PEM,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write it here; default: print it.")
    ] = None,
) -> None:
    """Print the current chain, or write it to a file."""
    answer = _call(url, unix_socket, "GET", "/certificate", headers={"Accept": _MEDIA_TYPES[form]})
    if output is None:
        typer.echo(answer, nl=False)
        return
    try:
        output.write_text(answer)
    except OSError as error:
        _fail(f"{output} cannot be written: {error.strerror}")


def _panel(content: Mapping[str, Any]) -> list[str]:
    held, renewal = content["certificate"], content["renewal"]
    lines = [f"state        {content['state']}", f"reasons      {', '.join(content['reasons']) or '-'}"]
    if held is not None:
        lines += [
            f"subject      {held['subject']}",
            f"fingerprint  {held['fingerprint_sha256']}",
            f"valid        {held['not_before']} to {held['effective_not_after']}",
        ]
    lines += [
        f"due          {renewal['due_at'] or '-'}",
        f"next attempt {renewal['next_attempt_at'] or '-'}",
        f"last success {renewal['last_success_at'] or '-'}",
    ]
    if renewal["last_error"] is not None:
        lines.append(f"last error   {renewal['last_error']['code']}: {renewal['last_error']['detail']}")
    return lines


def _ask(url: str | None, unix_socket: Path | None, method: str, path: str, **options: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_call(url, unix_socket, method, path, **options))
    return content


def _call(url: str | None, unix_socket: Path | None, method: str, path: str, **options: Any) -> str:
    local = Local(url or _usual_url(os.environ), unix_socket, _token(os.environ))
    try:
        answer = local.call(method, path, **options)
    except SidecarError as error:
        _fail(error.detail)
    if answer.is_success:
        return answer.text
    try:
        problem = answer.json()
        _fail(f"{problem['code']}: {problem['detail']}")
    except (ValueError, KeyError, TypeError):
        _fail(f"an answer with status {answer.status_code} that is not the sidecar's")


def _usual_url(environ: Mapping[str, str]) -> str:
    host = environ.get("COMPASS_HOST", "").split(",")[0].strip() or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where it listens, not where we do
    port = environ.get("COMPASS_PORT", "")
    return f"http://{f'[{host}]' if ':' in host else host}:{port if port.isdecimal() else 8080}"


def _token(environ: Mapping[str, str]) -> str | None:
    if path := environ.get("COMPASS_API_TOKEN_FILE"):
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            _fail(f"COMPASS_API_TOKEN_FILE: {path} cannot be read: {type(error).__name__}")
    return environ.get("COMPASS_API_TOKEN") or None


def _fail(text: str) -> NoReturn:
    typer.echo(f"compass-sidecar: {text}", err=True)
    sys.exit(1)
