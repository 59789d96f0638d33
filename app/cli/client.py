"""What the commands share: where the sidecar is, what its answers mean, and what somebody gives us."""

import getpass
import json
import re
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ..adapters import files
from ..adapters.local import Answer, Local, StrangeAnswer
from ..adapters.reader import Reader
from ..core.text import parse_duration
from ..errors import SidecarError
from .address import find_address

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_LONGEST_TOKEN = 64 * 1024


class WrongUse(SidecarError):
    """For exit status 2."""

    code = "wrong-use"


# --- the sidecar and its answers -----------------------------------------------------------------


def find_sidecar(environ: Mapping[str, str], url: str | None, unix_socket: str | None) -> Local:
    """By options, else by variables. WrongUse if they are wrong."""
    try:
        address = find_address(environ, url=url, unix_socket=unix_socket)
    except ValueError as error:
        raise WrongUse(str(error)) from error
    token = _secret(environ, "COMPASS_API_TOKEN")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise WrongUse("COMPASS_API_TOKEN should be ASCII without line breaks: it travels in an HTTP header")
    return Local(address.url, address.unix_socket, token)


def content_of(answer: Answer, *, as_json: bool, hint: str | None = None) -> dict[str, Any]:
    """The JSON of a good answer. A problem is printed too if that is wanted, and raised."""
    content = answer.content
    if 200 <= answer.status < 300:
        return content
    if "code" not in content or "detail" not in content:
        raise StrangeAnswer(f"an answer with status {answer.status} that is not the sidecar's")
    if as_json:
        print_json(content)
    text = f"{content['code']}: {content['detail']}"
    if until := content.get("valid_until"):
        text += f" (the current certificate stays in use, and is good until {until})"
    if seconds := answer.headers.get("retry-after"):
        text += f"; try again in {seconds} s"
    raise SidecarError(f"{text}; {hint}" if hint else text)


def print_json(content: object) -> None:
    print(json.dumps(content, indent=2))  # noqa: T201 - it is the answer


def date_of(answer: Answer) -> datetime | None:
    """The sidecar's clock, which is the one that its dates mean."""
    try:
        return parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return None


# --- what somebody gives us ----------------------------------------------------------------------


def one_time_token(environ: Mapping[str, str], token_file: str | None) -> tuple[str, str]:
    """The token, and where it was found."""
    if token_file == "-":  # noqa: S105 - no password
        token, source = _read_input(), "standard input"
    elif token_file is not None:
        token, source = _read(token_file, "--token-file"), token_file
    elif (given := _secret(environ, "COMPASS_TOKEN")) is not None:
        token, source = given, "COMPASS_TOKEN"
    elif sys.stdin.isatty():
        token, source = getpass.getpass("One-time token (not shown): "), "the terminal"
    else:
        token, source = _read_input(), "standard input"
    if not (token := token.strip()):
        raise WrongUse("there is no token: use --token-file, COMPASS_TOKEN or standard input")
    return token, source


def _read_input() -> str:
    try:
        return sys.stdin.read(_LONGEST_TOKEN)
    except ValueError as error:
        raise WrongUse("standard input is not text") from error


def _secret(environ: Mapping[str, str], variable: str) -> str | None:
    """The value of a variable, or the content of the file that its other form names."""
    text, path = environ.get(variable, ""), environ.get(f"{variable}_FILE", "").strip()
    if text and path:
        raise WrongUse(f"{variable}_FILE: is set together with {variable}: keep one of them")
    return (_read(path, f"{variable}_FILE") if path else text).strip() or None


def _read(path: str, name: str) -> str:
    try:
        return Reader(name).read(Path(path)).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = files.reason(error) if isinstance(error, OSError) else "it is not text"
        raise WrongUse(f"{name}: {path} cannot be read: {reason}") from error


def parse_fingerprint(text: str) -> str:
    """As openssl writes it, too: upper case, with colons."""
    fingerprint = text.strip().replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise WrongUse("--confirm should be the whole SHA-256 fingerprint: 64 hex digits, colons allowed")
    return fingerprint


def parse_limit(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongUse(f"--timeout {error}") from error
