"""HTTP and TLS to one server: a pool of connections per identity, and one limit around a whole call.

The Connector and the webhook have one each. Whatever a call raises becomes an error of the tree, once, by
`diagnosis.py`.
"""

import asyncio
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib import import_module
from typing import Any

import httpx

from .. import __version__
from ..core.door import ClientPair
from ..core.text import printable
from ..core.url import URL, parse_proxy, parse_public
from ..errors import (
    ConnectorProtocol,
    ConnectorUnavailable,
    PairRefused,
    SidecarError,
    StoreDamaged,
    UnusableURL,
)
from .anchors import Anchors, system_context
from .diagnosis import Circumstances, Step, translate
from .worker import Worker

BODY_LIMIT = 1024 * 1024  # a configuration or a signed chain takes about 10 KiB
# The calls of a renewal follow one another within seconds, and the connection that proved a new pair serves
# the next one if that comes soon; gateways and NATs drop idle connections without notice.
KEEPALIVE_EXPIRY = 15.0
_OPENING_LIMIT = timedelta(seconds=30)
_LIMITS = httpx.Limits(max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_EXPIRY)
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": f"compass-sidecar/{__version__}",
}
_Read = Callable[[httpx.Response], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """A POST of JSON. `presented` is what diagnoses call the client pair."""

    url: str = field(repr=False)  # a webhook's may hold a secret
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    pair: ClientPair | None = None
    presented: str = "our certificate"


@dataclass(slots=True)
class Progress:
    """How far a call has come; kept up to date while it runs. `demanded`: by a proxy that answered 407."""

    step: Step = Step.CONNECT
    demanded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, and when its header arrived by this machine's clock."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class _Key:
    """What connections may not be shared across."""

    origin: str
    fingerprint: str | None
    proxy: str | None = field(repr=False)  # with its password
    anchors: tuple[bytes, ...] | None = field(repr=False)


@dataclass(slots=True, eq=False)
class _Pool:
    key: _Key
    client: httpx.AsyncClient
    calls: int = 0
    retired: bool = False


class Transport:
    """POSTs to one server. A failed call leaves no connection behind; no call is repeated."""

    def __init__(
        self,
        *,
        anchors: Anchors,
        proxy_for: Callable[[str], str | None],
        timeout: timedelta,
        now: Callable[[], datetime],
        schemes: tuple[str, ...] = ("https",),
    ) -> None:
        self._anchors = anchors
        self._proxy_for = proxy_for
        self._timeout = timeout
        self._now = now
        self._schemes = schemes
        self._pools: list[_Pool] = []
        self._building = asyncio.Lock()
        self._worker = Worker("tls", limit=_OPENING_LIMIT)

    def start(self) -> None:
        """Make the thread. Raises RuntimeError if there is none to be had."""
        self._worker.start()

    async def post(self, request: Request, progress: Progress) -> Reply:
        """The answer, whatever its status. `progress` says how far the call came, also if it fails.

        Raises ConnectorError, or StoreDamaged for a pair that cannot be loaded.
        """
        return await self._translated(request, progress, _read)

    async def deliver(self, request: Request) -> None:
        """POST, and pass over the answer's body. Raises ConnectorError, also for any status but a 2xx."""
        reply = await self._translated(request, Progress(), _pass_over)
        if not 200 <= reply.status < 300:
            where = parse_public(request.url, *self._schemes).where
            raise ConnectorUnavailable(f"{where} answered with status {reply.status}")

    async def retire(self, keep: frozenset[str]) -> None:
        """Close all pools but those of client pairs with these fingerprints; calls under way may end."""
        for pool in self._pools:
            pool.retired = pool.retired or pool.key.fingerprint not in keep
        await self._close_retired()

    async def aclose(self) -> None:
        await self.retire(frozenset())

    async def _translated(self, request: Request, progress: Progress, read: _Read) -> Reply:
        outer = sys.exception()
        url = self._url(request.url)
        proxy = _proxy(self._proxy_for(url.text))
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await self._exchange(request, url, proxy, progress, read)
        except SidecarError:
            raise
        except Exception as error:
            circumstances = Circumstances(
                target=url,
                proxy=proxy,
                step=progress.step,
                limit=self._timeout,
                now=self._now(),
                presented=request.presented if request.pair is not None else None,
                anchors=self._anchors.file,
                anchors_variable=self._anchors.variable,
                demanded=progress.demanded,
            )
            raise translate(error, circumstances, outer=outer) from error

    def _url(self, text: str) -> URL:
        try:
            return parse_public(text, *self._schemes)
        except ValueError as fault:
            raise UnusableURL(f"the URL to call {fault}") from None

    async def _exchange(
        self, request: Request, url: URL, proxy: URL | None, progress: Progress, read: _Read
    ) -> Reply:
        opened: list[Any] = []
        pool = await self._pool(url, proxy, request.pair)
        pool.calls += 1
        try:
            async with pool.client.stream(
                "POST",
                url.text,
                content=request.body,
                headers={**_HEADERS, **request.headers},
                extensions={
                    "trace": _tracer(progress, opened, tunnelled=proxy is not None and url.scheme == "https")
                },
            ) as response:
                at = self._now()
                return Reply(response.status_code, response.headers, await read(response), at)
        except BaseException:
            # httpcore 1.0 forgets, and so leaks, a connection whose TLS handshake is cancelled, and counts
            # one through a proxy as busy from then on: close what was opened, and take a new pool.
            pool.retired = True
            for stream in opened:
                await stream.aclose()
            raise
        finally:
            pool.calls -= 1
            await self._close_retired()

    async def _pool(self, url: URL, proxy: URL | None, pair: ClientPair | None) -> _Pool:
        key = _Key(
            f"{url.scheme}://{url.where}",
            pair.fingerprint if pair else None,
            proxy.text if proxy else None,
            await self._anchors.read(),
        )
        async with self._building:
            for pool in self._pools:
                pool.retired = pool.retired or pool.key.anchors != key.anchors
            for pool in self._pools:
                if pool.key == key and not pool.retired:
                    return pool
            # In a thread: reading the system's trust store takes 24 ms, importing httpcore as much again.
            client = await self._worker.run(_open, self._anchors, pair, proxy)
            self._pools.append(pool := _Pool(key, client))
            return pool

    async def _close_retired(self) -> None:
        done = [pool for pool in self._pools if pool.retired and not pool.calls]
        self._pools = [pool for pool in self._pools if pool not in done]
        for pool in done:
            await pool.client.aclose()


def _proxy(text: str | None) -> URL | None:
    if text is None:
        return None
    try:
        return parse_proxy(text)
    except ValueError as fault:
        # COMPASS_CONNECTOR_PROXY was checked at the start.
        raise ConnectorUnavailable(
            f"the proxy in HTTPS_PROXY cannot be used: the variable {fault}; or exempt the host with NO_PROXY"
        ) from None


def _tracer(progress: Progress, opened: list[Any], *, tunnelled: bool) -> Callable[..., Awaitable[None]]:
    """Follows a call through httpcore's trace events, and collects the streams that it opens."""

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(info["return_value"])
            progress.step = Step.PROXY if tunnelled else Step.TLS
        elif event == "proxy.start_tls.started":
            progress.step = Step.TLS
        elif progress.step is Step.PROXY:  # this is about the request for a tunnel
            if event == "http11.receive_response_headers.complete":
                progress.demanded = _demanded(info["return_value"][3])
        elif event == "http11.send_request_headers.started":
            progress.step = Step.CALL

    return trace


def _demanded(headers: list[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """The authentication schemes of a 407."""
    challenges = [value.decode("latin-1") for name, value in headers if name.lower() == b"proxy-authenticate"]
    words = [part.split()[0].lower() for part in ",".join(challenges).split(",") if part.strip()]
    return tuple(word for word in words if "=" not in word)  # else it is a parameter


async def _read(response: httpx.Response) -> bytes:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise ConnectorProtocol(f"the Connector compressed its answer unasked ({printable(encoding)})")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > BODY_LIMIT:
            raise ConnectorProtocol(f"the Connector's answer is longer than {BODY_LIMIT} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def _pass_over(_response: httpx.Response) -> bytes:
    return b""


def _open(anchors: Anchors, pair: ClientPair | None, proxy: URL | None) -> httpx.AsyncClient:
    with suppress(ImportError):  # else imported on the event loop by the first connection, for 30 ms
        import_module("anyio._backends._asyncio")
    context = anchors.context()
    if pair is not None:
        _present(context, pair)
    # Neither these anchors nor the client pair are meant for a proxy.
    tunnel = httpx.Proxy(proxy.text) if proxy is not None else None
    if proxy is not None and tunnel is not None and proxy.scheme == "https":
        tunnel.ssl_context = system_context()
    return httpx.AsyncClient(
        verify=context,
        proxy=tunnel,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None),  # it is per operation; the limit here is around the whole call
        limits=_LIMITS,
        # A gateway's cookies stay out of later calls.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


def _present(context: ssl.SSLContext, pair: ClientPair) -> None:
    try:
        # Without a password of our own OpenSSL would ask for one on the terminal.
        context.load_cert_chain(pair.certificate_file, pair.key_file, password="")
    except OSError as error:
        files = f"{pair.certificate_file} and {pair.key_file}"
        # OpenSSL's own shortage of memory says nothing about the pair.
        refused = isinstance(error, ssl.SSLError) and error.reason != "MALLOC_FAILURE"
        kind = PairRefused if refused else StoreDamaged
        raise kind(f"{files} cannot be loaded: {_fault(error)}") from error


def _fault(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "unreadable").lower().replace("_", " ")
    return error.strerror or type(error).__name__
