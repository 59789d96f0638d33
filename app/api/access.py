"""Who may do what: the API token, the Unix socket, and what counts as loopback."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

from .problems import Refusal

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

    def check(self, scope: Scope, fields: Mapping[bytes, bytes]) -> None:
        """Raise Refusal unless this caller may make this request."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        rule = _RULES.get((method, scope["path"]))
        if rule is not None:
            rule(self, scope, fields)

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
    """Whether the request was made on this machine: a service mesh delivers strangers' from loopback too."""
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
    if not access.over_unix_socket(scope):
        access.check_token(fields)


def _may_read_key(access: Access, scope: Scope, fields: Mapping[bytes, bytes]) -> None:
    if not access.expose_private_key:
        raise Refusal("not-found", "Private keys are not exposed: COMPASS_EXPOSE_PRIVATE_KEY is not set.")
    if access.over_unix_socket(scope):
        return
    access.check_token(fields)
    if not is_loopback(scope):
        raise Refusal("loopback-required", "A private key is only sent over loopback or the Unix socket.")


_RULES: Mapping[tuple[str, str], Callable[[Access, Scope, Mapping[bytes, bytes]], None]] = {
    ("POST", "/renew"): _may_renew,
    ("POST", "/connect"): _may_change,
    ("POST", "/revoke"): _may_change,
    ("GET", "/certificate/bundle.pem"): _may_read_key,
    ("GET", "/certificate/bundle.p12"): _may_read_key,
}
