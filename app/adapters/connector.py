"""The Connector's GraphQL operations."""

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, get_args

from ..core.answer import (
    Configuration,
    SignedAnswer,
    is_token,
    parse_date,
    read_answer,
    read_configuration,
    read_first_configuration,
    read_revoked,
    read_signed,
)
from ..core.catalogue import Event
from ..core.door import Door
from ..errors import ConnectorError, ConnectorRejected, SidecarError, UnexpectedFailure
from .anchors import Anchors
from .diagnosis import Step
from .transport import Progress, Reply, Request, Transport

Operation = Literal["configuration", "sign", "probe", "confirm", "revoke"]
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

# The causes of an empty 400, by what was presented (contract, section 2). A new certificate or a token says
# nothing about the certificate in use.
_DIRECTOR_CAUSE = "or the Director behind the Connector may have failed"
_LASTING = "if this lasts, only a new one-time token helps"
_OWN_CAUSES = (
    "the certificate may be revoked, the application or runtime deregistered, its subject changed, "
    f"{_DIRECTOR_CAUSE}; {_LASTING}"
)
_NEW_CAUSES = (
    "the new certificate may not be accepted yet, the application or runtime may be deregistered, "
    f"its subject changed, {_DIRECTOR_CAUSE}"
)
_CAUSES_OF_TOKENS = f"the one-time token may be unknown, used or expired, {_DIRECTOR_CAUSE}; {_LASTING}"

_T = TypeVar("_T")
_log = logging.getLogger("compass_sidecar.adapters.connector")


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


class Connector:
    """The Connector behind a door. Each call is one HTTP request: it raises a ConnectorError (or
    StoreDamaged, for a client pair that cannot be loaded) and leaves repeating it to its caller.

    `observe` is told of each call that ended, good or bad; a cancelled one has not ended.
    """

    def __init__(
        self,
        *,
        anchors: Anchors,
        proxy_for: Callable[[str], str | None],
        timeout: timedelta,
        observe: Callable[[Observation], None],
        now: Callable[[], datetime],
    ) -> None:
        self._transport = Transport(anchors=anchors, proxy_for=proxy_for, timeout=timeout, now=now)
        self._observe = observe
        self._now = now

    def start(self) -> None:
        """Make the thread. Raises RuntimeError if there is none to be had."""
        self._transport.start()

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
        """Raise unless the door's new credential is accepted; the answer's own date."""
        return await self._call("probe", door, _PROBE, lambda _data, date: date)

    async def confirm(self, door: Door) -> datetime | None:
        """Raise unless the door's credential, which is in use, is accepted; the answer's own date."""
        return await self._call("confirm", door, _PROBE, lambda _data, date: date)

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
            reply = await self._post(operation, door, document, variables, progress)
            result = _read(reply, read, causes=_causes(operation, door))
        except SidecarError as error:
            if isinstance(error, ConnectorError):
                error.arrived = error.arrived and progress.step is Step.CALL
                error.status = reply.status if reply else None
            if isinstance(error, UnexpectedFailure):
                _log.exception(Event.INTERNAL_ERROR, extra={"detail": error.detail})
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
        self,
        operation: Operation,
        door: Door,
        document: str,
        variables: Mapping[str, str],
        progress: Progress,
    ) -> Reply:
        request = Request(
            door.url,
            json.dumps({"query": document, "variables": variables}).encode("ascii"),
            headers=_headers(door),
            pair=door.pair,
            presented="the new certificate" if operation == "probe" else "our certificate",
        )
        return await self._transport.post(request, progress)


def _read(reply: Reply, read: Callable[[Mapping[str, Any], datetime | None], _T], *, causes: str) -> _T:
    try:
        data = read_answer(reply.status, reply.headers, reply.body, causes=causes)
        return read(data, parse_date(reply.headers))
    except SidecarError:
        raise
    except Exception as error:
        raise UnexpectedFailure(f"the answer cannot be read: {type(error).__name__}") from error


def _headers(door: Door) -> dict[str, str]:
    # Envoy at the edge overwrites the first and may copy the second (contract, section 1).
    headers = {"x-request-id": door.correlation_id, "x-correlation-id": door.correlation_id}
    if door.token is not None:
        if not is_token(door.token):
            raise ConnectorRejected("the one-time token has characters that no token has")
        headers["Connector-Token"] = door.token
    return headers


def _causes(operation: Operation, door: Door) -> str:
    """What an empty 400 to this call may mean."""
    if door.token is not None:
        return _CAUSES_OF_TOKENS
    return _NEW_CAUSES if operation == "probe" else _OWN_CAUSES
