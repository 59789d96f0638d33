"""HTTP and TLS to the Connector: a pool of connections per identity, and one limit around a whole call.

What httpx, ssl and the operating system raise while a call is under way comes out as it is:
`connector.py` translates it.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx

from .. import __version__
from ..core.answer import is_token
from ..core.door import ClientPair, Door
from ..core.text import printable
from ..core.url import URL, parse_https, parse_proxy
from ..errors import (
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorUnavailable,
    ConnectorUntrusted,
    StoreDamaged,
    UnusableURL,
)

BODY_LIMIT = 1024 * 1024  # a configuration or a signed chain takes about 10 KiB
# The calls of a renewal follow one another within seconds, and the connection that proved a new pair serves
# the next one if that comes soon; one that idles longer is what gateways and NATs cut without a word.
KEEPALIVE_EXPIRY = 15.0
_LIMITS = httpx.Limits(max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_EXPIRY)

_Stamp = tuple[int, int, int]


class Step(StrEnum):
    """What of a call is under way, in this order; a proxy's only if there is one."""

    CONNECT = "connect"  # the name, and TCP to the Connector or its proxy
    PROXY = "proxy"  # the proxy's own TLS, and the tunnel
    TLS = "tls"
    CALL = "call"


@dataclass(slots=True)
class Progress:
    """How far a call has come; kept up to date while it runs."""

    step: Step = Step.CONNECT


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer whose body was read to its end, and when its header arrived by our clock."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class _Key:
    """What connections may not be shared across."""

    host: str
    port: int
    fingerprint: str | None
    proxy: str | None = field(repr=False)  # with its password


@dataclass(slots=True, eq=False)
class _Pool:
    key: _Key
    anchors: _Stamp | None
    client: httpx.AsyncClient
    calls: int = 0
    retired: bool = False


class Transport:
    """POSTs to the Connector. A failed call leaves no connection behind; no call is repeated."""

    def __init__(
        self,
        *,
        ca_file: Path | None,
        proxy_for: Callable[[str], str | None],
        timeout: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._ca_file = ca_file
        self._proxy_for = proxy_for
        self._timeout = timeout
        self._now = now
        self._pools: list[_Pool] = []
        self._building = asyncio.Lock()

    async def post(self, door: Door, body: bytes, progress: Progress) -> Reply:
        """The answer to a JSON body, whatever its status. `progress` says where it stopped, if it fails.

        Raises ConnectorProtocol (too long, compressed, a URL that is none), ConnectorRejected (a token that
        is none), ConnectorUnavailable (a proxy URL that is none), ConnectorUntrusted (the CA file cannot be
        used), StoreDamaged (the pair cannot be loaded), TimeoutError, httpx's errors and OSError.
        """
        url = _url(door.url)
        proxy = _proxy(self._proxy_for(door.url))
        async with asyncio.timeout(self._timeout.total_seconds()):
            return await self._exchange(url, proxy, door, body, progress)

    def where(self, door: Door, step: Step = Step.CALL) -> str:
        """Who a call to this door deals with at that step, for people: hosts and ports only."""
        target, proxy = _url(door.url).where, _proxy(self._proxy_for(door.url))
        if proxy is None:
            return target
        if step is Step.CONNECT:
            return f"the proxy {proxy.where} on the way to {target}"
        return f"{target} through the proxy {proxy.where}"

    async def retire(self, keep: frozenset[str]) -> None:
        """Close all pools but those of client pairs with these fingerprints; calls under way may end."""
        for pool in self._pools:
            pool.retired = pool.retired or pool.key.fingerprint not in keep
        await self._close_retired()

    async def aclose(self) -> None:
        await self.retire(frozenset())

    async def _exchange(
        self, url: URL, proxy: URL | None, door: Door, body: bytes, progress: Progress
    ) -> Reply:
        opened: list[Any] = []

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                opened.append(info["return_value"])
                progress.step = Step.TLS if proxy is None else Step.PROXY
            elif event == "proxy.start_tls.started":
                progress.step = Step.TLS
            # While it is the proxy's turn this is the request for a tunnel.
            elif event == "http11.send_request_headers.started" and progress.step is not Step.PROXY:
                progress.step = Step.CALL

        headers, extensions = _headers(door), {"trace": trace}
        pool = await self._pool(url, proxy, door.pair)
        pool.calls += 1
        try:
            async with pool.client.stream(
                "POST", url.text, content=body, headers=headers, extensions=extensions
            ) as response:
                at = self._now()
                return Reply(response.status_code, response.headers, await _read(response), at)
        except BaseException:
            # httpcore 1.0 forgets, and so leaks, a connection whose TLS handshake is cancelled, and through
            # a proxy keeps it as busy for ever: close what was opened, and go on with a new pool.
            pool.retired = True
            for stream in opened:
                await stream.aclose()
            raise
        finally:
            pool.calls -= 1
            await self._close_retired()

    async def _pool(self, url: URL, proxy: URL | None, pair: ClientPair | None) -> _Pool:
        fingerprint = pair.fingerprint if pair else None
        key = _Key(url.host, url.port, fingerprint, proxy.text if proxy else None)
        async with self._building:
            anchors = _stamp(self._ca_file)
            for pool in self._pools:
                pool.retired = pool.retired or pool.anchors != anchors
            for pool in self._pools:
                if pool.key == key and not pool.retired:
                    return pool
            # In a thread: reading the system's trust store takes 24 ms, importing httpcore as much again.
            client = await asyncio.to_thread(_open, self._ca_file, pair, proxy)
            self._pools.append(pool := _Pool(key, anchors, client))
            return pool

    async def _close_retired(self) -> None:
        done = [pool for pool in self._pools if pool.retired and not pool.calls]
        self._pools = [pool for pool in self._pools if pool not in done]
        for pool in done:
            await pool.client.aclose()


def _url(text: str) -> URL:
    try:
        return parse_https(text)
    except ValueError as fault:
        raise UnusableURL(f"the Connector's URL {fault}") from None


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


def _headers(door: Door) -> dict[str, str]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": f"compass-sidecar/{__version__}",
        # Envoy at the edge overwrites the first and may copy the second (contract, section 1).
        "x-request-id": door.correlation_id,
        "x-correlation-id": door.correlation_id,
    }
    if door.token is not None:
        if not is_token(door.token):
            raise ConnectorRejected("the one-time token has characters that no token has")
        headers["Connector-Token"] = door.token
    return headers


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


def _open(ca_file: Path | None, pair: ClientPair | None, proxy: URL | None) -> httpx.AsyncClient:
    with suppress(ImportError):  # else imported on the event loop by the first connection, for 30 ms
        import_module("anyio._backends._asyncio")
    context = _context(ca_file)
    if pair is not None:
        _present(context, pair)
    # Neither the CA file nor the client pair is meant for a proxy.
    tunnel = httpx.Proxy(proxy.text) if proxy is not None else None
    if proxy is not None and tunnel is not None and proxy.scheme == "https":
        tunnel.ssl_context = _context(None)
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


def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        raise _unusable(ca_file, _fault(error)) from error
    if not context.cert_store_stats()["x509"]:
        raise _unusable(ca_file, "no certificate found")
    # What an operator names is an anchor, even if it is an intermediate or the server's own certificate.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context


def _stamp(ca_file: Path | None) -> _Stamp | None:
    """Changes with the file, also if it is behind the symlinks of a mounted Secret."""
    if ca_file is None:
        return None
    try:
        status = ca_file.stat()
    except OSError as error:
        raise _unusable(ca_file, _fault(error)) from error
    return status.st_mtime_ns, status.st_ino, status.st_size


def _unusable(ca_file: Path, fault: str) -> ConnectorUntrusted:
    return ConnectorUntrusted(f"COMPASS_CONNECTOR_CA_FILE {ca_file} cannot be used: {fault}")


def _present(context: ssl.SSLContext, pair: ClientPair) -> None:
    try:
        # Without a password of our own OpenSSL would ask for one on the terminal.
        context.load_cert_chain(pair.certificate_file, pair.key_file, password="")
    except OSError as error:
        files = f"{pair.certificate_file} and {pair.key_file}"
        raise StoreDamaged(f"{files} cannot be loaded: {_fault(error)}") from error


def _fault(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "unreadable").lower().replace("_", " ")
    return error.strerror or type(error).__name__
