"""Options of an emulator, what its operator may change later on, and the endpoints it then has."""

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from .authority import ClientAuthority
from .subjects import SubjectConstants

ConsumerType = Literal["Application", "Runtime", "Integration System"]


ListenerName = Literal["token", "mtls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """Defaults are those of tests: ephemeral ports, no latency. The command line has fixed ports."""

    dir: Path
    host: str = "127.0.0.1"
    token_port: int = 0
    mtls_port: int = 0
    control_port: int = 0
    control_host: str = "127.0.0.1"
    advertise: str | None = (
        None  # the host in URLs; by default `host`, or a server name if that is a wildcard
    )
    server_names: tuple[str, ...] = ()
    subject: SubjectConstants = field(default_factory=SubjectConstants)
    consumer_type: ConsumerType = "Application"
    director_url: str | None = None
    lifetime: timedelta = timedelta(hours=2160)  # the Connector's own default
    ca_lifetime: timedelta = timedelta(days=3650)  # the chart's is 92 days, two more than a leaf's
    chain: int = 2
    token_ttl: timedelta | None = (
        None  # by default the Director's: 5 min for an application, 60 for a runtime
    )
    clock_offset: timedelta = timedelta()
    latency: timedelta = timedelta()
    tls_max: Literal["1.2", "1.3"] = "1.3"
    gateway: bool = True  # without it the Connector answers what the gateway would refuse
    client_id: str | None = None  # the CN of the first credential; by default a new one
    faults: tuple[str, ...] = ()
    chaos: float = 0.0
    seed: int | None = None
    fresh: bool = False

    @property
    def public_host(self) -> str:
        """The host that clients are given, in the form a URL needs."""
        host = self.advertise or self._reachable_host()
        return f"[{host}]" if ":" in host else host

    def certified_names(self) -> list[str]:
        """Names and addresses of the server certificate, the most specific first, none twice."""
        host = [] if self.host in ("0.0.0.0", "::") else [self.host]  # noqa: S104 (compared, not bound)
        advertised = [self.advertise] if self.advertise else []
        return list(dict.fromkeys([*self.server_names, *advertised, "localhost", "127.0.0.1", "::1", *host]))

    def _reachable_host(self) -> str:
        if self.host not in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
            return self.host
        return self.server_names[0] if self.server_names else "localhost"


@dataclass(slots=True, kw_only=True)
class OperatorConfiguration:
    """What the operator set, and may change at any time."""

    subject: SubjectConstants
    director_url: str
    token_secured_connector_url: str
    adapter_url: str
    certificate_secured_connector_url: str
    lifetime: timedelta
    authority: ClientAuthority


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """URLs, absolute paths of files, and the one-time token of this start."""

    connector_url: str
    token_connector_url: str
    control_url: str
    director_url: str
    ca_file: str
    client_certificate_file: str
    client_key_file: str
    token: str = field(repr=False)

    def as_dict(self) -> dict[str, str]:
        """The JSON object of `endpoints.json`."""
        return asdict(self)
