"""The Connector's GraphQL operations. Foreign errors are translated here, once, into the error tree."""

import asyncio
import base64
import errno
import json
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import httpx

from ..core.answer import (
    Configuration,
    SignedAnswer,
    parse_date,
    read_answer,
    read_configuration,
    read_first_configuration,
    read_revoked,
    read_signed,
)
from ..core.door import Door
from ..core.text import printable
from ..errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    SidecarError,
)
from .transport import Progress, Reply, Step, Transport

Operation = Literal["configuration", "sign", "probe", "revoke"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

_CONFIGURATION = (
    "query { result: configuration { certificateSigningRequestInfo { subject keyAlgorithm } "
    "managementPlaneInfo { directorURL certificateSecuredConnectorURL } } }"
)
# Only here: a token that is not selected is a credential less that travels (contract, section 1).
_FIRST_CONFIGURATION = _CONFIGURATION.replace("configuration {", "configuration { token { token }", 1)
# The gateway looks for the word `mutation` at the very beginning.
_SIGN = (
    "mutation ($csr: String!) { result: signCertificateSigningRequest(csr: $csr) "
    "{ certificateChain caCertificate clientCertificate } }"
)
# Passes TLS, the gateway's authentication and the Connector, and mints no token (contract, section 6).
_PROBE = "query { __typename }"
_REVOKE = "mutation { result: revokeCertificate }"

# What comes out of a call besides our own errors. httpcore passes an ssl.SSLError on as it is when it
# comes up while reading, and a name that cannot be encoded as UnicodeError.
FOREIGN = (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError)

# How anyio moves bytes through OpenSSL: in the context of whatever happens meanwhile, and no trouble.
_PUMPING = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLZeroReturnError)

_CUT_OFF = re.compile("disconnected without|closed connection")
_ALERT = re.compile(r"\balert ([a-z ]+)")
# Alerts about our certificate, and what they usually mean. None is a reason to throw it away.
_ALERTS: Mapping[str, str] = {
    "handshake failure": "probably for want of a client certificate that it accepts",
    "bad certificate": "our certificate is not accepted, perhaps not yet valid by its clock",
    "unsupported certificate": "certificates of this kind are not accepted",
    "certificate revoked": "our certificate is revoked",
    "certificate expired": "our certificate has expired, and only a new one-time token helps; or, if it is "
    "new, the clocks differ",
    "certificate unknown": "our certificate is not accepted, without a reason",
    "unknown ca": "the CA of our certificate is unknown to it, usually since it was changed on that side",
    "access denied": "our certificate is good, but not let in",
    "decrypt error": "our signature with the certificate's key could not be verified",
    "certificate required": "a client certificate is demanded",
}

# What the operating system's words mean for whoever has to do something about it.
_MEANINGS: Mapping[int, str] = {
    errno.ECONNREFUSED: "nothing listens there: it is down, or its URL has a wrong host or port",
    errno.EHOSTUNREACH: "there is no way to its network from here",
    errno.ENETUNREACH: "there is no way to its network from here",
    errno.ETIMEDOUT: "nothing answers there, as when a firewall drops what we send",
    errno.ECONNRESET: "something on the way cuts the connection, or it restarts",
}
_PROXY_ANSWERS: Mapping[str, str] = {
    "407": "it wants a user name and a password: COMPASS_CONNECTOR_PROXY=http://USER:PASSWORD@HOST:PORT",
    "403": "it does not let us through to this host: have it allowed there, or exempt it with NO_PROXY",
}
_SLOW: Mapping[Step, str] = {
    Step.CONNECT: "no connection to {where} within {limit} s: nothing answers there, as when a firewall "
    "drops what we send, or its name is looked up in vain",
    Step.PROXY: "no tunnel to {where} within {limit} s: the proxy took our request and does not answer it",
    Step.TLS: "no TLS with {where} within {limit} s: it took the connection and then said nothing",
    Step.CALL: "no full answer from {where} within {limit} s: it took our call, and is slow or hangs",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Observation:
    """One call as seen from here. `date` is the answer's own, `at` our clock when its header came, and
    `step` how far it came."""

    correlation_id: str
    operation: Operation
    outcome: str
    seconds: float
    date: datetime | None
    at: datetime
    step: Step = Step.CALL


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a failed call needs to be told of in plain words. `where` is whom it was dealing with at that
    step; `mutual` whether we had a certificate to present; `now` our clock."""

    where: str
    mutual: bool
    step: Step = Step.CALL
    ca_file: Path | None = None
    limit: timedelta = timedelta(seconds=30)
    now: datetime | None = None


class Connector:
    """The Connector behind a door. Each call is one HTTP request: it raises a ConnectorError (or
    StoreDamaged, for a client pair that cannot be loaded) and leaves repeating it to its caller.

    `observe` is told of each call that ended, good or bad; a cancelled one has not ended.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None,
        proxy_for: Callable[[str], str | None],
        timeout: timedelta,
        observe: Callable[[Observation], None],
        now: Callable[[], datetime],
    ) -> None:
        self._transport = Transport(ca_file=ca_file, proxy_for=proxy_for, timeout=timeout, now=now)
        self._ca_file = ca_file
        self._timeout = timeout
        self._observe = observe
        self._now = now

    async def configuration(self, door: Door) -> Configuration:
        """The subject to ask for, and the URLs. With a token in the door, that is spent now, and the
        answer has the next one; without, the Director still mints one, which is not asked for."""
        if door.token is None:
            return await self._call("configuration", door, _CONFIGURATION, read_configuration)
        return await self._call("configuration", door, _FIRST_CONFIGURATION, read_first_configuration)

    async def sign(self, door: Door, csr_pem: bytes) -> SignedAnswer:
        """A certificate for the CSR, not yet verified. Harmless to repeat."""
        csr = base64.b64encode(csr_pem).decode("ascii")
        return await self._call("sign", door, _SIGN, read_signed, csr=csr)

    async def probe(self, door: Door) -> datetime | None:
        """Raise unless the door's credential is accepted; the answer's own date."""
        return await self._call("probe", door, _PROBE, lambda _data, date: date)

    async def revoke(self, door: Door) -> None:
        """Revoke the certificate of the door's client pair, for good."""
        return await self._call("revoke", door, _REVOKE, lambda data, _date: read_revoked(data))

    async def retire(self, keep: frozenset[str]) -> None:
        """Close the connections of all doors but those of client pairs with these fingerprints."""
        await self._transport.retire(keep)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _call(
        self,
        operation: Operation,
        door: Door,
        document: str,
        read: Callable[[Mapping[str, Any], datetime | None], _T],
        **variables: str,
    ) -> _T:
        started = asyncio.get_running_loop().time()
        reply: Reply | None = None
        progress = Progress()
        try:
            reply = await self._post(door, document, variables, progress)
            date = parse_date(reply.headers)
            result = read(read_answer(reply.status, reply.headers, reply.body), date)
        except SidecarError as error:
            if isinstance(error, ConnectorError):
                error.arrived = error.arrived and progress.step is Step.CALL
                error.status = reply.status if reply else None
            self._report(door, operation, error.code, started, reply, step=progress.step)
            raise
        self._report(door, operation, "ok", started, reply, step=progress.step)
        return result

    def _report(
        self,
        door: Door,
        operation: Operation,
        outcome: str,
        started: float,
        reply: Reply | None,
        *,
        step: Step,
    ) -> None:
        seconds = asyncio.get_running_loop().time() - started
        date = parse_date(reply.headers) if reply else None
        at = reply.at if reply else self._now()
        self._observe(Observation(door.correlation_id, operation, outcome, seconds, date, at, step))

    async def _post(
        self, door: Door, document: str, variables: Mapping[str, str], progress: Progress
    ) -> Reply:
        body = json.dumps({"query": document, "variables": variables}).encode("ascii")
        outer = sys.exception()
        try:
            return await self._transport.post(door, body, progress)
        except FOREIGN as error:
            circumstances = Circumstances(
                where=self._transport.where(door, progress.step),
                mutual=door.pair is not None,
                step=progress.step,
                ca_file=self._ca_file,
                limit=self._timeout,
                now=self._now(),
            )
            raise translate(error, circumstances, outer=outer) from error


def translate(
    error: Exception, circumstances: Circumstances, *, outer: BaseException | None = None
) -> ConnectorError:
    """The error of our tree for one of FOREIGN.

    TLS trouble is told by its text wherever it is in the chain, not by a class: in TLS 1.3 a refusal of
    our certificate shows on the first read. `outer`: what the caller was handling already, which Python
    hangs into the chain and is not of this call.
    """
    where = circumstances.where
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        limit = f"{circumstances.limit.total_seconds():g}"
        return ConnectorTimeout(_SLOW[circumstances.step].format(where=where, limit=limit))
    links = list(_links(error, outer))
    told = " ".join(map(str, links)).lower().replace("_", " ")
    if trouble := _tls_trouble(links, told, circumstances):
        trouble.arrived = False  # also in TLS 1.3, where it shows on the first read
        return trouble
    if isinstance(error, httpx.ProxyError):
        answer = printable(str(error))
        meaning = _PROXY_ANSWERS.get(answer[:3], "it cannot get through to this host either")
        return ConnectorUnavailable(f"no way to {where}: the proxy answered {answer}: {meaning}")
    if isinstance(error, httpx.NetworkError | OSError) or _CUT_OFF.search(told):
        met = circumstances.mutual and circumstances.step in (Step.TLS, Step.CALL)
        hint = "; this may also be how it refuses our client certificate" if met else ""
        return ConnectorUnavailable(f"no answer from {where}: {_reason(links)}{hint}")
    return ConnectorProtocol(f"no HTTP with {where}: {_reason(links)}")


def _tls_trouble(
    links: list[BaseException], told: str, circumstances: Circumstances
) -> ConnectorError | None:
    where = circumstances.where
    for link in links:
        if isinstance(link, ssl.SSLCertVerificationError):
            return _untrusted(link, circumstances)
    if alert := _ALERT.search(told):
        return _alerted(alert[1].strip(), where, mutual=circumstances.mutual)
    for link in links:
        if isinstance(link, ssl.SSLError):
            return ConnectorProtocol(f"{where} speaks no TLS that we understand: {printable(str(link))}")
    return None


def _links(error: BaseException, outer: BaseException | None) -> Iterator[BaseException]:
    """The error and all that is behind it: causes, contexts and the members of groups."""
    seen: list[BaseException | None] = [None, outer]
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop(0)
        if link is None or link in seen:
            continue
        seen.append(link)
        if not isinstance(link, _PUMPING):
            yield link
        waiting += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions


def _untrusted(link: ssl.SSLCertVerificationError, circumstances: Circumstances) -> ConnectorUntrusted:
    reason = printable(getattr(link, "verify_message", str(link))).rstrip(".")
    return ConnectorUntrusted(
        f"the server certificate of {circumstances.where} does not verify: {reason}: "
        f"{_advice(reason, circumstances)}"
    )


def _advice(reason: str, circumstances: Circumstances) -> str:
    """OpenSSL's words for a certificate that does not verify, in ours."""
    if "expired" in reason or "not yet valid" in reason:
        ours = f"{circumstances.now:%Y-%m-%dT%H:%M:%SZ}" if circumstances.now else "not known"
        return f"our clock says {ours}; if that is right, its operator has to replace it, else set our clock"
    if "mismatch" in reason:
        return "it is for another host; check the host in the URL"
    # An https proxy is judged by the system's trust store alone.
    ca_file = None if circumstances.step is Step.PROXY else circumstances.ca_file
    if ca_file is None:
        return (
            "it is signed by none of the authorities that this system trusts; "
            "COMPASS_CONNECTOR_CA_FILE can name others"
        )
    return (
        f"it is signed by none of the authorities in COMPASS_CONNECTOR_CA_FILE ({ca_file}); put the PEM of "
        "the one that signed it there (not the CA of the client certificate, which is another one)"
    )


def _alerted(alert: str, where: str, *, mutual: bool) -> ConnectorError:
    detail = f"{where} ended TLS with the alert `{alert}`"
    if alert == "internal error":
        return ConnectorUnavailable(detail)
    if alert not in _ALERTS:
        return ConnectorProtocol(detail)
    if mutual:
        return ConnectorUnauthenticated(f"{detail}: {_ALERTS[alert]}")
    if alert == "handshake failure":
        return ConnectorProtocol(
            f"{detail}: no TLS version or cipher in common, or it wants a client certificate"
        )
    return ConnectorUnauthenticated(f"{detail}: it wants a client certificate; is it token-secured at all?")


def _reason(links: list[BaseException]) -> str:
    for link in links:
        if isinstance(link, socket.gaierror):
            return _unresolved(link)
        if isinstance(link, httpx.RemoteProtocolError):
            return printable(str(link)).rstrip(".")
    numbers = dict.fromkeys(link.errno for link in links if isinstance(link, OSError) and link.errno)
    reasons = ", ".join(os.strerror(number) for number in numbers) or "the connection was closed"
    meaning = next((_MEANINGS[number] for number in numbers if number in _MEANINGS), None)
    return f"{reasons}: {meaning}" if meaning else reasons


def _unresolved(link: socket.gaierror) -> str:
    meaning = (
        "no name server answers: look at the DNS of this machine or pod"
        if link.errno == socket.EAI_AGAIN
        else "there is no such name for the DNS of this machine or pod; is it spelt right?"
    )
    return f"its name cannot be resolved ({link.strerror}): {meaning}"
