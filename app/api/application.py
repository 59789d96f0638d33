"""The local API put together: guard, then what is ready, then the routes."""

import json
import logging
from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from .. import __version__
from ..core.catalogue import Event
from ..core.text import printable
from ..engine.ports import Sidecar
from ..errors import SidecarError
from .actions import action_routes
from .certificates import bundle_routes, certificate_routes
from .guard import Access, Guard, read_chunked
from .longpoll import LongPoll
from .negotiation import gather
from .openapi import ABOUT, DescribedAPI
from .paths import OPENAPI, PATHS, PROBES
from .problems import Answer, Refusal, problem, problem_of
from .served import FastPath, Served
from .status import health_routes, status_routes

Observe = Callable[[str, str, int], None]
MISTAKE = problem("internal-error", "This is a mistake in the sidecar; its log says more.")
_CODES = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
_FIELDS = frozenset({"token", "connector_url", "confirm"})
_METHODS = frozenset({"GET", "HEAD", "POST"})
_log = logging.getLogger("compass_sidecar.api")


def create_api(
    sidecar: Sidecar,
    access: Access,
    *,
    metrics: Callable[[], bytes] | None = None,
    observe: Observe = lambda *_: None,
) -> "API":
    """The whole API. `observe(route, method, status)` is told of every answer."""
    served = Served(sidecar)
    router = create_router(sidecar, served, access, metrics=metrics)
    return API(Guard(access), FastPath(sidecar, served), router, observe)


def create_router(
    sidecar: Sidecar,
    served: Served,
    access: Access,
    *,
    metrics: Callable[[], bytes] | None = None,
) -> FastAPI:
    """The routes alone, which answer everything, and know nothing of the guard."""
    router = DescribedAPI(
        title="compass-sidecar",
        version=__version__,
        description=ABOUT,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    longpoll = LongPoll(sidecar)
    router.include_router(status_routes(sidecar, access, metrics=metrics))
    router.include_router(certificate_routes(served, longpoll))
    router.include_router(bundle_routes(served, access))
    router.include_router(action_routes(sidecar, longpoll, access))
    router.include_router(health_routes(sidecar, served))
    _add_handlers(router, served)

    @router.get(OPENAPI.path, include_in_schema=False)
    async def openapi() -> Response:
        body = json.dumps(router.openapi()).encode()  # the router keeps it; nobody asks often
        return Answer.of(200, {"Content-Type": "application/json"}, body).response()

    return router


class API:
    """The ASGI application; and what it has ready (`connection.ReadyApp`)."""

    def __init__(self, guard: Guard, fast: FastPath, router: FastAPI, observe: Observe) -> None:
        self._guard = guard
        self._fast = fast
        self._router = router
        self._observe = observe

    def ready(self, scope: Scope) -> Answer | None:
        """The answer to one of the fast path's targets; None for the others, which `__call__` answers."""
        fields = gather(scope)
        try:
            self._guard.check(scope, fields)
            answer = self._fast.find(scope, fields)
        except Exception:  # noqa: BLE001 - a refusal or a mistake: `__call__` comes upon it too, and tells
            return None
        if answer is not None:
            self._observe(scope["path"], scope["method"], answer.status)
        return answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields, answer = gather(scope), None
        try:
            self._guard.check(scope, fields)
            if b"transfer-encoding" in fields:
                receive = await read_chunked(receive)
        except Refusal as refusal:
            _log.warning(Event.REQUESTS_REFUSED, extra={"code": refusal.code, "count": 1})
            answer = refusal.answer()
        except Exception:  # noqa: BLE001 - logged, and answered like one of the router's
            _log.exception(Event.INTERNAL_ERROR, extra={"path": printable(scope["path"])})
            answer = MISTAKE
        if answer is None:
            self._observe(*self._labels(scope), await self._route(scope, receive, send))
        else:
            await self.answer(answer, scope, send)

    async def answer(self, answer: Answer, scope: Scope, send: Send) -> None:
        """Send it, and count it."""
        await answer.send(send, method=scope["method"])
        self._observe(*self._labels(scope), answer.status)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> int:
        outgoing = _Outgoing(send, method=scope["method"])
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        try:
            await self._router(scope, receive, outgoing)
        except Exception:  # noqa: BLE001 - the router has answered it, and passes it on to be logged
            _log.exception(Event.INTERNAL_ERROR, extra={"path": printable(scope["path"])})
        return outgoing.status

    @staticmethod
    def _labels(scope: Scope) -> tuple[str, str]:
        path, method = scope["path"], scope["method"]
        return path if path in PATHS else "unmatched", method if method in _METHODS else "other"


class Health:
    """The same, reduced to health and metrics: for the second listener, which a pod's network reaches."""

    def __init__(self, api: API) -> None:
        self._api = api

    def ready(self, scope: Scope) -> Answer | None:
        return self._api.ready(scope) if scope["path"] in PROBES else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            await self._api(scope, receive, send)
        else:
            nothing = problem("not-found", "Only health and metrics are served here.")
            await self._api.answer(nothing, scope, send)


class _Outgoing:
    """Notes the status; and sends no body to HEAD, which the router knows as GET."""

    def __init__(self, send: Send, *, method: str) -> None:
        self._send = send
        self._method = method
        self.status = 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif self._method == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)


def _add_handlers(router: FastAPI, served: Served) -> None:
    @router.exception_handler(SidecarError)
    async def known(request: Request, error: SidecarError) -> Response:
        rendered = served.usable() if request.method == "POST" else None
        valid_until = rendered.expires if rendered is not None else None
        return problem_of(error, method=request.method, valid_until=valid_until).response()

    @router.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return refusal.answer().response()

    @router.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return problem("bad-request", _explain(error)).response()

    @router.exception_handler(HTTPException)
    async def refused_by_router(_: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "bad-request")
        detail = "The body is not JSON." if code == "bad-request" else "See /openapi.json."
        return problem(code, detail, headers=_allow(error.headers)).response()

    @router.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return MISTAKE.response()


def _allow(headers: Mapping[str, str] | None) -> dict[str, str]:
    allow = (headers or {}).get("Allow")
    return {"Allow": "GET, HEAD" if allow == "GET" else allow} if allow else {}


def _explain(error: RequestValidationError) -> str:
    """Never what was sent: it may be a secret, or be in the wrong field."""
    first = error.errors()[0]
    name = next((part for part in first["loc"] if part in _FIELDS), None)
    if first["type"] == "extra_forbidden":
        return "The body has a field that is not known."
    if name is None:
        return "The body is not a JSON object."
    return f"`{name}` is missing." if first["type"] == "missing" else f"`{name}` is not what it should be."
