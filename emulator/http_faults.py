"""Rows of the fault table: below HTTP, at the edge, at the gate, and on the way back.

What TCP and TLS do, what Istio, Envoy and Oathkeeper answer (contract section 2), and answers that do not
arrive. Faults of TCP and TLS concern new connections: a client that keeps one open does not meet them.
"""

from collections.abc import Callable
from datetime import timedelta

from . import answers, deliveries, misconnections
from .answers import Answer
from .circumstance import Circumstance
from .durations import parse_seconds
from .fault_kinds import Delay, Delivery, Disguised, EdgeAnswer, EdgeDelivery, GateAnswer, Misconnection
from .server_tls import ServerTLS

_RARELY = 0.1  # in chaos: what costs a client its whole timeout, or much memory


def _always(answer: Answer) -> Callable[[Circumstance, str], Answer]:
    return lambda _circumstance, _param: answer


def _whole_seconds(param: str) -> str:
    return str(max(0, round(parse_seconds(param))))


def _status(param: str) -> int:
    if not param.isdecimal() or not 200 <= int(param) <= 599:
        raise ValueError(f"{param!r} is not an HTTP status from 200 to 599")
    return int(param)


def _younger(circumstance: Circumstance, param: str) -> bool:
    return circumstance.certificate_age is not None and circumstance.certificate_age < parse_seconds(param)


def _at_mtls(circumstance: Circumstance, _param: str) -> bool:
    return circumstance.door == "mtls"


TLS = (
    Misconnection(
        "hang-connect", "accepts TCP and stays silent", misconnections.hang_connect, weight=_RARELY
    ),
    Misconnection(
        "hang-handshake", "half a server hello, then silence", misconnections.hang_handshake, weight=_RARELY
    ),
    Misconnection("reset-connect", "a reset in answer to the ClientHello", misconnections.reset_connect),
    Misconnection(
        "close-connect", "an orderly end in answer to the ClientHello", misconnections.close_connect
    ),
    Misconnection("plain-http", "plain HTTP in answer to the ClientHello", misconnections.plain_http),
    Misconnection(
        "alert",
        "this fatal TLS alert (40, 42, 45, 46, 48, 116) in answer to the ClientHello",
        misconnections.alert,
        default="48",
        check=misconnections.alert_number,
    ),
    Disguised("server-cert-stranger", "a server certificate from an unknown CA", ServerTLS.stranger),
    Disguised("server-cert-expired", "an expired server certificate", ServerTLS.expired),
    Disguised("server-cert-wrong-name", "a server certificate for another host", ServerTLS.wrong_name),
    Disguised(
        "require-other-ca",
        "the door trusts another client CA: genuine alert 48",
        ServerTLS.other_client_ca,
        when=_at_mtls,
    ),
    Disguised(
        "client-cert-not-yet-valid",
        "the door finds our certificate too new: genuine alert 42",
        ServerTLS.early_client_ca,
        when=_at_mtls,
    ),
    Disguised(
        "client-cert-expired",
        "the door finds our certificate too old: genuine alert 45",
        ServerTLS.ended_client_ca,
        when=_at_mtls,
    ),
    Disguised(
        "client-cert-unknown",
        "the door refuses our certificate without a reason: genuine alert 46",
        ServerTLS.narrow_client_ca,
        when=_at_mtls,
    ),
)

EDGE = (
    EdgeAnswer("403-rbac", "Istio's policy denies", _always(answers.RBAC_DENIED)),
    EdgeAnswer(
        "404-oathkeeper", "Oathkeeper has no rule: wrong URL, or rules reloading", _always(answers.NO_RULE)
    ),
    EdgeAnswer("404-text", "Go's 404 as text", _always(answers.NOT_FOUND)),
    EdgeAnswer("429", "Envoy's shared bucket is empty", lambda _c, _p: answers.rate_limited()),
    EdgeAnswer(
        "429-retry-after",
        "the same, with Retry-After",
        lambda _c, param: answers.rate_limited(_whole_seconds(param)),
        default="1",
        check=parse_seconds,
    ),
    EdgeAnswer("503-text", "Envoy cannot connect upstream", _always(answers.CONNECT_ERROR)),
    EdgeAnswer("503-no-upstream", "Envoy has no healthy upstream", _always(answers.NO_UPSTREAM)),
    EdgeAnswer(
        "503-retry-after",
        "503 with Retry-After in seconds",
        lambda _c, param: answers.busy(_whole_seconds(param)),
        default="1",
        check=parse_seconds,
    ),
    EdgeAnswer(
        "503-retry-after-date",
        "503 with Retry-After as a date, so far from the Connector's now",
        lambda circumstance, param: answers.busy_until(
            circumstance.now + timedelta(seconds=parse_seconds(param))
        ),
        default="2",
        check=parse_seconds,
    ),
    EdgeAnswer("html-200", "a captive portal", _always(answers.html(200))),
    EdgeAnswer("html-503", "a proxy's error page", _always(answers.html(503))),
    EdgeAnswer(
        "redirect",
        "307 to this URL",
        lambda _c, param: answers.redirect(param),
        default="https://portal.invalid/login",
    ),
    EdgeAnswer(
        "status",
        "this status with an empty body",
        lambda _c, param: Answer(_status(param)),
        default="418",
        check=_status,
    ),
    EdgeDelivery("reset-before-acting", "a reset; nobody acted", deliveries.reset),
    EdgeDelivery("close-before-acting", "an orderly end; nobody acted", deliveries.close),
)

GATE = (
    GateAnswer(
        "empty-400", "the ambiguous 'not authenticated'; a token is burnt", _always(answers.UNAUTHENTICATED)
    ),
    GateAnswer(
        "not-accepted-yet",
        "certificates younger than this get the empty 400",
        _always(answers.UNAUTHENTICATED),
        default="10s",
        check=parse_seconds,
        when=_younger,
    ),
    GateAnswer("transport-400", "gqlgen: wrong method or type", _always(answers.TRANSPORT_NOT_SUPPORTED)),
    GateAnswer("413", "the body is too large for somebody", _always(answers.TOO_LARGE)),
    GateAnswer("422", "gqlgen cannot parse the document", _always(answers.PARSE_FAILED)),
    GateAnswer("500-oathkeeper", "the hydrator gave up; a token is burnt", _always(answers.GAVE_UP)),
    GateAnswer("502-empty", "the gateway cannot reach Connector or audit log", _always(answers.BAD_GATEWAY)),
    GateAnswer("503-timeout-json", "Connector or gateway timed out, in JSON", _always(answers.TIMED_OUT)),
    GateAnswer("504-text", "Envoy timed out", _always(answers.UPSTREAM_TIMEOUT)),
)

TRANSPORT = (
    Delay("slow", "the answer takes so much longer", parse_seconds, default="1s", check=parse_seconds),
    Delivery("hang-headers", "silence instead of the answer", deliveries.hang_headers, weight=_RARELY),
    Delivery("hang-body", "silence after half of the body", deliveries.hang_body, weight=_RARELY),
    Delivery(
        "drip",
        "one byte, pause, one byte",
        deliveries.drip,
        default="1s",
        check=parse_seconds,
        weight=_RARELY,
    ),
    Delivery("endless-body", "a body without end", deliveries.endless_body, weight=_RARELY),
    Delivery("endless-headers", "headers without end", deliveries.endless_headers),
    Delivery("reset-after-acting", "a reset; the answer is lost", deliveries.reset),
    Delivery("close-after-acting", "an orderly end; the answer is lost", deliveries.close),
    Delivery("half-answer", "an orderly end after half of the body", deliveries.half_answer),
    Delivery("half-head", "an orderly end after half of the head", deliveries.half_head),
    Delivery("not-http", "the greeting of another protocol", deliveries.not_http),
)
