"""What is between a listener and the Connector: rules, hydrators, the audit gateway.

It decides what a request gets and does none of the sending: the order of the checks is the order of the
request path in production, which is why requests that fail later consume their token.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509

from . import gojson, http
from .authority import fingerprint
from .clock import Clock
from .connection import Connection, Wire
from .connector import Connector
from .director import Caller, Director, DirectorAPI
from .faults.plan import (
    DateHeader,
    Delay,
    EdgeAnswer,
    EdgeDisconnect,
    ErrorMessage,
    FaultPlan,
    GatewayAnswer,
    LostAnswer,
    RequestFaults,
    Rewrite,
    Situation,
)
from .gqlgen import Asked, Call, Endpoint, Resolvers
from .http import Answer, Request
from .journal import Entry, Journal, Registry
from .options import ListenerName
from .subjects import common_name, subject_of

PATH = "/connector/graphql"  # exact: there is no rule for a trailing slash
DIRECTOR_PATH = "/director/graphql"
FINGERPRINT_HEADER = "Compass-Emulator-Fingerprint"  # of the certificate with which the Director was called
ADAPTER_PATH = "/v1/applications/signingRequests/info"  # of the Director's legacyConnectorURL
_LOGGED_HEADERS = ("x-request-id", "x-correlation-id")
_LOGGED_CHARACTERS = 200

Deliver = Callable[[Connection, Wire], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The client: through which listener it came, and the certificate it presented."""

    listener: ListenerName
    certificate: x509.Certificate | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to send (None: no answer), how late, and in which way if not whole."""

    answer: Answer | None
    delay: float = 0.0
    deliver: Deliver | None = None


class Gateway:
    """Answers the requests of both listeners."""

    def __init__(
        self,
        *,
        connector: Connector,
        director: Director,
        director_api: DirectorAPI,
        registry: Registry,
        plan: FaultPlan,
        journal: Journal,
        clock: Clock,
        audit: bool = True,
    ) -> None:
        self._audit = audit
        self._connector = connector
        self._director = director
        self._director_api = director_api
        self._registry = registry
        self._plan = plan
        self._journal = journal
        self._clock = clock
        self._connector_endpoint = Endpoint(
            "schema.graphql",
            {
                "configuration": "configuration",
                "signCertificateSigningRequest": "sign",
                "revokeCertificate": "revoke",
            },
            introspection="probe",
            otherwise="other",
        )
        self._director_endpoint = Endpoint(
            "director.graphql", {}, introspection="director", otherwise="director"
        )

    def handle(self, request: Request, peer: Peer) -> Outcome:
        """The outcome of one request, acted upon and written down."""
        if request.path == ADAPTER_PATH and request.method == "POST" and peer.listener == "token":
            return self._adapter(request, peer)
        endpoint = self._endpoint(request, peer)
        if endpoint is None or (self._audit and request.method not in ("GET", "POST")):
            return Outcome(http.NO_RULE)
        call = endpoint.call(_asked(request))
        situation = self._situation(call, peer)
        exchange = _Exchange(call, situation, self._plan.faults_for(situation), endpoint)
        outcome = self._answer(request, peer, exchange)
        if endpoint is self._director_endpoint:
            outcome = _naming_caller(outcome, peer)
        self._journal.record(self._entry(request, peer, exchange, outcome))
        return outcome

    def _adapter(self, request: Request, peer: Peer) -> Outcome:
        """The connectivity adapter: its rule admits POST and consumes the token; the adapter answers 405.

        In production it has a host of its own. Its answers to GET are not emulated.
        """
        call = Call(operation="adapter")
        situation = self._situation(call, peer)
        exchange = _Exchange(call, situation, self._plan.no_faults(situation), caller=self._by_token(request))
        outcome = Outcome(http.METHOD_NOT_ALLOWED)
        self._journal.record(self._entry(request, peer, exchange, outcome))
        return outcome

    def _answer(self, request: Request, peer: Peer, exchange: "_Exchange") -> Outcome:
        if broken := exchange.faults.take(EdgeDisconnect):
            act, param = broken.fault.act, broken.param
            return Outcome(None, deliver=lambda connection, wire: act(connection, wire, param))
        if edge := exchange.faults.take(EdgeAnswer):
            return self._outcome(edge.fault.act(exchange.situation, edge.param), exchange)
        exchange.caller = self._identify(request, peer)
        return self._outcome(self._after_identification(request, exchange), exchange)

    def _after_identification(self, request: Request, exchange: "_Exchange") -> Answer:
        """In the order of the path: hydrator and gateway, identity, gqlgen, resolver."""
        if early := exchange.faults.take(GatewayAnswer):
            return early.fault.act(exchange.situation, early.param)
        if request.too_large:
            return http.TOO_LARGE
        if self._audit and request.method == "POST" and not _auditable(request.body):
            return http.BAD_GATEWAY
        if exchange.caller is None:
            return http.UNAUTHENTICATED
        return exchange.call.failure or self._execute(exchange, exchange.caller)

    def _execute(self, exchange: "_Exchange", caller: Caller) -> Answer:
        if message := exchange.faults.take(ErrorMessage):
            exchange.delay = message.fault.delay(message.param)
            text = message.fault.act(exchange.situation, message.param)
            return http.graphql_errors([{"message": text, "path": [exchange.call.response_key]}])
        assert exchange.endpoint is not None  # noqa: S101 (only an endpoint's calls come here)
        answer = exchange.endpoint.execute(exchange.call, self._resolvers(exchange, caller))
        if changed := exchange.faults.take(Rewrite):
            return changed.fault.act(answer, exchange.situation, changed.param)
        return answer

    def _resolvers(self, exchange: "_Exchange", caller: Caller) -> Resolvers:
        if exchange.endpoint is self._director_endpoint:
            return self._director_api.resolvers(caller)
        return self._connector.resolvers(caller, exchange.faults)

    def _endpoint(self, request: Request, peer: Peer) -> Endpoint | None:
        """What a path leads to; the Director is behind the mTLS listener only."""
        if request.path == PATH:
            return self._connector_endpoint
        if request.path == DIRECTOR_PATH and peer.listener == "mtls":
            return self._director_endpoint
        return None

    def _outcome(self, answer: Answer, exchange: "_Exchange") -> Outcome:
        if dated := exchange.faults.take(DateHeader):
            date = dated.fault.act(exchange.situation.now, dated.param, dated.before)
            answer = answer.with_header("Date", date or "")
        late = exchange.faults.take(Delay)
        lost = exchange.faults.take(LostAnswer)
        delay = exchange.delay + (late.fault.act(late.param) if late else 0.0)
        if lost is None:
            return Outcome(answer, delay)
        act, param = lost.fault.act, lost.param
        return Outcome(answer, delay, lambda connection, wire: act(connection, wire, param))

    def _identify(self, request: Request, peer: Peer) -> Caller | None:
        """The hydrators: by token at one listener, by certificate at the other, never both."""
        if peer.listener == "token":
            return self._by_token(request)
        return self._by_certificate(peer.certificate)

    def _by_token(self, request: Request) -> Caller | None:
        """The token is consumed here, whatever becomes of the request."""
        token = request.headers.get("connector-token") or request.query.get("token")
        auth = self._director.consume(token, now=self._clock.now()) if token else None
        if auth is None:
            return None
        self._journal.events["tokens_consumed"] += 1
        return Caller(auth=auth)

    def _by_certificate(self, certificate: x509.Certificate | None) -> Caller | None:
        if certificate is None:
            return None
        subject = subject_of(certificate)
        if not self._connector.operator.subject.match(subject):
            return None
        key = fingerprint(certificate)
        auth = self._director.find(common_name(subject))
        if auth is None or self._registry.revoked(key):
            return None
        self._director.certificate_used(auth)
        return Caller(auth=auth, fingerprint=key)

    def _situation(self, call: Call, peer: Peer) -> Situation:
        certificate = peer.certificate
        return Situation(
            operation=call.operation,
            listener=peer.listener,
            now=self._clock.now(),
            response_key=call.response_key,
            certificate_age=self._registry.age(fingerprint(certificate)) if certificate else None,
        )

    def _entry(self, request: Request, peer: Peer, exchange: "_Exchange", outcome: Outcome) -> Entry:
        certificate = peer.certificate
        answer = outcome.answer
        presented = common_name(subject_of(certificate)) if certificate else None
        return Entry(
            at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            listener=peer.listener,
            operation=exchange.call.operation,
            outcome=_describe(outcome),
            status=answer.status if answer else None,
            client_id=exchange.caller.auth.id if exchange.caller else presented,
            peer_fingerprint_sha256=fingerprint(certificate) if certificate else None,
            headers={
                name: request.headers[name][:_LOGGED_CHARACTERS]
                for name in _LOGGED_HEADERS
                if name in request.headers
            },
            faults=list(exchange.faults.names),
        )


@dataclass(slots=True)
class _Exchange:
    """One request on its way through."""

    call: Call
    situation: Situation
    faults: RequestFaults
    endpoint: Endpoint | None = None
    caller: Caller | None = None
    delay: float = 0.0


def _asked(request: Request) -> Asked:
    return Asked(
        method=request.method,
        content_type=request.headers.get("content-type", ""),
        upgrade=bool(request.headers.get("upgrade")),
        query=request.target.partition("?")[2],
        body=request.body,
    )


def _auditable(body: bytes) -> bool:
    """Whether the gateway can read a body: one JSON object whose query, if there is one, is a text."""
    try:
        content = gojson.unmarshal(body)
    except gojson.NotJSON:
        return False
    return content is None or (
        isinstance(content, dict) and gojson.kind(content.get("query", "")) == "string"
    )


def _naming_caller(outcome: Outcome, peer: Peer) -> Outcome:
    """The Director's answers say which certificate they were given to."""
    if outcome.answer is None or peer.certificate is None:
        return outcome
    answer = outcome.answer.with_header(FINGERPRINT_HEADER, fingerprint(peer.certificate))
    return replace(outcome, answer=answer)


def _describe(outcome: Outcome) -> str:
    """`ok`, `graphql-error`, `http-<status>` or `unanswered`; a lost answer is `lost`."""
    if outcome.answer is None:
        return "unanswered"
    if outcome.deliver is not None:
        return "lost"
    if outcome.answer.status != 200:
        return f"http-{outcome.answer.status}"
    return "graphql-error" if outcome.answer.body.startswith(b'{"errors"') else "ok"
