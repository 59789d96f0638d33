"""One-time tokens in every form in which the Director hands them out.

Field order, escaping and dates are those of the Director's Go code.
"""

import base64
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .answers import as_go_json

TOKEN_BYTES = 64  # 88 characters of URL-safe base64, padding included
NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


def new_token() -> str:
    """64 random bytes, URL-safe base64 with padding."""
    return base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenForms:
    """A token as such, as `raw`, as `rawEncoded`, and for an application as `legacyConnectorURL`."""

    token: str = field(repr=False)
    client_id: str
    connector_url: str
    adapter_url: str
    created_at: datetime
    expires_at: datetime
    consumer_type: str

    @property
    def raw(self) -> str:
        """The JSON that the Director calls `raw`."""
        fields = {
            "token": self.token,
            "connectorURL": self.connector_url,
            "used": False,
            "expiresAt": go_time(self.expires_at),
            "createdAt": go_time(self.created_at),
            "usedAt": NEVER,
            "type": self.consumer_type,
            "scenario_groups": None,
        }
        return as_go_json(fields).decode().rstrip()

    @property
    def raw_encoded(self) -> str:
        """Base64 of `raw`."""
        return base64.b64encode(self.raw.encode()).decode()

    @property
    def legacy_url(self) -> str:
        """The URL of the connectivity adapter with the token; the Connector does not answer there."""
        return f"{self.adapter_url}?token={self.token}"

    def as_dict(self) -> dict[str, str]:
        """What `POST /tokens` answers; a runtime has no legacy URL."""
        forms = {
            "token": self.token,
            "client_id": self.client_id,
            "connector_url": self.connector_url,
            "raw": self.raw,
            "raw_encoded": self.raw_encoded,
            "expires_at": go_time(self.expires_at),
        }
        return forms if self.consumer_type == "Runtime" else forms | {"legacy_url": self.legacy_url}


def go_time(moment: datetime) -> str:
    """RFC 3339 in UTC as Go's JSON has it: fractions without trailing zeros."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") + "Z"
