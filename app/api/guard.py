"""What is refused before anything looks at it: strange hosts, other sites, and bodies of any size.

A web page that a neighbour's browser shows can send requests to loopback. It cannot choose `Host`
unless by a name that it rebinds to us, and it cannot hide `Origin` and `Sec-Fetch-Site`.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address

from starlette.types import Message, Receive, Scope

from .access import Access
from .negotiation import remembered
from .problems import Refusal

BODY_LIMIT = 64 * 1024
# A kubelet and Prometheus call a pod by its address or by any name.
UNGUARDED = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})
_JSON_BODIES = frozenset({"/connect", "/revoke"})
_HOST = re.compile(rb"(?:\[([0-9a-f:.]+)\]|([a-z0-9._~-]+))(?::[0-9]*)?", re.IGNORECASE)


class Guard:
    """`check` decides about one request by its scope alone."""

    def __init__(self, access: Access) -> None:
        self._access = access
        names = {"localhost", access.hostname or "localhost", *access.allowed_hosts}
        self._names = frozenset(name.lower().removesuffix(".") for name in names)
        self._is_ours = remembered(self._names_us)

    def check(self, scope: Scope, fields: Mapping[bytes, bytes]) -> None:
        """Raise Refusal, or return."""
        if scope["path"] in UNGUARDED:
            return
        if not self._access.over_unix_socket(scope):
            self._check_host(fields.get(b"host"))
        _check_origin(fields)
        _check_length(fields.get(b"content-length", b"0"))
        self._access.check(scope, fields)
        if scope["method"] == "POST" and scope["path"] in _JSON_BODIES:
            _check_media_type(fields.get(b"content-type", b""))

    def _check_host(self, host: bytes | None) -> None:
        ours = self._is_ours(host) if host is not None else None
        if ours is None:
            raise Refusal(
                "bad-request", "There must be one Host, a name or an address with or without a port."
            )
        if not ours:
            raise Refusal(
                "misdirected", "Use localhost or an IP address, or name the host in COMPASS_ALLOWED_HOSTS."
            )

    def _names_us(self, host: bytes) -> bool | None:
        """None if that is no host at all."""
        parts = _HOST.fullmatch(host)
        if parts is None:
            return None
        literal, name = (part.decode("ascii") if part else "" for part in parts.groups())
        if literal:
            return True if ":" in literal and _is_address(literal) else None
        return _is_address(name) or name.lower().removesuffix(".") in self._names


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _check_origin(fields: Mapping[bytes, bytes]) -> None:
    origin = fields.get(b"origin")
    if origin is not None and origin.lower() != b"http://" + fields.get(b"host", b"").lower():
        raise Refusal("cross-origin", "The Origin is not this very server.")
    site = fields.get(b"sec-fetch-site", b"none").lower()
    if b"cross-site" in site or b"same-site" in site:
        raise Refusal("cross-origin", "Requests that another site makes a browser send are refused.")


def _check_length(length: bytes) -> None:
    if not length.isdigit():
        raise Refusal("bad-request", "Content-Length must be a number.")
    if int(length) > BODY_LIMIT:
        raise _too_large()


def _check_media_type(content_type: bytes) -> None:
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise Refusal("unsupported-media-type", "Send the body as application/json.")


def _too_large() -> Refusal:
    return Refusal("too-large", f"At most {BODY_LIMIT} bytes are read.")


async def read_chunked(receive: Receive) -> Receive:
    """`receive` with a body of unknown length read ahead. Raises Refusal if it is too large."""
    body, more = b"", True  # not a bytearray, which takes more than it holds
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal("bad-request", "The body is not complete.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > BODY_LIMIT:
            raise _too_large()
    ahead = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return ahead.pop() if ahead else await receive()

    return replay
