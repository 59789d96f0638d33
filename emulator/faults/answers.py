"""Faults that are answers of their own: of the edge, of the gateway, and GraphQL errors; and wrong dates.

What Istio, Envoy and Oathkeeper answer, and the Connector's GraphQL errors by name, whose words are in
`messages.py`. A wrong date is that of any answer of the operation.
"""

import base64
import re
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from .. import http, messages
from ..clock import http_date, parse_duration, parse_seconds
from ..http import Answer
from . import delivery
from .plan import (
    DateHeader,
    EdgeAnswer,
    EdgeDisconnect,
    ErrorMessage,
    GatewayAnswer,
    Situation,
)

_RARELY = 0.1  # in chaos: what costs a client its whole timeout, or much memory
_CSR_WORDS = ("common-name", "country", "organization", "organizational-unit", "locality", "province")
_YEAR_1 = "Mon, 01 Jan 0001 00:00:00 GMT"
_YEAR_9999 = "Fri, 31 Dec 9999 23:59:59 GMT"
_ODD = "yesterday at noon"
_VISIBLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def _always(answer: Answer) -> Callable[[Situation, str], Answer]:
    return lambda _situation, _param: answer


def _whole_seconds(param: str) -> str:
    return str(max(0, round(parse_seconds(param))))


def _status(param: str) -> int:
    if not param.isdecimal() or not 200 <= int(param) <= 599:
        raise ValueError(f"{param!r} is not an HTTP status from 200 to 599")
    return int(param)


def _younger(situation: Situation, param: str) -> bool:
    return situation.certificate_age is not None and situation.certificate_age < parse_seconds(param)


EDGE = (
    EdgeAnswer("403-rbac", "Istio's policy denies", _always(http.RBAC_DENIED)),
    EdgeAnswer(
        "404-oathkeeper", "Oathkeeper has no rule: wrong URL, or rules reloading", _always(http.NO_RULE)
    ),
    EdgeAnswer("404-text", "Go's 404 as text", _always(http.NOT_FOUND)),
    EdgeAnswer("429", "Envoy's shared bucket is empty", lambda _c, _p: http.rate_limited()),
    EdgeAnswer(
        "429-retry-after",
        "the same, with Retry-After",
        lambda _c, param: http.rate_limited(_whole_seconds(param)),
        default="1",
        check=parse_seconds,
    ),
    EdgeAnswer("503-text", "Envoy cannot connect upstream", _always(http.CONNECT_ERROR)),
    EdgeAnswer("503-no-upstream", "Envoy has no healthy upstream", _always(http.NO_UPSTREAM)),
    EdgeAnswer(
        "503-retry-after",
        "503 with Retry-After in seconds",
        lambda _c, param: http.busy(_whole_seconds(param)),
        default="1",
        check=parse_seconds,
    ),
    EdgeAnswer(
        "503-retry-after-date",
        "503 with Retry-After as a date, so far from the Connector's now",
        lambda situation, param: http.busy_until(situation.now + timedelta(seconds=parse_seconds(param))),
        default="2",
        check=parse_seconds,
    ),
    EdgeAnswer("html-200", "a captive portal", _always(http.html(200))),
    EdgeAnswer("html-503", "a proxy's error page", _always(http.html(503))),
    EdgeAnswer(
        "redirect",
        "307 to this URL",
        lambda _c, param: http.redirect(param),
        default="https://portal.invalid/login",
    ),
    EdgeAnswer(
        "status",
        "this status with an empty body",
        lambda _c, param: Answer(_status(param)),
        default="418",
        check=_status,
    ),
    EdgeDisconnect("reset-before-acting", "a reset; nothing was done", delivery.reset),
    EdgeDisconnect("close-before-acting", "an orderly end; nothing was done", delivery.close),
)

GATEWAY = (
    GatewayAnswer(
        "empty-400", "the ambiguous 'not authenticated'; a token is consumed", _always(http.UNAUTHENTICATED)
    ),
    GatewayAnswer(
        "not-accepted-yet",
        "certificates younger than this get the empty 400",
        _always(http.UNAUTHENTICATED),
        default="10s",
        check=parse_seconds,
        when=_younger,
    ),
    GatewayAnswer("transport-400", "gqlgen: wrong method or type", _always(http.TRANSPORT_NOT_SUPPORTED)),
    GatewayAnswer("413", "the body is too large", _always(http.TOO_LARGE)),
    GatewayAnswer("422", "gqlgen cannot parse the document", _always(http.PARSE_FAILED)),
    GatewayAnswer("500-oathkeeper", "the hydrator gave up; a token is consumed", _always(http.GAVE_UP)),
    GatewayAnswer("502-empty", "the gateway cannot reach Connector or audit log", _always(http.BAD_GATEWAY)),
    GatewayAnswer("503-timeout-json", "Connector or gateway timed out, in JSON", _always(http.TIMED_OUT)),
    GatewayAnswer("504-text", "Envoy timed out", _always(http.UPSTREAM_TIMEOUT)),
)


def _says(message: str) -> Callable[[Situation, str], str]:
    return lambda _situation, _param: message


def _unauthenticated(situation: Situation, _param: str) -> str:
    """No identity header reached the Connector; signing adds a prefix."""
    prefix = "Failed to authenticate with token: " if situation.operation == "sign" else ""
    return prefix + messages.NO_IDENTITY


def _given(_situation: Situation, param: str) -> str:
    """Any text."""
    return param


def _control_characters(_situation: Situation, _param: str) -> str:
    """Terminal escapes, a bell, a NUL and forged log lines."""
    return messages.CONTROL_CHARACTERS


def _bidi(_situation: Situation, _param: str) -> str:
    """Overrides that make a text read as something else."""
    return messages.BIDI


def _long_base64(_situation: Situation, _param: str) -> str:
    """A run of base64, as when a library quotes its input."""
    return f"cannot use {base64.b64encode(secrets.token_bytes(3000)).decode()}"


def _private_key(_situation: Situation, _param: str) -> str:
    """Something that looks exactly like a private key, and is none."""
    lines = base64.encodebytes(secrets.token_bytes(600)).decode()
    label = "RSA PRIVATE KEY"
    return f"cannot parse -----BEGIN {label}-----\n{lines}-----END {label}-----\n"


def _very_long(_situation: Situation, _param: str) -> str:
    """A megabyte of text."""
    return "lorem ipsum " * 87_382


MESSAGES = (
    ErrorMessage(
        "director-down",
        "the Director refuses connections",
        _says(messages.DIRECTOR_REFUSES_CONNECTIONS),
        operation="configuration",
    ),
    ErrorMessage(
        "director-slow", "the Director exceeds 30 s", _says(messages.DIRECTOR_SLOW), operation="configuration"
    ),
    ErrorMessage(
        "director-hangs",
        "the Director exceeds 30 s, and the error takes so long",
        _says(messages.DIRECTOR_SLOW),
        operation="configuration",
        default="30s",
        check=parse_seconds,
        delay=parse_seconds,
        weight=0.1,
    ),
    ErrorMessage(
        "director-503", "the Director answers 503", _says(messages.DIRECTOR_503), operation="configuration"
    ),
    ErrorMessage(
        "director-scopes",
        "the Director refuses the scopes",
        _says(messages.DIRECTOR_SCOPES),
        operation="configuration",
    ),
    ErrorMessage(
        "director-not-found",
        "the Director knows no such system auth",
        _says(messages.DIRECTOR_NOT_FOUND),
        operation="configuration",
    ),
    ErrorMessage(
        "consumer-type-unsupported",
        "an integration system calls",
        _says(messages.CONSUMER_TYPE_UNSUPPORTED),
        operation="configuration",
    ),
    ErrorMessage(
        "consumer-type-missing",
        "broken auth context in front",
        _says(messages.CONSUMER_TYPE_MISSING),
        operation="configuration",
    ),
    ErrorMessage(
        "tenant-missing",
        "broken auth context in front",
        _says(messages.TENANT_MISSING),
        operation="configuration",
    ),
    ErrorMessage("unauthenticated", "no identity header reached the Connector", _unauthenticated),
    ErrorMessage(
        "revoke-unauthenticated",
        "revoke without a certificate",
        _says(messages.REVOKE_WITHOUT_CERTIFICATE),
        operation="revoke",
    ),
    ErrorMessage("csr-bad-base64", "the CSR is not base64", _says(messages.BAD_BASE64), operation="sign"),
    ErrorMessage("csr-bad-pem", "the CSR is not PEM", _says(messages.BAD_PEM), operation="sign"),
    ErrorMessage("csr-unparsable", "the CSR does not parse", _says(messages.UNPARSABLE), operation="sign"),
    ErrorMessage(
        "csr-bad-signature", "the CSR's signature is wrong", _says(messages.BAD_SIGNATURE), operation="sign"
    ),
    ErrorMessage("csr-not-rsa", "the CSR's key is not RSA", _says(messages.KEY_MISMATCH), operation="sign"),
    *(
        ErrorMessage(
            f"csr-invalid-{word}",
            "a stale subject, or the operator changed it",
            _says(f"{messages.SIGNING}CSR: Invalid {word.replace('-', ' ')} provided."),
            operation="sign",
        )
        for word in _CSR_WORDS
    ),
    *(
        ErrorMessage(
            f"csr-no-{word}",
            "the CSR lacks this attribute",
            _says(f"{messages.SIGNING}CSR: No {word.replace('-', ' ')} provided."),
            operation="sign",
        )
        for word in _CSR_WORDS[1:]
    ),
    ErrorMessage(
        "ca-secret-missing", "the CA secret is not loaded", _says(messages.CA_MISSING), operation="sign"
    ),
    ErrorMessage(
        "ca-secret-bad-pem", "the CA secret is broken", _says(messages.CA_BAD_PEM), operation="sign"
    ),
    ErrorMessage(
        "ca-secret-bad-certificate",
        "the CA secret is broken",
        _says(messages.CA_BAD_CERTIFICATE),
        operation="sign",
    ),
    ErrorMessage(
        "ca-secret-bad-key", "the CA secret is broken", _says(messages.CA_BAD_KEY), operation="sign"
    ),
    ErrorMessage(
        "ca-secret-other-key",
        "the CA secret has the key of another CA",
        _says(messages.CA_OTHER_KEY),
        operation="sign",
    ),
    ErrorMessage(
        "revocation-conflict",
        "a write conflict in the ConfigMap",
        _says(messages.REVOCATION_CONFLICT),
        operation="revoke",
    ),
    ErrorMessage(
        "revocation-unavailable",
        "Kubernetes does not answer",
        _says(messages.REVOCATION_UNAVAILABLE),
        operation="revoke",
    ),
    ErrorMessage(
        "revocation-missing",
        "the ConfigMap does not exist",
        _says(messages.REVOCATION_MISSING),
        operation="revoke",
    ),
    ErrorMessage(
        "revocation-full", "the ConfigMap is full", _says(messages.REVOCATION_FULL), operation="revoke"
    ),
    ErrorMessage("internal-system-error", "a resolver panicked", _says(messages.PANIC)),
    ErrorMessage("error-text", "this text as the message", _given, default="something went wrong"),
    ErrorMessage("error-control-characters", "terminal escapes and forged log lines", _control_characters),
    ErrorMessage("error-bidi", "bidirectional overrides", _bidi),
    ErrorMessage("error-long-base64", "four thousand characters of base64", _long_base64),
    ErrorMessage("error-pem-key", "what looks like a private key", _private_key),
    ErrorMessage("error-very-long", "a megabyte of text", _very_long),
)


def _ahead(now: datetime, param: str, _before: int) -> str:
    return http_date(now + parse_duration(param))


def _behind(now: datetime, param: str, _before: int) -> str:
    return http_date(now - parse_duration(param))


def _changing(now: datetime, param: str, before: int) -> str | None:
    """Another kind for each answer, in turn."""
    right = http_date(now)
    turns = (_ahead(now, param, 0), _behind(now, param, 0), None, _YEAR_9999, right, _ODD, _YEAR_1)
    return turns[before % len(turns)]


def _text(param: str) -> str:
    if not _VISIBLE.fullmatch(param):
        raise ValueError(f"{param!r} cannot be the value of a header")
    return param


DATES = (
    DateHeader("no-date", "no Date header", lambda _now, _param, _before: None),
    DateHeader(
        "date-ahead",
        "the Date header is ahead by this",
        _ahead,
        default="60d",
        check=parse_duration,
    ),
    DateHeader(
        "date-behind",
        "the Date header is behind by this",
        _behind,
        default="60d",
        check=parse_duration,
    ),
    DateHeader("date-year-1", "the Date header names the year 1", lambda _now, _param, _before: _YEAR_1),
    DateHeader(
        "date-year-9999",
        "the Date header names the year 9999",
        lambda _now, _param, _before: _YEAR_9999,
    ),
    DateHeader(
        "date-odd",
        "the Date header is this text",
        lambda _now, param, _before: param,
        default=_ODD,
        check=_text,
    ),
    DateHeader(
        "date-changing",
        "ahead by this, behind, absent, year 9999, right, odd, year 1: another one for each answer",
        _changing,
        default="60d",
        check=parse_duration,
    ),
)
