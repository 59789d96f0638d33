"""The Director, as far as the Connector needs it: system auths and their one-time tokens.

Contract sections 1, 2 and 4: every `configuration` mints a token that replaces the previous one of that
system auth; a token is consumed before the Connector acts, and works once; pairing again with a newly
requested token makes a new system auth, hence a new CN; the first call with a certificate clears what
tokens are left. Unknown, used and expired look the same from outside.
"""

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from .options import ConsumerType
from .tokens import new_token

# The Director's own expirations; the integration system's is the application's.
_TTL = {"Application": timedelta(minutes=5), "Runtime": timedelta(minutes=60)}


@dataclass(slots=True)
class SystemAuth:
    """One pairing: its id is the CN of every certificate issued to it."""

    id: str
    consumer_type: ConsumerType
    token: str | None = field(default=None, repr=False)
    expires_at: str | None = None
    certificate_seen: bool = False


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
