"""What httpx, ssl and the operating system raise during a call, as one error of the tree in plain words.

Every sentence names who was called, what happened, what it usually means and what helps.
"""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import httpx

from ..core.text import printable, rfc3339
from ..core.url import URL
from ..errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorTimeout,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    ConnectorUntrusted,
    UnexpectedFailure,
)


class Step(StrEnum):
    """What of a call is under way, in this order; a proxy's only if there is one."""

    CONNECT = "connect"  # the name, and TCP to the server or its proxy
    PROXY = "proxy"  # the proxy's own TLS, and the tunnel
    TLS = "tls"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the words need to know of a failed call.

    `presented` is the client certificate in words, None without one. `anchors` is the file that
    `anchors_variable` names, None for the system's trust store. `demanded` are the schemes, in lower case, in
    which the proxy accepts credentials.
    """

    target: URL
    proxy: URL | None
    step: Step
    limit: timedelta
    now: datetime
    presented: str | None = None
    anchors: Path | None = None
    anchors_variable: str = "COMPASS_CONNECTOR_CA_FILE"
    demanded: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The way, as far as it was being gone."""
        if self.proxy is None:
            return self.target.where
        if self.step is Step.CONNECT:
            return f"the proxy {self.proxy.where} on the way to {self.target.where}"
        return f"{self.target.where} through the proxy {self.proxy.where}"

    @property
    def peer(self) -> str:
        """The other end of TLS."""
        return f"the proxy {self.proxy.where}" if self.proxy and self.step is Step.PROXY else self.where


def translate(
    error: Exception, circumstances: Circumstances, *, outer: BaseException | None = None
) -> ConnectorError:
    """The error of the tree for any exception of a call; UnexpectedFailure for one that is not known.

    TLS errors are recognised anywhere in the chain of causes: in TLS 1.3 a refusal of the client certificate
    shows on the first read. `outer` is what the caller was handling already, which Python adds to that chain.
    """
    where = circumstances.where
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        limit = f"{circumstances.limit.total_seconds():g}"
        return ConnectorTimeout(_SLOW[circumstances.step].format(where=where, limit=limit))
    links = list(_links(error, outer))
    if failure := _tls_failure(links, circumstances):
        failure.arrived = False  # also in TLS 1.3, where it shows on the first read
        return failure
    if isinstance(error, httpx.ProxyError):
        return _refused_by_proxy(printable(str(error)), circumstances)
    if isinstance(error, httpx.NetworkError | OSError) or any(_CUT_OFF.search(str(link)) for link in links):
        shown = circumstances.presented if circumstances.step in (Step.TLS, Step.CALL) else None
        hint = f"; a server may also refuse {shown} in this way" if shown else ""
        return ConnectorUnavailable(f"no answer from {where}: {_reason(links)}{hint}")
    if isinstance(error, httpx.RemoteProtocolError):
        return ConnectorProtocol(f"no HTTP with {where}: {_reason(links)}")
    return _unusual(error, where)


def _unusual(error: Exception, where: str) -> ConnectorError:
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL | UnicodeError):
        # Their texts may quote a header with a token.
        return ConnectorProtocol(f"no HTTP with {where}: {type(error).__name__}")
    if isinstance(error, MemoryError) or "start new thread" in str(error):
        return ConnectorUnavailable(f"no call to {where}: {_SHORTAGE}")
    return UnexpectedFailure(f"the call to {where} failed: {type(error).__name__}")


# How anyio moves bytes through OpenSSL: in the context of other errors, and none themselves.
_PUMPING = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


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


# --- time, network, proxy --------------------------------------------------------------------------

_SLOW: Mapping[Step, str] = {
    Step.CONNECT: "no connection to {where} within {limit} s: nothing answers there, as when a firewall "
    "drops packets",
    Step.PROXY: "no tunnel to {where} within {limit} s: the proxy accepted the connection and sent nothing",
    Step.TLS: "no TLS with {where} within {limit} s: it accepted the connection and sent nothing",
    Step.CALL: "no complete answer from {where} within {limit} s: it is slow or hangs",
}
_SHORTAGE = "this machine or pod has no memory or no thread left; raise its limits"
_CUT_OFF = re.compile("disconnected without|closed connection")
_MEANINGS: Mapping[int, str] = {
    errno.ECONNREFUSED: "nothing listens there: it is down, or its URL has a wrong host or port",
    errno.EHOSTUNREACH: "there is no route to it from here",
    errno.ENETUNREACH: "there is no route to it from here",
    errno.ETIMEDOUT: "nothing answers there, as when a firewall drops packets",
    errno.ECONNRESET: "a device on the way closes the connection, or the server restarts",
}


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
    meaning = {
        socket.EAI_AGAIN: "no name server answers: check the DNS of this machine or pod",
        socket.EAI_MEMORY: _SHORTAGE,
    }.get(link.errno or 0, "the DNS of this machine or pod has no such name; check the spelling")
    return f"its name cannot be resolved ({link.strerror}): {meaning}"


def _refused_by_proxy(answer: str, circumstances: Circumstances) -> ConnectorUnavailable:
    meaning = "the proxy cannot reach this host either"
    if answer.startswith("403"):
        meaning = "it does not allow this host: have it allowed there, or exempt it with NO_PROXY"
    elif answer.startswith("407"):
        meaning = _wanted_by_proxy(circumstances)
    return ConnectorUnavailable(f"no way to {circumstances.where}: the proxy answered {answer}: {meaning}")


def _wanted_by_proxy(circumstances: Circumstances) -> str:
    demanded = circumstances.demanded
    if demanded and "basic" not in demanded:
        return (
            f"it accepts only {printable(', '.join(demanded))}, and the sidecar knows only Basic: have this "
            "host allowed without credentials, exempt it with NO_PROXY, or use a proxy that translates"
        )
    if circumstances.proxy is not None and "@" in circumstances.proxy.text:
        return "it does not accept the user name and the password that its URL contains"
    return "it requires a user name and a password: COMPASS_CONNECTOR_PROXY=http://USER:PASSWORD@HOST:PORT"


# --- TLS: alerts ---------------------------------------------------------------------------------------

# OpenSSL leaves the word `alert` out of five alerts, and has no text for numbers that are not assigned.
_ALERT = re.compile(r"\b(?:alert|tlsv1(?! alert)) ([a-z ]+)")
# Alerts about the client certificate, and what they usually mean. None is a reason to throw it away.
_CERTIFICATE_ALERTS: Mapping[str, str] = {
    "handshake failure": "it probably requires a client certificate, and does not accept {presented}",
    "no certificate": "it requires a client certificate",
    "bad certificate": "it does not accept {presented}, which may not be valid yet by its clock",
    "unsupported certificate": "it does not accept certificates of this kind",
    "certificate revoked": "it regards {presented} as revoked",
    "certificate expired": "it regards {presented} as expired; unless the clocks differ, only a new one-time "
    "token helps",
    "certificate unknown": "it does not accept {presented}, for a reason that it does not give",
    "unknown ca": "it does not know the CA of {presented}, usually because that CA was replaced there",
    "access denied": "it recognises {presented} and denies it access",
    "decrypt error": "it could not verify the signature made with the key of {presented}",
    "certificate required": "it requires a client certificate",
    "certificate unobtainable": "it could not obtain {presented}",
}
_NOT_UNDERSTOOD = "the two TLS libraries do not understand each other, or a device in between interferes"
_DAMAGED = "the data was damaged on the way, or a device in between interferes"
_FOR_CLIENTS = (
    "only clients have a reason to send this alert; the server or a device in between is misconfigured"
)
# All other alerts of RFC 8446 and its predecessors.
_OTHER_ALERTS: Mapping[str, tuple[type[ConnectorError], str]] = {
    "internal error": (ConnectorUnavailable, "it failed inside"),
    "user cancelled": (ConnectorUnavailable, "it cancelled the handshake"),
    "unknown psk identity": (ConnectorUnavailable, "it no longer knows the session that was to be resumed"),
    "protocol version": (ConnectorProtocol, "there is no common TLS version; the sidecar uses 1.2 and 1.3"),
    "insufficient security": (ConnectorProtocol, "it demands stronger ciphers or keys than were offered"),
    "unrecognized name": (ConnectorProtocol, "it serves no host of this name; check the host in the URL"),
    "no application protocol": (ConnectorProtocol, "it does not serve HTTP/1.1"),
    "bad certificate status response": (ConnectorProtocol, _FOR_CLIENTS),
    "bad certificate hash value": (ConnectorProtocol, _FOR_CLIENTS),
    "bad record mac": (ConnectorProtocol, _DAMAGED),
    "decryption failed": (ConnectorProtocol, _DAMAGED),
    "record overflow": (ConnectorProtocol, _DAMAGED),
    "decompression failure": (ConnectorProtocol, _DAMAGED),
    "export restriction": (ConnectorProtocol, "it allows only ciphers that are too weak"),
    "inappropriate fallback": (ConnectorProtocol, _NOT_UNDERSTOOD),
    "unexpected message": (ConnectorProtocol, _NOT_UNDERSTOOD),
    "illegal parameter": (ConnectorProtocol, _NOT_UNDERSTOOD),
    "decode error": (ConnectorProtocol, _NOT_UNDERSTOOD),
    "no renegotiation": (ConnectorProtocol, _NOT_UNDERSTOOD),
    "missing extension": (ConnectorProtocol, _NOT_UNDERSTOOD),
    "unsupported extension": (ConnectorProtocol, _NOT_UNDERSTOOD),
}


def _tls_failure(links: list[BaseException], circumstances: Circumstances) -> ConnectorError | None:
    for link in links:
        if isinstance(link, ssl.SSLCertVerificationError):
            return _untrusted(link, circumstances)
    if alert := _ALERT.search(" ".join(map(str, links)).lower().replace("_", " ")):
        return _alerted(alert[1].strip(), circumstances)
    for link in links:
        if isinstance(link, ssl.SSLError):
            return ConnectorProtocol(_without_alert(printable(str(link)), circumstances.peer))
    return None


def _without_alert(words: str, peer: str) -> str:
    if "unknown error" in words:
        return f"{peer} ended TLS for a reason without a name, such as an alert of an unassigned number"
    return f"{peer} does not speak TLS as the sidecar does: {words}"


def _alerted(alert: str, circumstances: Circumstances) -> ConnectorError:
    detail = f"{circumstances.peer} ended TLS with the alert `{alert}`"
    if alert in _OTHER_ALERTS:
        kind, meaning = _OTHER_ALERTS[alert]
        return kind(f"{detail}: {meaning}")
    if alert not in _CERTIFICATE_ALERTS:
        return ConnectorProtocol(detail)
    if circumstances.presented is not None and circumstances.step is not Step.PROXY:
        meaning = _CERTIFICATE_ALERTS[alert].format(presented=circumstances.presented)
        return ConnectorUnauthenticated(f"{detail}: {meaning}")
    if alert == "handshake failure":
        return ConnectorProtocol(
            f"{detail}: there is no common TLS version or cipher, or it requires a client certificate"
        )
    return ConnectorUnauthenticated(
        f"{detail}: it requires a client certificate, which only the certificate-secured Connector is shown"
    )


# --- TLS: the server's certificate ---------------------------------------------------------------------

# X509_V_ERR_ numbers of OpenSSL's x509_vfy.h.
_EXPIRED, _NOT_YET_VALID = 10, 9
_REPLACE = "; it has to be replaced at the server"
_VERIFICATION: Mapping[int, str] = {
    **dict.fromkeys((2, 20, 21, 27), "it is signed by none of {anchors}; {cure}"),
    7: "a signature in its chain is wrong, as when one of {anchors} was replaced under the same name; {cure}",
    18: "it is self-signed, and it is none of {anchors}; {cure}",
    19: "the root of its chain is none of {anchors}; {cure}",
    25: "a CA in its chain may not issue such a chain (path length)" + _REPLACE,
    26: "it, or a CA in its chain, is not issued for this purpose (key usage)" + _REPLACE,
    32: "a CA in its chain may not sign certificates (key usage)" + _REPLACE,
    34: "it, or a CA in its chain, has a critical extension that OpenSSL does not know" + _REPLACE,
    47: "a CA in its chain does not allow this host name (name constraints)" + _REPLACE,
    48: "a CA in its chain excludes this host name (name constraints)" + _REPLACE,
    62: "it is for another host; check the host in the URL",
    64: "it is for another host; check the host in the URL",
    66: "its key is too weak" + _REPLACE,
    67: "a CA in its chain has a key that is too weak" + _REPLACE,
    68: "it, or a CA in its chain, is signed with a digest that is too weak, such as SHA-1" + _REPLACE,
    79: "it was issued by a certificate that is not one of a CA" + _REPLACE,
}


def _untrusted(link: ssl.SSLCertVerificationError, circumstances: Circumstances) -> ConnectorUntrusted:
    reason = printable(getattr(link, "verify_message", str(link))).rstrip(".")
    meaning = _verification(getattr(link, "verify_code", 0), circumstances)
    return ConnectorUntrusted(
        f"the server certificate of {circumstances.peer} does not verify: {reason}: {meaning}"
    )


def _verification(code: int, circumstances: Circumstances) -> str:
    if code in (_EXPIRED, _NOT_YET_VALID):
        return (
            f"this machine's clock says {rfc3339(circumstances.now)}; if that is right, the "
            "certificate or a CA in its chain has to be replaced at the server, else set the clock"
        )
    # An https proxy is judged by the system's trust store alone.
    variable = circumstances.anchors_variable
    if circumstances.step is Step.PROXY or circumstances.anchors is None:
        anchors, cure = "the authorities that this system trusts", f"{variable} can name others"
    else:
        anchors = f"the authorities in {variable} ({circumstances.anchors})"
        cure = (
            "put the PEM of the right one there (not the CA of the client certificate, which is another one)"
        )
    if circumstances.step is Step.PROXY:
        cure = "add the right one to the system's trust store"
    meaning = _VERIFICATION.get(code, "it or its chain cannot be used" + _REPLACE)
    return meaning.format(anchors=anchors, cure=cure)
