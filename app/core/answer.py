"""The Connector's answers: read strictly, as contract section 2 says, and mapped to errors once.

`read_answer` looks at the status first and returns `data`, which has a `result`; each operation
then has a function that reads its own. Every error is a ConnectorError whose detail shows no more
of the answer than `printable` lets through.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import (
    ConnectorError,
    ConnectorProtocol,
    ConnectorRejected,
    ConnectorUnauthenticated,
    ConnectorUnavailable,
    DirectorRefused,
    NotRecognised,
    SubjectRefused,
)
from .pem import blocks
from .text import printable
from .url import parse_https

_TOKEN_LIMIT = 4096  # real ones have 88 characters
_FIELD_LIMIT = 128 * 1024  # ten certificates of RSA 4096 with base64 twice take about 40 KiB
_DATE_LIMIT = 64
# Near the ends of the calendar no time can be added or taken away.
_YEARS = range(2000, 2200)
# For the library 0001 is 01, and so 2001.
_YEAR_BEFORE_1000 = re.compile(r" 0[0-9]{3} ")

# Answers of what stands in front of the look at who calls, redirects aside.
_IN_FRONT = frozenset({401, 403, 404, 408, 429})
_UNAVAILABLE = {
    401: "a proxy or gateway in front of it demands credentials of its own",
    403: "a policy in front of it denies the call; its operator has to allow it",
    404: "its URL has a wrong host or path, or its gateway is reloading its rules",
    408: "the request did not arrive in time",
    429: "the rate limit that all its clients share is exhausted",
    500: "its gateway could not look up the caller; a one-time token may be spent",
    502: "its gateway cannot reach the Connector or, for a signature, the audit log",
    503: "it is overloaded, restarting or too slow inside",
    504: "it is too slow inside",
}

_OTHER_SUBJECT = "it rejected the subject that it had assigned; contact the Compass operator"
_NO_IDENTITY = "no identity of the caller reached the Connector"
_BROKEN_CONTEXT = "the authentication in front of the Connector is broken"
_BROKEN_CA = "its CA secret is broken"
_UNREADABLE_CSR = "it cannot read the CSR"
# The first row that the message contains counts. On top are rows whose messages quote others, and special
# cases of rows below. `Error while decoding pem block` means a bad CSR or a broken CA secret; the CSR is
# always PEM, so it is the secret.
_MESSAGES: tuple[tuple[str, type[ConnectorError], str], ...] = (
    (
        "No token generation for consumer type",
        ConnectorRejected,
        "it serves applications and runtimes only, and this identity is neither",
    ),
    ("Failed to get one-time token", DirectorRefused, "the Director behind it failed"),
    ("Failed to add hash to revocation list", ConnectorUnavailable, "it cannot write its revocation list"),
    ("consumer type not found", ConnectorUnavailable, _BROKEN_CONTEXT),
    ("tenant not found", ConnectorUnavailable, _BROKEN_CONTEXT),
    ("Failed to authenticate request", ConnectorUnauthenticated, _NO_IDENTITY),
    ("Failed to authenticate with token", ConnectorUnauthenticated, _NO_IDENTITY),
    ("Failed to authenticate with certificate", ConnectorRejected, "it requires a client certificate"),
    ("CSR: Invalid ", SubjectRefused, _OTHER_SUBJECT),
    ("CSR: No ", SubjectRefused, _OTHER_SUBJECT),
    ("Certificate data not found in the cache", ConnectorUnavailable, "its CA is not loaded"),
    ("Error while decoding pem block", ConnectorUnavailable, _BROKEN_CA),
    ("Error while parsing certificate", ConnectorUnavailable, _BROKEN_CA),
    ("Error while parsing private key", ConnectorUnavailable, _BROKEN_CA),
    ("PrivateKey doesn't match parent's PublicKey", ConnectorUnavailable, _BROKEN_CA),
    ("does not match private key type", ConnectorRejected, "it does not sign keys of this kind"),
    ("Error while decoding Certificate Signing Request", ConnectorRejected, _UNREADABLE_CSR),
    ("Error while parsing CSR", ConnectorRejected, _UNREADABLE_CSR),
    ("CSR signature invalid", ConnectorRejected, "it does not accept the CSR's signature"),
    ("internal system error", ConnectorUnavailable, "it crashed inside"),
)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What `configuration` returned. `token` is None unless asked for (first connection).

    A `connector_url` that can never be called is None, and `url_fault` says what is wrong with it.
    """

    subject: str
    connector_url: str | None
    director_url: str | None
    date: datetime | None
    token: str | None = field(default=None, repr=False)
    url_fault: str | None = None


@dataclass(frozen=True, slots=True)
class SignedAnswer:
    """What `signCertificateSigningRequest` returned: three PEM texts, decoded and not yet verified.

    `date` is the answer's own `Date` header, None if there is none to be read.
    """

    leaf_pem: bytes
    chain_pem: bytes
    ca_pem: bytes
    date: datetime | None


def parse_date(headers: Mapping[str, str]) -> datetime | None:
    """The answer's `Date` as aware UTC, None if there is none that can be true."""
    date = _parse_date(_header(headers, "date"))
    return date if date is not None and date.year in _YEARS else None


def _parse_date(text: str | None) -> datetime | None:
    if text is None or len(text) > _DATE_LIMIT or _YEAR_BEFORE_1000.search(text):
        return None
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def read_answer(status: int, headers: Mapping[str, str], body: bytes, *, causes: str) -> Mapping[str, Any]:
    """`data` of a good answer, whose `result` (of a probe: `__typename`) is not null.

    `causes` are those of an empty 400, which depend on the call.

    Raises ConnectorUnavailable, ConnectorUnauthenticated, ConnectorRejected, SubjectRefused or
    ConnectorProtocol by the tables of contract section 2.
    """
    if status != 200:
        refusal = _refusal(status, headers, body, causes)
        refusal.arrived = _arrived(status, body)
        raise refusal
    answer = _parse(body)
    if answer.get("errors") not in (None, []):
        raise _graphql_error(answer["errors"])
    data = answer.get("data")
    if not isinstance(data, dict) or data.get("result", data.get("__typename")) is None:
        raise ConnectorProtocol("the Connector answered 200 with neither a result nor an error")
    return data


def _refusal(status: int, headers: Mapping[str, str], body: bytes, causes: str) -> ConnectorError:
    text = printable(body.decode("utf-8", "replace"))
    answered = f"the Connector answered {status}" + (f" ({text})" if text else "")
    if status == 400 and not text:
        return NotRecognised(f"the Connector did not recognise the sidecar (400 without a body): {causes}")
    if 300 <= status < 400:
        return ConnectorProtocol(f"{answered}: redirects are not followed")
    if status in _UNAVAILABLE:
        return ConnectorUnavailable(f"{answered}: {_UNAVAILABLE[status]}", retry_after=_retry_after(headers))
    return ConnectorProtocol(answered)


def _arrived(status: int, body: bytes) -> bool:
    """Whether a request with such an answer may have got past the look at who calls.

    Envoy's 503 is text, the Connector's and the gateway's are JSON.
    """
    in_front = status in _IN_FRONT or 300 <= status < 400
    return not in_front and (status != 503 or body.lstrip().startswith(b"{"))


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Seconds, or a date counted from the same answer's `Date`, since our clock may be wrong."""
    text = (_header(headers, "retry-after") or "").strip()
    if re.fullmatch(r"[+-]?[0-9]{1,10}", text):
        return timedelta(seconds=max(0, int(text)))
    until, date = _parse_date(text), parse_date(headers)
    if until is None or date is None:
        return None
    return max(timedelta(0), until - date)


def _parse(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        shown = printable(body.decode("utf-8", "replace"))
        failure = ConnectorProtocol(f"the Connector's answer is not JSON: {shown or 'it is empty'}")
        failure.arrived = False  # something else answers, such as a captive portal
        raise failure from error
    if not isinstance(answer, dict):
        raise ConnectorProtocol("the Connector's answer is not a JSON object")
    return answer


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) != len(pairs):
        raise ValueError("a key appears twice")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _graphql_error(errors: object) -> ConnectorError:
    messages = [_message(error) for error in errors] if isinstance(errors, list) else []
    for message in filter(None, messages):
        for part, kind, meaning in _MESSAGES:
            if part in message:
                return kind(f"the Connector answered with an error: {meaning}: {printable(message)}")
    for message in filter(None, messages):
        return ConnectorRejected(f"the Connector answered with an error: {printable(message)}")
    return ConnectorProtocol("the Connector's answer has errors without a message")


def _message(error: object) -> str | None:
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None


def read_configuration(data: Mapping[str, Any], date: datetime | None) -> Configuration:
    """A `configuration` for which no token was selected. Raises ConnectorProtocol naming the field."""
    configuration = _object(data, "result")
    # Nullable by the schema, and a renewal can do without: we know the URL that has just answered.
    plane = (
        {}
        if configuration.get("managementPlaneInfo") is None
        else _object(configuration, "managementPlaneInfo")
    )
    connector_url, url_fault = _url(plane, "certificateSecuredConnectorURL")
    director_url, _ = _url(plane, "directorURL")
    return Configuration(
        subject=_text(_object(configuration, "certificateSigningRequestInfo"), "subject"),
        connector_url=connector_url,
        director_url=director_url,
        date=date,
        url_fault=url_fault,
    )


def read_first_configuration(data: Mapping[str, Any], date: datetime | None) -> Configuration:
    """A `configuration` with the token that allows one signature.

    A Director that answers nonsense makes the Connector report success with an empty token
    (contract, section 2): ConnectorProtocol.
    """
    configuration = read_configuration(data, date)
    holder = data["result"].get("token")
    token = holder.get("token") if isinstance(holder, dict) else None
    if not isinstance(token, str) or not is_token(token):
        raise ConnectorProtocol(
            "the Director minted no token for signing, and the one-time token is spent: request a new one"
        )
    return replace(configuration, token=token)


def is_token(text: str) -> bool:
    """Whether the text can travel as a `Connector-Token` header: visible ASCII of a sane length."""
    return len(text) <= _TOKEN_LIMIT and re.fullmatch(r"[!-~]+", text) is not None


def read_signed(data: Mapping[str, Any], date: datetime | None) -> SignedAnswer:
    """The three PEM texts of a signature. Raises ConnectorProtocol naming the field."""
    signed = _object(data, "result")
    return SignedAnswer(
        leaf_pem=_pem(signed, "clientCertificate"),
        chain_pem=_pem(signed, "certificateChain"),
        ca_pem=_pem(signed, "caCertificate"),
        date=date,
    )


def read_revoked(data: Mapping[str, Any]) -> None:
    """Raise ConnectorProtocol unless the Connector says that it revoked the certificate."""
    if data["result"] is not True:
        raise ConnectorProtocol("the Connector did not confirm that it revoked the certificate")


def _object(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = holder.get(name)
    if not isinstance(value, dict):
        raise _bad_field(name, "is missing or not an object")
    return value


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _bad_field(name, "is missing, empty or not a text")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _bad_field(name, "has a lone surrogate")  # which nothing could encode
    return value


def _url(holder: Mapping[str, Any], name: str) -> tuple[str | None, str | None]:
    """A URL that can be called, or what is wrong with it: that must not cost a renewal. The schema lets it
    be null, and an empty one means the same."""
    value = holder.get(name)
    if value in (None, ""):
        return None, None
    try:
        return parse_https(value if isinstance(value, str) else "").text, None
    except ValueError as fault:
        return None, f"the {name} in the Connector's answer {fault}"


def _pem(holder: Mapping[str, Any], name: str) -> bytes:
    text = _limited(holder, name)
    try:
        pem = base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except ValueError as error:
        raise _bad_field(name, "is not base64") from error
    if {block.label for block in blocks(pem)} != {"CERTIFICATE"}:
        raise _bad_field(name, "is not PEM of certificates and nothing else")
    return pem


def _limited(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str) or not value:
        raise _bad_field(name, "is missing, empty or not a text")
    if len(value) > _FIELD_LIMIT:
        raise _bad_field(name, "is too long")
    return value


def _bad_field(name: str, fault: str) -> ConnectorProtocol:
    return ConnectorProtocol(f"in the Connector's answer {name} {fault}")
