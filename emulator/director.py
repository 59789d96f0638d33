"""The Director: system auths, their one-time tokens, and its GraphQL API.

Every `configuration` mints a token that replaces the previous one of that system auth. A token is
consumed before the Connector acts, and works once; unknown, used and expired ones look the same from
outside. Pairing again with a newly requested token makes a new system auth, hence a new CN. The first
call with a certificate clears what tokens are left. There is one application, to which every pairing of
an application belongs.

The forms of a token, their field order, escaping and dates are those of the Director's Go code.
"""

import base64
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from .clock import Clock
from .gqlgen import Refused
from .http import as_go_json
from .journal import Journal
from .options import ConsumerType, OperatorConfiguration

TOKEN_BYTES = 64  # 88 characters of URL-safe base64, padding included
NEVER = "0001-01-01T00:00:00Z"  # Go's zero time
# The Director's own expirations; the integration system's is the application's.
_TTL = {"Application": timedelta(minutes=5), "Runtime": timedelta(minutes=60)}
APPLICATION_NAME = "emulated-application"
_VIEWERS = {"Application": "APPLICATION", "Runtime": "RUNTIME", "Integration System": "INTEGRATION_SYSTEM"}
_NO_SUCH_APPLICATION = Refused(
    "Object not found [object=application]", {"error": "NotFound", "error_code": 20}
)


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


@dataclass(slots=True)
class SystemAuth:
    """One pairing: its id is the CN of every certificate issued to it."""

    id: str
    consumer_type: ConsumerType
    token: str | None = field(default=None, repr=False)
    expires_at: str | None = None
    certificate_seen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose call it is; the fingerprint only at the certificate-secured listener."""

    auth: SystemAuth
    fingerprint: str | None = None


class Director:
    """All system auths, and who they belong to; `on_change` is called after each change, to persist them."""

    def __init__(self, *, ttl: timedelta | None, on_change: Callable[[], None]) -> None:
        self._ttl = ttl
        self._on_change = on_change
        self._auths: dict[str, SystemAuth] = {}
        self._by_token: dict[str, str] = {}
        self._owners: dict[str, str] = {}

    def create(self, consumer_type: ConsumerType, client_id: str | None = None) -> SystemAuth:
        """A new system auth, without a token yet; with this id, if one is given."""
        auth = SystemAuth(client_id or str(uuid.uuid4()), consumer_type)
        self._auths[auth.id] = auth
        self._on_change()
        return auth

    def owner(self, consumer_type: ConsumerType) -> str:
        """The id of the one application, runtime or integration system of this emulator."""
        if consumer_type not in self._owners:
            self._owners[consumer_type] = str(uuid.uuid4())
            self._on_change()
        return self._owners[consumer_type]

    def find(self, client_id: str) -> SystemAuth | None:
        """The system auth of a certificate's CN."""
        return self._auths.get(client_id)

    def forget(self, client_id: str) -> bool:
        """Deletes a system auth, as deregistering does: its certificates yield no identity any more."""
        auth = self._auths.pop(client_id, None)
        if auth is None:
            return False
        self._by_token.pop(auth.token or "", None)
        self._on_change()
        return True

    def mint(self, auth: SystemAuth, *, now: datetime, ttl: timedelta | None = None) -> tuple[str, datetime]:
        """A new token for this system auth, in place of any other, and when it expires."""
        expires_at = now + (ttl or self._ttl or _TTL.get(auth.consumer_type, _TTL["Application"]))
        token = new_token()
        self._replace(auth, token, expires_at)
        return token, expires_at

    def consume(self, token: str, *, now: datetime) -> SystemAuth | None:
        """The owner of a token, once; None for unknown, used and expired ones alike."""
        auth = self._auths.get(self._by_token.get(token, ""))
        if auth is None or auth.expires_at is None:
            return None
        expired = datetime.fromisoformat(auth.expires_at) <= now
        self._replace(auth, None, None)
        return None if expired else auth

    def certificate_used(self, auth: SystemAuth) -> None:
        """The first call with a certificate clears leftover tokens and is recorded."""
        if not auth.certificate_seen:
            auth.certificate_seen = True
            self._replace(auth, None, None)

    def dump(self) -> dict[str, Any]:
        """What to persist."""
        return {"system_auths": [asdict(auth) for auth in self._auths.values()], "owners": self._owners}

    def load(self, auths: list[dict[str, Any]], owners: dict[str, str]) -> None:
        """What was persisted."""
        self._owners.update(owners)
        for auth in [SystemAuth(**values) for values in auths]:
            self._auths[auth.id] = auth
            if auth.token:
                self._by_token[auth.token] = auth.id

    def _replace(self, auth: SystemAuth, token: str | None, expires_at: datetime | None) -> None:
        self._by_token.pop(auth.token or "", None)
        auth.token = token
        auth.expires_at = expires_at.isoformat() if expires_at else None
        if token:
            self._by_token[token] = auth.id
        self._on_change()


class DirectorAPI:
    """Resolvers, and the tokens that operators and applications ask for."""

    def __init__(
        self, *, director: Director, operator: OperatorConfiguration, journal: Journal, clock: Clock
    ) -> None:
        self._director = director
        self._operator = operator
        self._journal = journal
        self._clock = clock

    def resolvers(self, caller: Caller) -> Mapping[str, Callable[..., Any]]:
        """The root value of one execution."""
        return {
            "viewer": lambda _info: self._viewer(caller.auth),
            "application": lambda _info, id: self._application(id),  # noqa: A006 (the schema's name)
            "applications": lambda _info, **_page: self._applications(),
            "requestOneTimeTokenForApplication": lambda _info, **asked: self._request_token(**asked),
        }

    def token(self, auth: SystemAuth, *, ttl: timedelta | None = None) -> TokenForms:
        """A new token for a pairing, in all its forms."""
        now = self._clock.now()
        token, expires_at = self._director.mint(auth, now=now, ttl=ttl)
        return TokenForms(
            token=token,
            client_id=auth.id,
            connector_url=self._operator.token_secured_connector_url,
            adapter_url=self._operator.adapter_url,
            created_at=now,
            expires_at=expires_at,
            consumer_type=auth.consumer_type,
        )

    def _viewer(self, auth: SystemAuth) -> dict[str, str]:
        owner = self._director.owner(auth.consumer_type)
        return {"id": owner, "type": _VIEWERS[auth.consumer_type]}

    def _application(self, application_id: str) -> dict[str, str] | None:
        known = self._director.owner("Application")
        return {"id": known, "name": APPLICATION_NAME} if application_id == known else None

    def _applications(self) -> dict[str, Any]:
        """A page; there is one application, whatever filter and page are asked for."""
        return {
            "data": [self._application(self._director.owner("Application"))],
            "totalCount": 1,
            "pageInfo": {"startCursor": "", "endCursor": "", "hasNextPage": False},
        }

    def _request_token(self, *, id: str, systemAuthID: str | None = None) -> dict[str, Any]:  # noqa: A002, N803
        """For a new pairing, or for one that exists."""
        if self._application(id) is None:
            raise _NO_SUCH_APPLICATION
        auth = self._director.find(systemAuthID) if systemAuthID else self._director.create("Application")
        if auth is None:
            raise Refused("Object not found [object=systemAuth]", _NO_SUCH_APPLICATION.extensions)
        self._journal.events["tokens_minted"] += 1
        forms = self.token(auth)
        return {
            "token": forms.token,
            "connectorURL": forms.connector_url,
            "legacyConnectorURL": forms.legacy_url,
            "used": False,
            "expiresAt": _timestamp(forms.expires_at),
            "createdAt": _timestamp(forms.created_at),
            "usedAt": NEVER,
            "raw": forms.raw,
            "rawEncoded": forms.raw_encoded,
            "type": forms.consumer_type,
        }


def _timestamp(moment: datetime) -> str:
    """As the Director writes its scalar: RFC 3339 in whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
