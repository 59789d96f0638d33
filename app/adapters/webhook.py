"""The operator's webhook: each event as a signed JSON document."""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from ..core.notice import Notice
from ..core.text import rfc3339
from ..errors import ConnectorError, NotificationError
from .transport import Request, Transport

# About two minutes in all: a receiver that restarts is waited for, one that is gone is not.
_PAUSES = tuple(timedelta(seconds=each) for each in (1, 2, 5, 15, 30, 60))


class Webhook:
    """Posts to one URL. `name` says to the receiver which sidecar calls."""

    latest_only = False

    def __init__(
        self,
        url: str,
        *,
        name: str,
        secret: str | None,
        transport: Transport,
        sleep: Callable[[timedelta], Awaitable[None]],
    ) -> None:
        self._url = url
        self._name = name
        self._secret = secret
        self._transport = transport
        self._sleep = sleep

    def wants(self, event: str) -> bool:  # noqa: ARG002 - every event
        return True

    async def deliver(self, notice: Notice) -> None:
        """Raises NotificationError if the receiver has not accepted it after two minutes."""
        body = self._body(notice)
        request = Request(self._url, body, headers=self._signature(body))
        for pause in (*_PAUSES, None):
            try:
                await self._transport.deliver(request)
            except ConnectorError as error:
                if pause is None:
                    raise NotificationError(f"the webhook failed: {error.detail}") from error
                await self._sleep(pause)
            else:
                return

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _body(self, notice: Notice) -> bytes:
        content = {
            "id": notice.id,
            "event": notice.event,
            "at": _text(notice.at),
            "name": self._name,
            "fingerprint_sha256": notice.fingerprint,
            "not_before": _text(notice.not_before),
            "not_after": _text(notice.not_after),
            "detail": notice.detail,
        }
        return json.dumps(content).encode()

    def _signature(self, body: bytes) -> Mapping[str, str]:
        if self._secret is None:
            return {}
        digest = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
        return {"Compass-Signature": f"sha256={digest}"}


def _text(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None
