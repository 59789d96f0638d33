"""The Connector's repertoire: what each fault means for a caller of `POST /renew`.

A new kind of fault is a row in the emulator's table (`emulator/faults/`) and a row here. `make faults`
plays a row at each of its operations, the suite at one of them, in turn. `signed` says whether the Connector
had signed by then when that is `sign`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

RENEWAL = ("configuration", "sign", "probe")
EVERYWHERE = (*RENEWAL, "connect", "revoke")
CONNECTIONS = ("configuration", "probe", "connect", "revoke")

SOON = timedelta(seconds=1)  # the backoff begins with a second
LATER = timedelta(minutes=1)  # or with a minute: nothing that cures itself in seconds


@dataclass(frozen=True)
class Outcome:
    """What a caller gets, and where the backoff begins."""

    code: str
    status: int
    retryable: bool
    first_wait: timedelta | None


GOOD = Outcome("", 200, retryable=False, first_wait=None)
UNAVAILABLE = Outcome("connector-unavailable", 503, retryable=True, first_wait=SOON)
REFUSED = Outcome("connector-unavailable", 503, retryable=True, first_wait=LATER)
TIMEOUT = Outcome("connector-timeout", 504, retryable=True, first_wait=SOON)
UNTRUSTED = Outcome("connector-untrusted", 502, retryable=True, first_wait=SOON)
UNAUTHENTICATED = Outcome("connector-unauthenticated", 502, retryable=True, first_wait=LATER)
REJECTED = Outcome("connector-rejected", 502, retryable=False, first_wait=LATER)
PROTOCOL = Outcome("connector-protocol", 502, retryable=False, first_wait=SOON)
UNUSABLE = Outcome("connector-protocol", 502, retryable=False, first_wait=LATER)


@dataclass(frozen=True)
class Row:
    """`asked`: the Retry-After that is heeded. `timeout`: COMPASS_CONNECTOR_TIMEOUT in seconds. `lasts`: the
    next attempt does not succeed although the fault is over."""

    fault: str
    outcome: Outcome
    operations: tuple[str, ...] = EVERYWHERE
    signed: bool = False
    asked: float | None = None
    timeout: float = 20.0
    lasts: bool = False


def _at(operation: str, outcome: Outcome, *faults: str, signed: bool = False) -> Iterator[Row]:
    return (Row(fault, outcome, (operation,), signed=signed) for fault in faults)


CONNECTION = (
    *(Row(f"alert:{code}", UNAUTHENTICATED, CONNECTIONS) for code in (42, 45, 46, 48, 116)),
    Row("alert:40", UNAUTHENTICATED, ("configuration", "probe", "revoke")),
    Row("alert:40", PROTOCOL, ("connect",)),  # no certificate was ours to present
    Row("alert:80", UNAVAILABLE, CONNECTIONS),
    Row("alert:70", PROTOCOL, CONNECTIONS),
    Row("client-cert-not-yet-valid", UNAUTHENTICATED, ("configuration", "probe", "revoke")),
    Row("client-cert-expired", UNAUTHENTICATED, ("configuration", "probe", "revoke")),
    Row("client-cert-unknown", UNAUTHENTICATED, ("configuration", "probe", "revoke")),
    Row("require-other-ca", UNAUTHENTICATED, ("configuration", "probe", "revoke")),
    Row("server-cert-unknown-ca", UNTRUSTED, CONNECTIONS),
    Row("server-cert-expired", UNTRUSTED, CONNECTIONS),
    Row("server-cert-wrong-name", UNTRUSTED, CONNECTIONS),
    Row("hang-connect", TIMEOUT, CONNECTIONS, timeout=0.3),
    Row("hang-handshake", TIMEOUT, CONNECTIONS, timeout=0.3),
    Row("reset-connect", UNAVAILABLE, CONNECTIONS),
    Row("close-connect", UNAVAILABLE, CONNECTIONS),
    Row("plain-http", PROTOCOL, CONNECTIONS),
)

EDGE = (
    Row("403-rbac", REFUSED),
    Row("404-oathkeeper", REFUSED),
    Row("404-text", REFUSED),
    Row("429", UNAVAILABLE),
    Row("429-retry-after:7", UNAVAILABLE, asked=7),
    Row("429-retry-after:0", UNAVAILABLE, asked=1),
    Row("503-retry-after:7200", UNAVAILABLE, asked=7200),
    Row("503-retry-after-date:1h", UNAVAILABLE, asked=3600),
    Row("503-text", UNAVAILABLE),
    Row("503-no-upstream", UNAVAILABLE),
    Row("html-200", PROTOCOL),
    Row("html-503", UNAVAILABLE),
    Row("redirect", PROTOCOL),
    *(
        Row(f"status:{status}", outcome)
        for outcome, statuses in {
            PROTOCOL: (201, 204, 301, 302, 304, 308, 402, 405, 406, 409, 410, 415, 418, 501, 505, 511),
            UNAVAILABLE: (401, 408, 429, 500, 502, 503, 504),
            REFUSED: (403, 404),
            UNAUTHENTICATED: (400,),
        }.items()
        for status in statuses
    ),
    Row("reset-before-acting", UNAVAILABLE),
    Row("close-before-acting", UNAVAILABLE),
)

GATE = (
    Row("empty-400", UNAUTHENTICATED),
    Row("not-accepted-yet:1h", UNAUTHENTICATED, ("probe", "revoke")),
    Row("transport-400", PROTOCOL),
    Row("413", PROTOCOL),
    Row("422", PROTOCOL),
    Row("500-oathkeeper", UNAVAILABLE),
    Row("502-empty", UNAVAILABLE),
    Row("503-timeout-json", UNAVAILABLE),
    Row("504-text", UNAVAILABLE),
)

_WORDS = ("common-name", "country", "organization", "organizational-unit", "locality", "province")
MESSAGES = (
    *_at("configuration", REFUSED, "director-down", "director-slow", "director-503"),
    *_at("configuration", REFUSED, "director-hangs:50ms"),
    *_at("configuration", REFUSED, "director-scopes", "director-not-found"),
    *_at("configuration", UNAVAILABLE, "consumer-type-missing", "tenant-missing"),
    *_at("configuration", REJECTED, "consumer-type-unsupported"),
    Row("unauthenticated", UNAUTHENTICATED),
    *_at("revoke", REJECTED, "revoke-unauthenticated"),
    *_at("revoke", UNAVAILABLE, "revocation-conflict", "revocation-unavailable"),
    *_at("revoke", UNAVAILABLE, "revocation-missing", "revocation-full"),
    *_at(
        "sign",
        REJECTED,
        "csr-bad-base64",
        "csr-unparsable",
        "csr-bad-signature",
        "csr-not-rsa",
    ),
    *_at("sign", REJECTED, *(f"csr-invalid-{word}" for word in _WORDS)),
    *_at("sign", REJECTED, *(f"csr-no-{word}" for word in _WORDS[1:])),
    *_at("sign", GOOD, "csr-invalid-country*1", signed=True),
    # The same text for a CSR that is none and for a broken CA secret; ours is one.
    *_at("sign", UNAVAILABLE, "csr-bad-pem", "ca-secret-bad-pem", "ca-secret-missing"),
    *_at("sign", UNAVAILABLE, "ca-secret-bad-certificate", "ca-secret-bad-key", "ca-secret-other-key"),
    Row("internal-system-error", UNAVAILABLE),
    Row("error-text:{secret}", REJECTED),
    Row("error-text:", PROTOCOL),
    Row("error-control-characters", REJECTED),
    Row("error-bidi", REJECTED),
    Row("error-long-base64", REJECTED),
    Row("error-pem-key", REJECTED),
    Row("error-very-long", PROTOCOL),  # a megabyte is more than we read
)

NEVER_CALLED = ("bad-name", "port-0", "not-https", "nonsense")
CONFIGURATIONS = (
    *_at("configuration", GOOD, "null-token", "empty-token", "missing-token"),
    *_at("configuration", GOOD, "null-management-plane", "null-director-url", "null-connector-url"),
    *_at("configuration", GOOD, "missing-management-plane", "other-director-url", "other-connector-url"),
    *_at("configuration", GOOD, "other-key-algorithm", "subject-reordered"),
    *_at(
        "configuration", PROTOCOL, "null-csr-info", "missing-csr-info", "subject-empty", "subject-without-cn"
    ),
    *_at("configuration", PROTOCOL, "subject-twice", "subject-control-characters", "subject-very-long"),
    *_at("configuration", REJECTED, "subject-other-cn", "odd-subject", "odd-subject:C=Germany,CN={cn}"),
    *_at(
        "configuration",
        PROTOCOL,
        "odd-subject:CN=",
        "odd-subject:no equals sign",
    ),
    *_at(
        "configuration",
        PROTOCOL,
        "wrong-types",
        "null-field:certificateSigningRequestInfo",
    ),
    *_at(
        "configuration", GOOD, "connector-url-unreachable", "connector-url-port-0", "connector-url-bad-name"
    ),
    # The known URL serves instead of one that can never be called; a first connection has none.
    *(
        row
        for operation, outcome in (("configuration", GOOD), ("connect", PROTOCOL))
        for row in _at(operation, outcome, *(f"connector-url-{each}" for each in NEVER_CALLED))
    ),
    *_at("connect", PROTOCOL, "null-token", "empty-token", "missing-token", "null-csr-info"),
    *_at(
        "connect", PROTOCOL, "null-management-plane", "null-connector-url", "missing-csr-info", "wrong-types"
    ),
)

CHAINS = (
    *_at(
        "sign",
        UNUSABLE,
        "wrong-key",
        "wrong-subject",
        "expired",
        "not-yet-valid",
        "forged-signature",
        signed=True,
    ),
    *_at("sign", UNUSABLE, "leaf-mismatch", "ca-only", "broken-pem", signed=True),
    *_at("sign", PROTOCOL, "leaf-only", "empty-chain", signed=True),
    *_at(
        "sign",
        PROTOCOL,
        "no-certificate",
        "private-key-in-pem",
        "broken-base64",
        "der",
        signed=True,
    ),
    *_at("sign", UNUSABLE, "server-auth-eku", signed=True),
    *_at(
        "sign",
        GOOD,
        "short-lived:1h",
        "shuffled",
        "line-broken-base64",
        "crlf-pem",
        "wrapped-in-text",
        "root-not-attached",
        "ca-without-ski",
        "ca-of-helm",
        signed=True,
    ),
    *_at("sign", UNUSABLE, "ca-1024-bits", "ca-sha1", "leaf-sha1", signed=True),
    *_at("sign", UNUSABLE, "leaf-subject", "leaf-subject-control-characters", signed=True),
    *_at("sign", UNUSABLE, "leaf-subject-bidi", "leaf-subject-base64", "leaf-subject-very-long", signed=True),
    *(
        Row(fault, UNAUTHENTICATED, ("sign",), signed=True, lasts=True)
        for fault in ("new-ca", "ca-name", "ca-name-control-characters", "ca-name-bidi")
    ),
)

REWRITES = (
    Row("wrong-content-type", GOOD, signed=True),
    Row("no-date", GOOD, signed=True),
    Row("date-ahead:1h", GOOD, signed=True),
    Row("date-behind:30s", GOOD, signed=True),
    Row("date-odd", GOOD, signed=True),
    Row("date-changing:30s", GOOD, RENEWAL, signed=True),
    Row("date-year-1", GOOD, RENEWAL, signed=True),
    Row("date-year-9999", GOOD, RENEWAL, signed=True),
    *(
        Row(fault, PROTOCOL, signed=True)
        for fault in (
            "null-data",
            "no-data",
            "empty-200",
            "json-list",
            "not-json",
            "not-utf-8",
            "empty-errors",
            "odd-errors",
            "null-result",
            "missing-result",
            "deep-json",
            "huge-body:2",
            "gzip-bomb:64",
        )
    ),
    Row("errors-and-data", REJECTED, signed=True),
    *_at("sign", PROTOCOL, "missing-field", "null-field", "wrong-types", signed=True),
    *_at("sign", PROTOCOL, "missing-field:caCertificate", "null-field:clientCertificate", signed=True),
)

TRANSPORT = (
    Row("slow:50ms", GOOD, signed=True),
    Row("hang-headers", TIMEOUT, signed=True, timeout=0.3),
    Row("hang-body", TIMEOUT, signed=True, timeout=0.3),
    Row("drip:1s", TIMEOUT, signed=True, timeout=0.3),
    Row("endless-body", PROTOCOL, signed=True),
    Row("endless-headers", PROTOCOL, signed=True),
    Row("reset-after-acting", UNAVAILABLE, signed=True),
    Row("close-after-acting", UNAVAILABLE, signed=True),
    Row("half-answer", UNAVAILABLE, signed=True),
    Row("half-head", UNAVAILABLE, signed=True),
    Row("not-http", UNAVAILABLE, signed=True),
)

# What a fault means for the one-time token that a first connection presents: all that is not here is spent.
_LEFT = {
    *(row.fault for row in (*CONNECTION, *EDGE) if row.fault.startswith(("4", "503", "html", "redirect"))),
    *(row.fault for row in CONNECTION),
    *(f"status:{status}" for status in (301, 302, 304, 308, 401, 403, 404, 408, 429, 503)),
    "empty-200",
    "not-json",
    "not-utf-8",
    "deep-json",
}
_UNKNOWN = {
    *("reset-before-acting", "close-before-acting", "reset-after-acting", "close-after-acting"),
    *("status:400", "status:500", "status:504", "empty-400", "500-oathkeeper", "504-text"),
    *(row.fault for row in TRANSPORT if row.outcome != GOOD),
    *("huge-body:2", "gzip-bomb:64", "error-very-long"),
}


def of_a_token(row: Row) -> Outcome:
    """What the caller of `/connect` gets: `retryable` says whether the token may be presented again."""
    if row.fault in _UNKNOWN:
        return replace(UNAUTHENTICATED, retryable=False)
    return row.outcome if row.outcome == GOOD else replace(row.outcome, retryable=row.fault in _LEFT)


ROWS = (*CONNECTION, *EDGE, *GATE, *MESSAGES, *CONFIGURATIONS, *CHAINS, *REWRITES, *TRANSPORT)
