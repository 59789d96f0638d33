"""The one parser of URLs. What it refuses can never be called, however long one waits."""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from .text import printable

_LONGEST = 2048
_PORTS = {"http": 80, "https": 443}
_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
# A name whose last label is a number is a mistyped IPv4 address.
_NAME = re.compile(rf"(?=.{{1,253}}$)(?!(.*\.)?[0-9]+$){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class URL:
    """A URL that can be called: `host` in lower case without brackets, `port` always a number."""

    text: str = field(repr=False)  # user information and queries hold secrets
    scheme: str
    host: str
    port: int
    parts: SplitResult = field(repr=False)

    @property
    def where(self) -> str:
        """Host and port, for people; the port only if it is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return printable(host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}")

    @property
    def bare(self) -> str:
        """The text without query and fragment."""
        return self.text.partition("#")[0].partition("?")[0]


def parse_https(text: str) -> URL:
    """An https URL without user information. ValueError says what is wrong, and shows none of the text."""
    return parse_public(text, "https")


def parse_public(text: str, *schemes: str) -> URL:
    """A URL without user information. Raises ValueError as `parse_https` does."""
    url = parse_url(text, *schemes)
    if "@" in url.parts.netloc:
        raise ValueError("should not contain user information (the part before @)")
    return url


def parse_url(text: str, *schemes: str) -> URL:
    """A URL of one of these schemes. Raises ValueError as `parse_https` does."""
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters")
    if not re.fullmatch(r"[!-~]+", text) or "\\" in text:
        raise ValueError("should be one ASCII URL, without spaces or control characters or backslashes")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL: check its host, brackets and port") from None
    if parts.scheme not in schemes:
        raise ValueError(f"should begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    host = parse_host(parts.hostname or "")
    if host is None or port == 0:
        raise ValueError(f"should name a host that can exist, such as {schemes[0]}://host.example.org")
    text = parts.scheme + text[len(parts.scheme) :]  # in lower case
    return URL(text, parts.scheme, host, port or _PORTS[parts.scheme], parts)


def parse_proxy(text: str) -> URL:
    """A proxy's URL, which may hold a password. As for curl, `proxy:3128` is `http://proxy:3128`.

    Raises ValueError as `parse_https` does.
    """
    text = text.strip()
    url = parse_url(text if "://" in text else f"http://{text}", "http", "https")
    if url.parts.path.strip("/") or url.parts.query or url.parts.fragment:
        raise ValueError("should be scheme, host and port only; encode what is special in a password")
    return url


def parse_host(text: str) -> str | None:
    """An IP address, or a host name in lower case without its final dot; None for what is neither."""
    with suppress(ValueError):
        return None if "%" in text else str(ip_address(text))
    name = text.lower().removesuffix(".")
    return name if _NAME.fullmatch(name) and all(map(_is_label, name.split("."))) else None


def _is_label(label: str) -> bool:
    """Whether a label that claims to be an A-label (RFC 5890) decodes to visible text and back."""
    if not label.startswith("xn--"):
        return True
    with suppress(UnicodeError):
        text = label[4:].encode("ascii").decode("punycode")
        return not text.isascii() and text.isprintable() and text.encode("punycode").decode() == label[4:]
    return False
