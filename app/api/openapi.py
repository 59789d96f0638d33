"""The description of this API: what FastAPI cannot see in the routes is added here."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from ..core.catalogue import CODES
from .negotiation import PEM_CHAIN, PEM_FILE
from .paths import Caller, Path
from .problems import MEDIA_TYPE, problem, status_of
from .schemas import Problem

Responses = dict[int | str, dict[str, Any]]

ABOUT = """Holds an application's client credential for SAP/Kyma Compass, renews it through the
Certificate-Secured Connector before it expires, and serves the current chain to its neighbours.

Every path that answers GET answers HEAD too. Errors are RFC 9457 problems; `code` is stable."""
# What the guard in front of the router answers, to anything.
_GUARDED = ("bad-request", "cross-origin", "too-large", "misdirected", "internal-error")
_SCHEMES = {
    "apiToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "`COMPASS_API_TOKEN`. If none is set, `/renew` works from loopback and over the "
        "Unix socket; over the Unix socket the others never need it.",
    }
}
_TOKEN = ("token-invalid", "token-required")
_BY_CALLER = {
    Caller.LOCAL: _TOKEN,
    Caller.OPERATOR: _TOKEN,
    Caller.KEY_READER: (*_TOKEN, "loopback-required", "not-found"),
}
_HEADERS = {
    401: {"WWW-Authenticate": "`Bearer`"},
    405: {"Allow": "The methods allowed"},
    429: {"Retry-After": "Seconds until the next renewal is possible"},
    503: {"Retry-After": "Seconds, when the Connector asked for a pause"},
}
_TEXT = {"schema": {"type": "string"}}
_CERTIFICATE = {"schema": {"type": "string"}, "example": "-----BEGIN CERTIFICATE-----\nMIIE...\n"}
UNCHANGED: Responses = {304: {"description": "It is still what `If-None-Match` names"}}
IF_NONE_MATCH = {
    "in": "header",
    "name": "If-None-Match",
    "schema": {"type": "string"},
    "description": "`ETag`s that the client has, or `*`; 304 if the answer is one of them",
}
PREFER = {
    "in": "header",
    "name": "Prefer",
    "schema": {"type": "string"},
    "description": "RFC 7240: `respond-async`, or `wait=N` seconds (60 if it is missing, at most 300)",
}
PASSWORD = {
    "in": "header",
    "name": "Compass-Bundle-Password",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "The password of the PKCS#12 file, UTF-8",
}


def problems(path: Path, *codes: str) -> Responses:
    """The responses with these codes, and with those that follow from what `path` is."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, *_codes_of(path)):
        by_status.setdefault(status_of(code, method=path.method), []).append(code)
    return {status: _problem_response(status, group) for status, group in sorted(by_status.items())}


def _codes_of(path: Path) -> tuple[str, ...]:
    if path.caller is Caller.PROBE:
        return ("too-large", "internal-error")
    return (
        *_BY_CALLER.get(path.caller, ()),
        *(("unsupported-media-type",) if path.takes_json else ()),
        *(("too-many-waiters",) if path.waits else ()),
        *_GUARDED,
    )


def extra(path: Path, *parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What FastAPI does not know of an operation: header parameters, and whether a token may be needed."""
    security: dict[str, Any] = {"security": [{"apiToken": []}, {}]} if path.caller in _BY_CALLER else {}
    return {"parameters": list(parameters), **security} if parameters else security


def _problem_response(status: int, codes: list[str]) -> dict[str, Any]:
    examples = {code: {"$ref": f"#/components/examples/{code}-{status}"} for code in codes}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
    described = "; ".join(f"`{code}`: {CODES[code].words}" for code in codes)
    return {"description": described, "content": {MEDIA_TYPE: content}, **headers(_HEADERS.get(status, {}))}


def _examples() -> dict[str, Any]:
    answers = [
        (code, problem(code, f"{kind.words}.", method=method))
        for code, kind in CODES.items()
        for method in ("GET", "POST")
    ]
    return {f"{code}-{answer.status}": {"value": json.loads(answer.body)} for code, answer in answers}


def headers(described: Mapping[str, str]) -> dict[str, Any]:
    if not described:
        return {}
    return {"headers": {name: {"description": text, **_TEXT} for name, text in described.items()}}


def content(*media_types: str) -> Responses:
    """A 200 in these forms, besides JSON where there is a model."""
    forms = {kind: _CERTIFICATE if kind in {PEM_CHAIN, PEM_FILE} else _TEXT for kind in media_types}
    return {200: {"content": forms}}


class DescribedAPI(FastAPI):
    """FastAPI without the validation errors of its own, which this API does not send."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _amended(super().openapi())
        return self.openapi_schema


def _amended(schema: dict[str, Any]) -> dict[str, Any]:
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for parameter in operation.get("parameters", []):
                # `null` is how FastAPI says that it may be missing.
                if parameter["schema"].pop("anyOf", None):
                    parameter["schema"]["type"] = "string"
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema(mode="serialization")
    components["examples"] = _examples()
    components["securitySchemes"] = _SCHEMES
    return schema
