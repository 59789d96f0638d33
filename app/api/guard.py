"""What is refused before a request is looked at further: hosts, other sites, bodies, and missing rights.

A web page in a browser on this machine can send requests to loopback. It cannot choose `Host` except by a
name that it rebinds to us, and it cannot hide `Origin` and `Sec-Fetch-Site`.
"""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv6Address, ip_address

from starlette.types import Message, Receive, Scope

from .negotiation import remembered
from .paths import PATHS, Caller, Path
from .problems import Refusal

BODY_LIMIT = 64 * 1024
_HOST = re.compile(rb"(?:\[([0-9a-f:.]+)\]|([a-z0-9._~-]+))(?::[0-9]*)?", re.IGNORECASE)
_RELAYED = (b"x-forwarded-", b"x-envoy-")
_LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))


@dataclass(frozen=True, slots=True)
class Access:
    """What the operator decided. `hostname` is this machine's own, None if there is none."""

    api_token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    hostname: str | None = None
    unix_socket: bool = False
    expose_private_key: bool = False

    def over_unix_socket(self, scope: Scope) -> bool:
        # By our own end: uvicorn does not know a peer that has already left, and says None of it too.
        server = scope.get("server")
        return self.unix_socket and server is not None and server[1] is None

    def caller(self, scope: Scope) -> str:
        """Who made this request, for the log."""
        if self.over_unix_socket(scope):
            return f"unix socket, {scope.get('state', {}).get('peer', 'unknown process')}"
        host = scope["client"][0] if scope.get("client") else "unknown"
        return f"{host}, with the token"  # over TCP nothing that is logged with its caller goes without

    def check_token(self, fields: Mapping[bytes, bytes]) -> None:
        if self.api_token is None:
            raise Refusal(
                "token-required",
                "No API token is configured: start the sidecar with COMPASS_API_TOKEN and send that as "
                "`Authorization: Bearer`, or use the Unix socket",
            )
        scheme, _, given = fields.get(b"authorization", b"").partition(b" ")
        digests = (sha256(token).digest() for token in (given.strip(), self.api_token.encode()))
        if not hmac.compare_digest(*digests) or scheme.lower() != b"bearer":
            detail = "Send the token of COMPASS_API_TOKEN as `Authorization: Bearer`."
            raise Refusal("token-invalid", detail, headers={"WWW-Authenticate": "Bearer"})


def is_loopback(scope: Scope) -> bool:
    """Whether the request was made on this machine. A service mesh delivers others from loopback too."""
    client, server = scope.get("client"), scope.get("server")
    if client is None or server is None or server[1] is None:
        return False
    if _address(client[0]) not in _LOOPBACK or not getattr(_address(server[0]), "is_loopback", False):
        return False
    return not any(
        name in {b"forwarded", b"via"} or name.startswith(_RELAYED) for name, _ in scope["headers"]
    )


def _address(text: str) -> object:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _may_renew(access: Access, scope: Scope, fields: Mapping[bytes, bytes]) -> None:
    if access.api_token is None and (access.over_unix_socket(scope) or is_loopback(scope)):
        return
    access.check_token(fields)


def _may_change(access: Access, scope: Scope, fields: Mapping[bytes, bytes]) -> None:
    if access.api_token is not None or not access.over_unix_socket(scope):
        access.check_token(fields)


def _may_read_key(access: Access, scope: Scope, fields: Mapping[bytes, bytes]) -> None:
    if not access.expose_private_key:
        raise Refusal("not-found", "Private keys are not exposed: COMPASS_EXPOSE_PRIVATE_KEY is not set.")
    if access.over_unix_socket(scope):
        return
    access.check_token(fields)
    if not is_loopback(scope):
        raise Refusal("loopback-required", "A private key is only sent over loopback or the Unix socket.")


_RULES: Mapping[Caller, Callable[[Access, Scope, Mapping[bytes, bytes]], None]] = {
    Caller.LOCAL: _may_renew,
    Caller.OPERATOR: _may_change,
    Caller.KEY_READER: _may_read_key,
}


class Guard:
    """`check` decides about one request by its scope alone."""

    def __init__(self, access: Access) -> None:
        self._access = access
        names = {"localhost", access.hostname or "localhost", *access.allowed_hosts}
        self._names = frozenset(name.lower().removesuffix(".") for name in names)
        self._is_ours = remembered(self._names_us)

    def check(self, scope: Scope, fields: Mapping[bytes, bytes]) -> None:
        """Raise Refusal, or return."""
        _check_length(fields.get(b"content-length", b"0"))
        path = PATHS.get(scope["path"])
        if path is not None and path.caller is Caller.PROBE:
            return
        if not self._access.over_unix_socket(scope):
            self._check_host(fields.get(b"host"))
        _check_origin(fields)
        if path is None or not _is_navigation(path, scope, fields):
            _check_site(fields)
        if path is None or not path.is_for(scope):
            return  # for the router to refuse
        if path.caller in _RULES:
            _RULES[path.caller](self._access, scope, fields)
        if path.takes_json:
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
        name = name.lower().removesuffix(".")
        return name in self._names or _is_address(name)


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


def _is_navigation(path: Path, scope: Scope, fields: Mapping[bytes, bytes]) -> bool:
    """Whether a person followed a link to a page: the site with the link cannot read what it shows."""
    return (
        path.page
        and scope["method"] == "GET"
        and fields.get(b"sec-fetch-mode") == b"navigate"
        and fields.get(b"sec-fetch-dest") == b"document"
    )


def _check_site(fields: Mapping[bytes, bytes]) -> None:
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
