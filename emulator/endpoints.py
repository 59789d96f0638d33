"""Where the emulator is, and what is needed to reach it: the content of `endpoints.json`."""

from dataclasses import asdict, dataclass, field


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
