"""How a call gets in at the Connector: where to, and as whom."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientPair:
    """Certificate chain and key as files, since `ssl` loads client pairs from files only."""

    fingerprint: str
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class Door:
    """A URL with a client certificate (certificate-secured) or a token (token-secured).

    `correlation_id` goes out as `x-request-id` and `x-correlation-id`, and into our log.
    """

    url: str
    correlation_id: str
    pair: ClientPair | None = None
    token: str | None = field(default=None, repr=False)
