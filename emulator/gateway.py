"""What stands between a door and the Connector: rules, hydrators, the audit gateway (contract section 0).

It decides what a request gets and does none of the sending: the order of the checks is the order of the
request path in production, which is why a token is burnt by requests that fail later.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509

from . import gojson, http
from .authority import fingerprint
from .clock import Clock
from .connection import Line, Wire
from .connector import Connector
from .director import Caller, Director, DirectorAPI
from .faults.plan import (
    Circumstance,
    DateHeader,
    Delay,
    Delivery,
    EdgeAnswer,
    EdgeDelivery,
    FaultPlan,
    GateAnswer,
    Message,
    Occasion,
    Rewrite,
)
from .gqlgen import Asked, Call, Endpoint, Resolvers
from .http import Answer, Request
from .journal import Entry, Journal, Registry
from .options import DoorName
from .subjects import common_name, subject_of

PATH = "/connector/graphql"  # exact: a trailing slash is somebody else's
DIRECTOR_PATH = "/director/graphql"
FINGERPRINT_HEADER = "Compass-Emulator-Fingerprint"  # of the certificate with which the Director was called
ADAPTER_PATH = "/v1/applications/signingRequests/info"  # of the Director's legacyConnectorURL
_LOGGED_HEADERS = ("x-request-id", "x-correlation-id")
_LOGGED_CHARACTERS = 200

Deliver = Callable[[Line, Wire], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Through which door somebody came, and the certificate presented."""

    door: DoorName
    certificate: x509.Certificate | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to send (None: nothing was said), how late, and how if not plainly."""

    answer: Answer | None
    delay: float = 0.0
    deliver: Deliver | None = None


class Gateway:
    """Answers the requests of both doors."""

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

    def handle(self, request: Request, visitor: Visitor) -> Outcome:
        """The outcome of one request, acted upon and written down."""
        if request.path == ADAPTER_PATH and request.method == "POST" and visitor.door == "token":
            return self._adapter(request, visitor)
        endpoint = self._endpoint(request, visitor)
        if endpoint is None or (self._audit and request.method not in ("GET", "POST")):
            return Outcome(http.NO_RULE)
        call = endpoint.call(_asked(request))
        circumstance = self._circumstance(call, visitor)
        visit = _Visit(call, circumstance, self._plan.occasion(circumstance), endpoint)
        outcome = self._answer(request, visitor, visit)
        if endpoint is self._director_endpoint:
            outcome = _naming_caller(outcome, visitor)
        self._journal.record(self._entry(request, visitor, visit, outcome))
        return outcome

    def _adapter(self, request: Request, visitor: Visitor) -> Outcome:
        """The connectivity adapter: its rule admits POST and consumes the token; the adapter answers 405.

        In production it has a host of its own. Its answers to GET are not emulated.
        """
        call = Call(operation="adapter")
        circumstance = self._circumstance(call, visitor)
        visit = _Visit(call, circumstance, self._plan.nothing(circumstance), caller=self._by_token(request))
        outcome = Outcome(http.METHOD_NOT_ALLOWED)
        self._journal.record(self._entry(request, visitor, visit, outcome))
        return outcome

    def _answer(self, request: Request, visitor: Visitor, visit: "_Visit") -> Outcome:
        if broken := visit.occasion.take(EdgeDelivery):
            act, param = broken.fault.act, broken.param
            return Outcome(None, deliver=lambda line, wire: act(line, wire, param))
        if edge := visit.occasion.take(EdgeAnswer):
            return self._on_its_way(edge.fault.act(visit.circumstance, edge.param), visit)
        visit.caller = self._identify(request, visitor)
        return self._on_its_way(self._behind_the_gate(request, visit), visit)

    def _behind_the_gate(self, request: Request, visit: "_Visit") -> Answer:
        """In the order of the path: gate, gateway, identity, gqlgen, resolver."""
        if gate := visit.occasion.take(GateAnswer):
            return gate.fault.act(visit.circumstance, gate.param)
        if request.too_large:
            return http.TOO_LARGE
        if self._audit and request.method == "POST" and not _auditable(request.body):
            return http.BAD_GATEWAY
        if visit.caller is None:
            return http.UNAUTHENTICATED
        return visit.call.failure or self._execute(visit, visit.caller)

    def _execute(self, visit: "_Visit", caller: Caller) -> Answer:
        if message := visit.occasion.take(Message):
            visit.delay = message.fault.delay(message.param)
            text = message.fault.act(visit.circumstance, message.param)
            return http.graphql_errors([{"message": text, "path": [visit.call.response_key]}])
        assert visit.endpoint is not None  # noqa: S101 (only an endpoint's calls come here)
        answer = visit.endpoint.execute(visit.call, self._resolvers(visit, caller))
        if spoilt := visit.occasion.take(Rewrite):
            return spoilt.fault.act(answer, visit.circumstance, spoilt.param)
        return answer

    def _resolvers(self, visit: "_Visit", caller: Caller) -> Resolvers:
        if visit.endpoint is self._director_endpoint:
            return self._director_api.resolvers(caller)
        return self._connector.resolvers(caller, visit.occasion)

    def _endpoint(self, request: Request, visitor: Visitor) -> Endpoint | None:
        """What a path leads to; the Director is behind the certificate-secured door only."""
        if request.path == PATH:
            return self._connector_endpoint
        if request.path == DIRECTOR_PATH and visitor.door == "mtls":
            return self._director_endpoint
        return None

    def _on_its_way(self, answer: Answer, visit: "_Visit") -> Outcome:
        if dated := visit.occasion.take(DateHeader):
            date = dated.fault.act(visit.circumstance.now, dated.param, dated.before)
            answer = answer.with_header("Date", date or "")
        late = visit.occasion.take(Delay)
        lost = visit.occasion.take(Delivery)
        delay = visit.delay + (late.fault.act(late.param) if late else 0.0)
        if lost is None:
            return Outcome(answer, delay)
        act, param = lost.fault.act, lost.param
        return Outcome(answer, delay, lambda line, wire: act(line, wire, param))

    def _identify(self, request: Request, visitor: Visitor) -> Caller | None:
        """The hydrators: by token at one door, by certificate at the other, never both."""
        if visitor.door == "token":
            return self._by_token(request)
        return self._by_certificate(visitor.certificate)

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

    def _circumstance(self, call: Call, visitor: Visitor) -> Circumstance:
        certificate = visitor.certificate
        return Circumstance(
            operation=call.operation,
            door=visitor.door,
            now=self._clock.now(),
            response_key=call.response_key,
            certificate_age=self._registry.age(fingerprint(certificate)) if certificate else None,
        )

    def _entry(self, request: Request, visitor: Visitor, visit: "_Visit", outcome: Outcome) -> Entry:
        certificate = visitor.certificate
        answer = outcome.answer
        presented = common_name(subject_of(certificate)) if certificate else None
        return Entry(
            at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            door=visitor.door,
            operation=visit.call.operation,
            outcome=_describe(outcome),
            status=answer.status if answer else None,
            client_id=visit.caller.auth.id if visit.caller else presented,
            peer_fingerprint_sha256=fingerprint(certificate) if certificate else None,
            headers={
                name: request.headers[name][:_LOGGED_CHARACTERS]
                for name in _LOGGED_HEADERS
                if name in request.headers
            },
            faults=list(visit.occasion.names),
        )


@dataclass(slots=True)
class _Visit:
    """One request on its way through."""

    call: Call
    circumstance: Circumstance
    occasion: Occasion
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


def _naming_caller(outcome: Outcome, visitor: Visitor) -> Outcome:
    """The Director's answers say which certificate they were given to."""
    if outcome.answer is None or visitor.certificate is None:
        return outcome
    answer = outcome.answer.with_header(FINGERPRINT_HEADER, fingerprint(visitor.certificate))
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
