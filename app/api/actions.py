"""`POST /renew`, `/connect` and `/revoke`: each starts a task that goes on whoever leaves."""

import logging
from datetime import timedelta

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..core.catalogue import Event
from ..engine.ports import Sidecar
from .guard import Access
from .longpoll import LongPoll
from .negotiation import gather, parse_prefer
from .openapi import PREFER, Responses, extra, headers, problems
from .paths import CONNECT, RENEW, REVOKE, STATUS
from .problems import Answer
from .schemas import ConnectAnswer, ConnectRequest, PendingAnswer, RenewAnswer, RevokeAnswer, RevokeRequest

_log = logging.getLogger("compass_sidecar.api")
_PATIENCE = timedelta(minutes=5)
_UNUSABLE = ("not-connected", "credential-expired", "credential-revoked")
_FAILED = (
    "connector-rejected",
    "connector-unauthenticated",
    "connector-protocol",
    "connector-untrusted",
    "connector-unavailable",
    "connector-timeout",
    "store-write-failed",
)
_ACCEPTED: Responses = {
    202: {
        "model": PendingAnswer,
        "description": "It is not done yet, and goes on",
        **headers({"Location": "`/status`", "Preference-Applied": "What of `Prefer` was heeded"}),
    }
}


def action_routes(sidecar: Sidecar, longpoll: LongPoll, access: Access) -> APIRouter:
    router = APIRouter(tags=["actions"])

    @router.post(
        RENEW.path,
        response_model=RenewAnswer,
        responses=_ACCEPTED | problems(RENEW, *_UNUSABLE, *_FAILED, "renewed-recently"),
        openapi_extra=extra(RENEW, PREFER),
    )
    async def renew(request: Request) -> Response:
        """One attempt now. Calls that arrive while it runs join it; a failure leaves the old one in use."""
        preference = parse_prefer(gather(request.scope).get(b"prefer", b""))
        task = sidecar.renew()
        if not await longpoll.ended(task, preference.patience, request.receive):
            return _accepted(sidecar, preference.applied)
        return _done(RenewAnswer.of(task.result()), preference.applied)

    @router.post(
        CONNECT.path,
        response_model=ConnectAnswer,
        responses=_ACCEPTED | problems(CONNECT, *_FAILED, "busy", "not-connected"),
        openapi_extra=extra(CONNECT, PREFER),
    )
    async def connect(request: Request, wanted: ConnectRequest) -> Response:
        """A first connection with a one-time token, or a new one after expiry or revocation.

        While it is unknown whether the token is spent, it is presented three more times. The token of a
        connection that is under way joins that. `retryable` says whether the token may be presented again.
        """
        preference = parse_prefer(gather(request.scope).get(b"prefer", b""))
        _log.info(Event.CONNECT_REQUESTED, extra={"by": access.caller(request.scope)})
        task = sidecar.connect(wanted.token, wanted.connector_url)
        if not await longpoll.ended(task, preference.patience, request.receive):
            return _accepted(sidecar, preference.applied)
        return _done(ConnectAnswer.of(task.result()), preference.applied)

    @router.post(
        REVOKE.path,
        response_model=RevokeAnswer,
        responses=_ACCEPTED | problems(REVOKE, *_UNUSABLE, *_FAILED, "busy", "not-current"),
        openapi_extra=extra(REVOKE),
    )
    async def revoke(request: Request, wanted: RevokeRequest) -> Response:
        """Revokes the current certificate at the Connector; only `/connect` or a newer import leads out."""
        by = access.caller(request.scope)
        _log.info(Event.REVOKE_REQUESTED, extra={"by": by, "fingerprint": wanted.confirm})
        task = sidecar.revoke(wanted.confirm)
        if not await longpoll.ended(task, _PATIENCE, request.receive):
            return _accepted(sidecar, "")
        task.result()
        return _done(RevokeAnswer(fingerprint_sha256=wanted.confirm), "")

    return router


def _done(answer: BaseModel, applied: str) -> Response:
    waited = applied.removeprefix("respond-async").removeprefix(", ")
    return _answer(200, answer, {"Preference-Applied": waited} if waited else {})


def _accepted(sidecar: Sidecar, applied: str) -> Response:
    extra = {"Location": STATUS.path, **({"Preference-Applied": applied} if applied else {})}
    return _answer(202, PendingAnswer(pending=sidecar.status.pending), extra)


def _answer(status: int, answer: BaseModel, extra: dict[str, str]) -> Response:
    fixed = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Answer.of(status, fixed | extra, answer.model_dump_json().encode()).response()
