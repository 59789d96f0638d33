"""The operator's webhook: each event as a signed JSON document."""

import asyncio
import hashlib
import hmac
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

import httpx

from ..core.notice import Notice
from ..errors import NotificationError

_REQUEST_LIMIT = timedelta(seconds=10)
# About two minutes in all: a receiver that restarts is waited for, one that is gone is not.
_PAUSES = tuple(timedelta(seconds=each) for each in (1, 2, 5, 15, 30, 60))


class Webhook:
    """Posts to one URL, and takes any 2xx for an answer."""

    latest_only = False

    def __init__(
        self, url: str, *, name: str, secret: str | None, sleep: Callable[[timedelta], Awaitable[None]]
    ) -> None:
        self._url = url
        self._name = name
        self._secret = secret
        self._sleep = sleep

    def wants(self, event: str) -> bool:  # noqa: ARG002 - every event
        return True

    async def deliver(self, notice: Notice) -> None:
        """Raises NotificationError once the receiver has refused for two minutes."""
        body = self._body(notice)
        headers = {"Content-Type": "application/json", **self._signature(body)}
        reason = ""
        for pause in (*_PAUSES, None):
            reason = await self._post(body, headers)
            if not reason:
                return
            if pause is not None:
                await self._sleep(pause)
        raise NotificationError(f"the webhook was given up: {reason}")

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

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> str:
        """Why it failed; empty if the receiver took it. Its answer's body is not even read."""
        # 24 ms with the system's trust store, so not on the event loop.
        context = await asyncio.to_thread(ssl.create_default_context)
        try:
            async with (
                asyncio.timeout(_REQUEST_LIMIT.total_seconds()),
                httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False) as client,
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                return "" if answer.is_success else f"status {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return type(error).__name__


def _text(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment is not None else None
