"""What only looks: `/status`, the health checks, the metrics, and the page for people."""

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.answers import Answer
from app.api.fast import ALIVE
from app.api.openapi import Responses, content, problems
from app.api.ports import Sidecar
from app.api.problems import Refusal, problem_of
from app.api.representations import Shelf
from app.api.schemas import StatusAnswer
from app.errors import NoCredential, SidecarError

_TEXT = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_INLINE = re.compile(rb"<(script|style)[^>]*>(.*?)</\1>", re.DOTALL)


def status_routes(sidecar: Sidecar, *, metrics: Callable[[], bytes] | None, page: bytes | None) -> APIRouter:
    router = APIRouter(tags=["status"])
    shown = page_answer(page) if page is not None else None

    @router.get("/status", response_model=StatusAnswer, responses=problems())
    async def status() -> Response:
        """What the sidecar holds, and how renewal goes."""
        body = StatusAnswer.of(sidecar.status, sidecar.now()).model_dump_json().encode()
        return _answer("application/json", body).response()

    @router.get("/", response_class=Response, responses=content("text/html") | problems("not-found"))
    async def page_for_people() -> Response:
        """What `/status` says, for people."""
        if shown is None:
            raise Refusal("not-found", "This sidecar has no page.")
        return shown.response()

    @router.get("/metrics", response_class=Response, responses=_health("not-found"))
    async def prometheus() -> Response:
        """Prometheus text."""
        if metrics is None:
            raise Refusal("not-found", "This sidecar has no metrics.")
        return _answer(_METRICS, metrics()).response()

    return router


def _health(*codes: str) -> Responses:
    return content("text/plain") | problems(*codes, guarded=False)


def health_routes(sidecar: Sidecar, shelf: Shelf) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/livez", response_class=Response, responses=_health("stalled"))
    async def livez() -> Response:
        """Whether the event loop and the renewal loop turn. Never depends on the Connector."""
        if not sidecar.alive():
            raise Refusal("stalled", "The renewal loop has not turned for a while.")
        return ALIVE.response()

    @router.get(
        "/readyz",
        response_class=Response,
        responses=_health("not-connected", "credential-expired", "credential-revoked"),
    )
    async def readyz(
        request: Request,
        verbose: Annotated[str | None, Query(description="If it is there, the checks are listed")] = None,
    ) -> Response:
        """Whether the credential served is unexpired and not revoked by us, through any Connector outage."""
        if verbose is None:
            shelf.current()
            return ALIVE.response()
        checks = _checks(sidecar)
        try:
            shelf.current()
        except SidecarError as error:
            return problem_of(error, method=request.method, checks=checks).response()
        return _answer(_TEXT, "".join(f"[+] {name}\n" for name in checks).encode()).response()

    @router.get("/startupz", response_class=Response, responses=_health("not-connected"))
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


def page_answer(page: bytes) -> Answer:
    """The page, allowed to run and to look like what is inside it, to talk to us, and nothing else."""
    sources = {b"script": "", b"style": ""}
    for kind, text in _INLINE.findall(page):
        sources[kind] += f" 'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
    script, style = (sources[kind] or " 'none'" for kind in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src{script}; style-src{style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _answer("text/html; charset=utf-8", page, {"Content-Security-Policy": policy})


def _answer(media_type: str, body: bytes, extra: dict[str, str] | None = None) -> Answer:
    return Answer.of(200, {"Content-Type": media_type, "Cache-Control": "no-store", **(extra or {})}, body)
