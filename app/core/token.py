"""One-time tokens, in the three forms in which operators hold them."""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit, urlunsplit

from ..errors import RequestRefused
from .answer import is_token

_LONGEST = 16 * 1024
_UNFIT = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff\\]")  # what no URL has, and httpx may refuse later


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A token and the Token-Secured Connector URL that takes it."""

    value: str = field(repr=False)
    url: str

    @property
    def digest(self) -> str:
        """Lower-case hex SHA-256: how a used token is recognised without being kept."""
        return hashlib.sha256(self.value.encode()).hexdigest()


def parse_token(text: str, url: str | None) -> OneTimeToken:
    """The token in `text`: as it is, base64 of JSON with `token` and `connectorURL`, or a URL with
    `?token=`. `url` is needed for the first form and wins in the others.

    Raises RequestRefused, which never repeats the text.
    """
    text = "".join(text.split())  # base64 often comes wrapped
    if not text or len(text) > _LONGEST or not text.isprintable() or not text.isascii():
        raise RequestRefused("the token is empty, too long or not printable ASCII")
    found = _from_url(text) or _from_json(text) or OneTimeToken(text, "")
    target = url or found.url
    if not target:
        raise RequestRefused(
            "the token comes without a URL: set COMPASS_TOKEN_CONNECTOR_URL, or give connector_url with it"
        )
    if not is_token(found.value):
        raise RequestRefused("the token is empty, too long or not visible ASCII")
    return OneTimeToken(found.value, _checked(target))


def _from_url(text: str) -> OneTimeToken | None:
    if "://" not in text:
        return None
    try:
        values = parse_qs(urlsplit(text).query).get("token", [])
    except ValueError:  # brackets that are no IPv6 address
        values = []
    if len(values) != 1:
        raise RequestRefused("the token is a URL without one `token` in its query")
    return OneTimeToken(values[0], text)


def _from_json(text: str) -> OneTimeToken | None:
    try:
        content = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    token, url = content.get("token"), content.get("connectorURL")
    if not isinstance(token, str) or not isinstance(url, str | None):
        raise RequestRefused("the token is base64 of JSON without `token` and `connectorURL`")
    return OneTimeToken(token, url or "")


def _checked(url: str) -> str:
    """The URL without query and fragment: its query is not used."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
        usable = usable and not _UNFIT.search(url)
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc:
        raise RequestRefused(
            "the Token-Secured Connector URL must be https, with a host and without user name"
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
