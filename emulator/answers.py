"""HTTP answers: the value, and those that the real system gives (contract section 2).

Each is named after who says it, because that is what a reader of a log has to find out.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .clock import http_date

JSON = "application/json"
JSON_BY_DEFAULT = "application/json;charset=UTF-8"  # the Connector's own, where gqlgen sets none
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body, and headers besides `Date`, `Server` and the length."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def with_header(self, name: str, value: str) -> "Answer":
        """The same with one header more."""
        return replace(self, headers=(*self.headers, (name, value)))


def as_go_json(content: Any) -> bytes:
    """Compact, UTF-8, and with `<`, `>` and `&` escaped, as Go's encoder writes.

    What was no UTF-8 (a lone surrogate here) becomes an escaped U+FFFD.
    """
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return re.sub("[\ud800-\udfff]", r"\\ufffd", text).encode() + b"\n"


def graphql(data: Any) -> Answer:
    """A success."""
    return Answer(200, as_go_json({"data": data}).rstrip(), JSON)


def graphql_errors(errors: Sequence[dict[str, Any]], *, status: int = 200) -> Answer:
    """gqlgen's shape: errors before data, data null."""
    return Answer(status, as_go_json({"errors": list(errors), "data": None}).rstrip(), JSON)


def transport_error(status: int, message: str) -> Answer:
    """gqlgen before it has an operation: a message and nothing else."""
    return graphql_errors([{"message": message}], status=status)


def text(status: int, body: str) -> Answer:
    """Plain text, as Envoy and Go's own server answer."""
    return Answer(status, body.encode(), TEXT)


def oathkeeper(status: int, reason: str, message: str) -> Answer:
    """Oathkeeper's singular `error` object."""
    error = {"code": status, "status": reason, "message": message}
    return Answer(status, as_go_json({"error": error}), JSON)


def rate_limited(retry_after: str = "") -> Answer:
    """Envoy's local rate limit; without a parameter it names no time, as the chart's does."""
    answer = text(429, "local_rate_limited").with_header("x-local-rate-limit", "true")
    return answer.with_header("Retry-After", retry_after) if retry_after else answer


def busy(retry_after: str) -> Answer:
    """A 503 that says when to come back."""
    return text(503, "upstream connect error or disconnect/reset before headers").with_header(
        "Retry-After", retry_after
    )


def busy_until(moment: datetime) -> Answer:
    """The same with a date."""
    return busy(http_date(moment))


def html(status: int) -> Answer:
    """What a captive portal or a corporate proxy says."""
    page = f"<!DOCTYPE html><html><title>{status}</title><body><h1>Please sign in</h1></body></html>"
    return Answer(status, page.encode(), "text/html; charset=utf-8")


def redirect(location: str) -> Answer:
    """A portal again; a client must not take its certificate or token there."""
    return text(307, "Temporary Redirect\n").with_header("Location", location)


HEALTHY = text(200, "ok")
UNAUTHENTICATED = Answer(400, b"", JSON_BY_DEFAULT)  # the standard one: ambiguous and empty
TRANSPORT_NOT_SUPPORTED = replace(
    transport_error(400, "transport not supported"), content_type=JSON_BY_DEFAULT
)
METHODS = Answer(200, b"", JSON_BY_DEFAULT).with_header("Allow", "OPTIONS, GET, POST")
NO_HEAD = Answer(405, b"", JSON_BY_DEFAULT)
PERSISTED_QUERY_NOT_FOUND = graphql_errors(
    [{"message": "PersistedQueryNotFound", "extensions": {"code": "PERSISTED_QUERY_NOT_FOUND"}}]
)
MUTATION_BY_GET = transport_error(406, "GET requests only allow query operations")
PARSE_FAILED = graphql_errors(
    [{"message": "Unexpected <Invalid>", "extensions": {"code": "GRAPHQL_PARSE_FAILED"}}], status=422
)
METHOD_NOT_ALLOWED = Answer(405)
RBAC_DENIED = text(403, "RBAC: access denied")
NO_RULE = oathkeeper(404, "Not Found", "Requested url does not match any rules")
NOT_FOUND = text(404, "404 page not found\n")
TOO_LARGE = text(413, "Payload Too Large")
GAVE_UP = oathkeeper(
    500, "Internal Server Error", "An internal server error occurred, please contact the system administrator"
)
BAD_GATEWAY = Answer(502)
TIMED_OUT = Answer(503, b'{"Message":"operation has timed out"}', JSON)
NO_UPSTREAM = text(503, "no healthy upstream")
CONNECT_ERROR = text(
    503, "upstream connect error or disconnect/reset before headers. reset reason: connection failure"
)
UPSTREAM_TIMEOUT = text(504, "upstream request timeout")
HEAD_TOO_LARGE = text(431, "Request Header Fields Too Large")
BAD_REQUEST = text(400, "Bad Request")
