"""One-time tokens, in the forms in which operators hold them."""

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qs

from ..errors import ConnectorError, NotRecognised, RequestRefused, SidecarError
from .answer import is_token
from .url import URL, parse_https

_LONGEST = 16 * 1024
_UNUSABLE = "the token is empty, too long or not visible ASCII"
_ADAPTER_PATH = "/v1/applications/"  # of Compass' connectivity-adapter


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A token and the Token-Secured Connector URL that takes it."""

    value: str = field(repr=False)
    url: str

    @property
    def digest(self) -> str:
        """Lower-case hex SHA-256: how a used token is recognised without being kept."""
        return hashlib.sha256(self.value.encode()).hexdigest()


class Fate(StrEnum):
    """What a failed call means for the one-time token that it was made with."""

    LEFT = "left"
    UNKNOWN = "unknown"
    SPENT = "spent"


def fate_after(error: SidecarError) -> Fate:
    """The identity lookup in front of the Connector consumes a token, whatever becomes of the call.

    Its failure (the empty 400, 500), and silence, leave open whether that happened.
    """
    if not isinstance(error, ConnectorError) or not error.arrived:
        return Fate.LEFT
    open_question = isinstance(error, NotRecognised) or error.status in (None, 500, 504)
    return Fate.UNKNOWN if open_question else Fate.SPENT


def parse_token(text: str, url: str | None) -> OneTimeToken:
    """The token in `text`: as it is, JSON with `token` and `connectorURL` (the Director's `raw`), base64 of
    that (`rawEncoded`), or a URL with `?token=`. `url` is needed for the first form and wins in the others.

    Raises RequestRefused, which never repeats the text.
    """
    text = text.removeprefix("\ufeff").strip()
    if not text or len(text) > _LONGEST:
        raise RequestRefused(_UNUSABLE)
    if text[0] in "\"'" and text[0] == text[-1]:
        raise RequestRefused("the token begins and ends with a quotation mark: remove both")
    found = _from_json(text) if text.startswith("{") else _from_line("".join(text.split()))
    target = url or found.url
    if not target:
        raise RequestRefused(
            "the token comes without a URL: set COMPASS_TOKEN_CONNECTOR_URL, or give connector_url with it"
        )
    if not is_token(found.value):
        raise RequestRefused(_UNUSABLE)
    return OneTimeToken(found.value, _checked(target))


def is_rest_adapter(url: URL) -> bool:
    """Whether this URL is the REST adapter's, where a GraphQL call consumes the token and fails."""
    return url.parts.path.lower().startswith(_ADAPTER_PATH)


def _from_line(text: str) -> OneTimeToken:
    """From a text without white space: base64 often comes wrapped."""
    if "://" in text:
        return _from_url(text)
    with suppress(ValueError):
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        if decoded.lstrip().startswith("{"):
            return _from_json(decoded)
    return OneTimeToken(text, "")


def _from_url(text: str) -> OneTimeToken:
    bare, _, query = text.partition("#")[0].partition("?")
    values = parse_qs(query).get("token", [])
    if len(values) != 1:
        raise RequestRefused("the token is a URL without one `token` in its query")
    with suppress(ValueError):
        bare = "" if is_rest_adapter(parse_https(bare)) else bare
    return OneTimeToken(values[0], bare)


def _from_json(text: str) -> OneTimeToken:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    content = content if isinstance(content, dict) else {}
    token, url = content.get("token"), content.get("connectorURL")
    if not isinstance(token, str) or not isinstance(url, str | None):
        raise RequestRefused("the token is JSON without `token` and `connectorURL`")
    return OneTimeToken(token, url or "")


def _checked(url: str) -> str:
    """The URL without query and fragment: its query is not used."""
    try:
        parsed = parse_https(url)
    except ValueError as fault:
        raise RequestRefused(f"the Token-Secured Connector URL {fault}") from None
    if is_rest_adapter(parsed):
        raise RequestRefused(
            "the URL is that of a REST adapter, which would consume the token: use the connectorURL"
        )
    return parsed.bare
