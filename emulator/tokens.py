"""One-time tokens in the three forms that operators hold (contract, end of section 2)."""

import base64
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

TOKEN_BYTES = 64  # 88 characters of URL-safe base64, padding included


def new_token() -> str:
    """64 random bytes, URL-safe base64 with padding."""
    return base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenForms:
    """A token as such, as `rawEncoded`, and as a legacy URL."""

    token: str = field(repr=False)
    client_id: str
    connector_url: str
    expires_at: datetime
    consumer_type: str

    @property
    def raw_encoded(self) -> str:
        """Base64 of the JSON that the Director calls `raw`."""
        raw = {
            "token": self.token,
            "connectorURL": self.connector_url,
            "expiresAt": self.expires_at.isoformat().replace("+00:00", "Z"),
            "used": False,
            "type": self.consumer_type,
        }
        return base64.b64encode(json.dumps(raw, separators=(",", ":")).encode()).decode()

    @property
    def legacy_url(self) -> str:
        """The Connector URL with `?token=`."""
        return f"{self.connector_url}?token={quote(self.token, safe='')}"

    def as_dict(self) -> dict[str, str]:
        """What `POST /tokens` answers."""
        return {
            "token": self.token,
            "client_id": self.client_id,
            "connector_url": self.connector_url,
            "raw_encoded": self.raw_encoded,
            "legacy_url": self.legacy_url,
            "expires_at": self.expires_at.isoformat().replace("+00:00", "Z"),
        }
