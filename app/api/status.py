"""What only looks: `/status`, the health checks, the metrics, and the page for people."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ..engine.ports import Sidecar
from ..errors import NoCredential, SidecarError
from .guard import Access
from .openapi import Responses, content, problems
from .paths import LIVEZ, METRICS, PAGE, READYZ, STARTUPZ, STATUS, Path
from .problems import Answer, Refusal, problem_of
from .schemas import StatusAnswer
from .served import ALIVE, Served

_TEXT = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


def status_routes(sidecar: Sidecar, access: Access, *, metrics: Callable[[], bytes] | None) -> APIRouter:
    router = APIRouter(tags=["status"])

    @router.get(STATUS.path, response_model=StatusAnswer, responses=problems(STATUS))
    async def status() -> Response:
        """What the sidecar holds, and how renewal goes."""
        body = StatusAnswer.of(sidecar.status, sidecar.now()).model_dump_json().encode()
        return _answer("application/json", body).response()

    @router.get(PAGE.path, response_class=Response, responses=content("text/html") | problems(PAGE))
    async def page_for_people(request: Request) -> Response:
        """What `/status` says, for people: it refreshes itself, and has a button to renew."""
        from .page import page_answer  # noqa: PLC0415 - 5 ms that no start has to wait for

        now, host = sidecar.now(), request.headers.get("host", "localhost")
        answer = StatusAnswer.of(sidecar.status, now)
        return page_answer(answer, now, host=host, asks_token=access.api_token is not None).response()

    @router.get(METRICS.path, response_class=Response, responses=_health(METRICS, "not-found"))
    async def prometheus() -> Response:
        """Prometheus text."""
        if metrics is None:
            raise Refusal("not-found", "This sidecar has no metrics.")
        return _answer(_METRICS, metrics()).response()

    return router


def _health(path: Path, *codes: str) -> Responses:
    return content("text/plain") | problems(path, *codes)


def health_routes(sidecar: Sidecar, served: Served) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get(LIVEZ.path, response_class=Response, responses=_health(LIVEZ, "stalled"))
    async def livez() -> Response:
        """Whether the sidecar makes progress. Never depends on the Connector; waiting is progress."""
        if (reason := sidecar.stalled()) is not None:
            raise Refusal("stalled", reason)
        return ALIVE.response()

    @router.get(
        READYZ.path,
        response_class=Response,
        responses=_health(READYZ, "not-connected", "credential-expired", "credential-revoked"),
    )
    async def readyz(
        request: Request,
        verbose: Annotated[str | None, Query(description="If it is there, the checks are listed")] = None,
    ) -> Response:
        """Whether the credential served is unexpired and not revoked by us, through any Connector outage."""
        if verbose is None:
            served.current()
            return ALIVE.response()
        checks = _checks(sidecar)
        try:
            served.current()
        except SidecarError as error:
            return problem_of(error, method=request.method, checks=checks).response()
        return _answer(_TEXT, "".join(f"[+] {name}\n" for name in checks).encode()).response()

    @router.get(STARTUPZ.path, response_class=Response, responses=_health(STARTUPZ, "not-connected"))
    async def startupz() -> Response:
        """Whether a first credential has been there."""
        if sidecar.status.generation is None:
            raise NoCredential("There has not been a credential yet.")
        return ALIVE.response()

    return router


def _checks(sidecar: Sidecar) -> dict[str, bool]:
    generation = sidecar.status.generation
    return {
        "connected": generation is not None,
        "not-revoked": generation is not None and generation.facts.revoked_at is None,
        "unexpired": generation is not None and sidecar.now() < generation.chain.effective_not_after,
    }


def _answer(media_type: str, body: bytes) -> Answer:
    return Answer.of(200, {"Content-Type": media_type, "Cache-Control": "no-store"}, body)
