"""The Director's GraphQL API behind the certificate-secured door: enough to show a client something real.

It has one application, to which every pairing of an application belongs. Requests are identified in front of
it, as the Connector's are.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .clock import Clock
from .connector import Caller, OperatorConfiguration
from .csr import Refused
from .director import Director, SystemAuth
from .journal import Journal
from .tokens import NEVER, TokenForms

APPLICATION_NAME = "emulated-application"
_VIEWERS = {"Application": "APPLICATION", "Runtime": "RUNTIME", "Integration System": "INTEGRATION_SYSTEM"}
_NO_SUCH_APPLICATION = Refused(
    "Object not found [object=application]", {"error": "NotFound", "error_code": 20}
)


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
