"""Every path of the local API, once: guard, fast path, routes, metric labels and description read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from starlette.types import Scope


class Caller(Enum):
    """Who may make a request. `guard` has the rule of each."""

    PROBE = auto()  # Anyone, by any host name: a kubelet and Prometheus call a pod by its address.
    READER = auto()  # Anyone whom the guard lets through.
    LOCAL = auto()  # With the token, or without one from this machine if none is configured.
    OPERATOR = auto()  # With the token, or over the Unix socket.
    KEY_READER = auto()  # As OPERATOR, but never over a network, and only where keys are exposed.


@dataclass(frozen=True, slots=True)
class Path:
    """`ready`: answered from bytes that are rendered already. `waits`: a client may wait for a change.

    `page`: shown in a browser, which may follow a link of another site to it.
    """

    path: str
    caller: Caller = Caller.READER
    method: Literal["GET", "POST"] = "GET"
    ready: bool = False
    waits: bool = False
    takes_json: bool = False
    page: bool = False

    def is_for(self, scope: Scope) -> bool:
        """Whether the request has this path's method. HEAD is GET."""
        return self.method == ("GET" if scope["method"] == "HEAD" else scope["method"])


PAGE = Path("/", page=True)
STATUS = Path("/status")
OPENAPI = Path("/openapi.json")
RENEW = Path("/renew", Caller.LOCAL, "POST")
CONNECT = Path("/connect", Caller.OPERATOR, "POST", takes_json=True)
REVOKE = Path("/revoke", Caller.OPERATOR, "POST", takes_json=True)
CERTIFICATE = Path("/certificate", ready=True, waits=True)
CHAIN_FILE = Path("/certificate/chain.pem", ready=True)
LEAF_FILE = Path("/certificate/leaf.pem", ready=True)
CA_FILE = Path("/certificate/ca.pem", ready=True)
BUNDLE_PEM = Path("/certificate/bundle.pem", Caller.KEY_READER)
BUNDLE_P12 = Path("/certificate/bundle.p12", Caller.KEY_READER)
LIVEZ = Path("/livez", Caller.PROBE, ready=True)
READYZ = Path("/readyz", Caller.PROBE, ready=True)
STARTUPZ = Path("/startupz", Caller.PROBE)
METRICS = Path("/metrics", Caller.PROBE)

PATHS: Mapping[str, Path] = {
    each.path: each
    for each in (
        *(PAGE, STATUS, OPENAPI),
        *(RENEW, CONNECT, REVOKE),
        *(CERTIFICATE, CHAIN_FILE, LEAF_FILE, CA_FILE, BUNDLE_PEM, BUNDLE_P12),
        *(LIVEZ, READYZ, STARTUPZ, METRICS),
    )
}
PROBES = frozenset(path for path, each in PATHS.items() if each.caller is Caller.PROBE)
# Request targets as they come over a connection. Other spellings of a path are left to the router.
TARGETS: Mapping[bytes, str] = {path.encode(): path for path, each in PATHS.items() if each.ready}
