"""GraphQL: from an HTTP request to an operation, and its execution against the real schema.

`graphql-core` does the work; this module gives it gqlgen's manners. What cannot be executed becomes the
answer that the gateway or gqlgen gives (contract section 2), and an error inside a resolver becomes a bare
`{"message", "path"}`, or `internal system error` where gqlgen would have recovered from a panic.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    TokenKind,
    build_schema,
    execute_sync,
    validate,
)
from graphql.execution import get_variable_values
from graphql.language import ArgumentNode
from graphql.language.parser import Parser

from . import answers
from .answers import Answer
from .csr import Refused

_MAX_TOKENS = 2_000  # a document, not a program; also bounds what the parser's recursion can be made to do

Resolvers = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """A schema, and the names by which faults and counters know its root fields."""

    schema: GraphQLSchema
    operations: Mapping[str, str]
    introspection: str
    otherwise: str

    @classmethod
    def load(
        cls, file: str, operations: Mapping[str, str], *, introspection: str, otherwise: str
    ) -> "Endpoint":
        """From a schema file of this package."""
        text = files(__package__).joinpath(file).read_text(encoding="utf-8")
        return cls(build_schema(text), operations, introspection, otherwise)

    def classify(self, fields: list[FieldNode]) -> str:
        """The operation that a selection of root fields stands for."""
        names = [node.name.value for node in fields]
        if names and all(name == "__typename" for name in names):
            return self.introspection
        return next((self.operations[name] for name in names if name in self.operations), self.otherwise)

    def failed(self, *, failure: Answer | None = None, gateway_failure: Answer | None = None) -> "Call":
        """A call that cannot be executed."""
        return Call(endpoint=self, operation=self.otherwise, failure=failure, gateway_failure=gateway_failure)


CONNECTOR = Endpoint.load(
    "schema.graphql",
    {
        "configuration": "configuration",
        "signCertificateSigningRequest": "sign",
        "revokeCertificate": "revoke",
    },
    introspection="probe",
    otherwise="other",
)
DIRECTOR = Endpoint.load("director.graphql", {}, introspection="director", otherwise="director")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a request asks for, or the answer that it gets for asking wrongly.

    `gateway_failure` is given before the Connector's own checks, `failure` after them. `operation` is the
    name that faults and counters use; `response_key` is the alias that an error's path carries.
    """

    operation: str = "other"
    response_key: str = "result"
    endpoint: Endpoint | None = None
    document: DocumentNode | None = None
    operation_name: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    gateway_failure: Answer | None = None
    failure: Answer | None = None


@dataclass(frozen=True, slots=True)
class _Parameters:
    query: str
    variables: dict[str, Any]
    operation_name: str | None


def read_call(
    endpoint: Endpoint, method: str, *, content_type: str, body: bytes, query: Mapping[str, str]
) -> Call:
    """The call inside a request; never raises."""
    try:
        if method == "GET":
            return _understand(endpoint, _from_query(query), mutations_allowed=False)
        parameters = _from_body(body)
        if method != "POST" or content_type.partition(";")[0].strip().lower() != answers.JSON:
            return _understand(
                endpoint, parameters, mutations_allowed=True, failure=answers.TRANSPORT_NOT_SUPPORTED
            )
        return _understand(endpoint, parameters, mutations_allowed=True)
    except _NotJSON:
        failure = answers.BAD_GATEWAY if method == "POST" else None
        return endpoint.failed(gateway_failure=failure, failure=answers.TRANSPORT_NOT_SUPPORTED)
    except _Unusable as error:
        return endpoint.failed(failure=error.answer)


def execute(call: Call, resolvers: Resolvers) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Data, and errors in gqlgen's shape."""
    assert call.document is not None, "a call with a failure is not executed"  # noqa: S101
    assert call.endpoint is not None  # noqa: S101
    result = execute_sync(
        call.endpoint.schema,
        call.document,
        root_value=resolvers,
        variable_values=call.variables,
        operation_name=call.operation_name,
    )
    return result.data, [_as_gqlgen(error) for error in result.errors or []]


class _Parser(Parser):
    """Accepts `configuration()`: gqlgen's parser does, though the specification does not."""

    def parse_arguments(self, is_const: bool) -> tuple[ArgumentNode, ...] | None:
        if self.peek(TokenKind.PAREN_L) and self._lexer.lookahead().kind is TokenKind.PAREN_R:
            self.expect_token(TokenKind.PAREN_L)
            self.expect_token(TokenKind.PAREN_R)
            return ()
        return super().parse_arguments(is_const)


class _NotJSON(Exception):
    """The gateway cannot read the body."""


class _Unusable(Exception):
    """gqlgen cannot use the request."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _from_body(body: bytes) -> _Parameters:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _NotJSON from error
    if not isinstance(content, dict):
        raise _NotJSON
    query, variables, name = content.get("query"), content.get("variables"), content.get("operationName")
    if not isinstance(query, str | None) or not isinstance(variables, dict | None):
        message = (
            "json request body could not be decoded: json: cannot unmarshal into Go struct graphql.RawParams"
        )
        raise _Unusable(answers.transport_error(400, message))
    return _Parameters(query or "", variables or {}, name if isinstance(name, str) and name else None)


def _from_query(query: Mapping[str, str]) -> _Parameters:
    try:
        variables = json.loads(query.get("variables") or "{}")
    except (ValueError, RecursionError):
        variables = None
    if not isinstance(variables, dict):
        raise _Unusable(answers.transport_error(400, "variables could not be decoded"))
    return _Parameters(query.get("query", ""), variables, query.get("operationName") or None)


def _understand(
    endpoint: Endpoint, parameters: _Parameters, *, mutations_allowed: bool, failure: Answer | None = None
) -> Call:
    try:
        document = _document(endpoint, parameters.query)
        operation = _operation(document, parameters.operation_name)
    except _Unusable as error:
        return endpoint.failed(failure=failure or error.answer)
    fields = [node for node in operation.selection_set.selections if isinstance(node, FieldNode)]
    first = next(
        (node for node in fields if node.name.value in endpoint.operations), fields[0] if fields else None
    )
    if operation.operation is OperationType.MUTATION and not mutations_allowed:
        failure = failure or answers.MUTATION_BY_GET
    return Call(
        endpoint=endpoint,
        operation=endpoint.classify(fields),
        response_key=(first.alias or first.name).value if first else "result",
        document=document,
        operation_name=parameters.operation_name,
        variables=parameters.variables,
        failure=failure or _variables_failure(endpoint, operation, parameters.variables),
    )


@lru_cache(maxsize=64)
def _document(endpoint: Endpoint, query: str) -> DocumentNode:
    """Parsed and validated; cached, because clients send the same few documents for ever."""
    if not query.strip():
        raise _Unusable(answers.NOT_AN_OPERATION)
    try:
        document = _Parser(query, max_lexical_tokens=_MAX_TOKENS).parse_document()
        errors = validate(endpoint.schema, document)
    except RecursionError as error:
        raise _Unusable(answers.PARSE_FAILED) from error
    except GraphQLError as error:
        raise _Unusable(_invalid("GRAPHQL_PARSE_FAILED", error)) from error
    if errors:
        raise _Unusable(_invalid("GRAPHQL_VALIDATION_FAILED", errors[0]))
    return document


def _operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    named = [node for node in operations if name is None or (node.name and node.name.value == name)]
    if len(named) != 1:
        message = f"operation {name} not found" if name else "no operation provided"
        raise _Unusable(answers.invalid("GRAPHQL_VALIDATION_FAILED", {"message": message}))
    return named[0]


def _variables_failure(
    endpoint: Endpoint, operation: OperationDefinitionNode, variables: dict[str, Any]
) -> Answer | None:
    coerced = get_variable_values(endpoint.schema, operation.variable_definitions or (), variables)
    if not isinstance(coerced, list):
        return None
    message = coerced[0].message
    name = message.partition("$")[2].partition("'")[0].partition(".")[0]
    missing = "was not provided" in message or "required" in message
    error = {"message": "must be defined" if missing else message, "path": ["variable", name]}
    return answers.invalid("GRAPHQL_VALIDATION_FAILED", error)


def _invalid(code: str, error: GraphQLError) -> Answer:
    message = error.message.removeprefix("Syntax Error: ")
    locations = [{"line": place.line, "column": place.column} for place in error.locations or []]
    if not locations:
        return answers.invalid(code, {"message": message})
    return answers.invalid(code, {"message": message, "locations": locations})


def _as_gqlgen(error: GraphQLError) -> dict[str, Any]:
    known = error.original_error is None or isinstance(error.original_error, Refused)
    message = error.message if known else "internal system error"
    extensions = error.extensions and {"extensions": error.extensions}
    return {"message": message, "path": list(error.path or []), **(extensions or {})}
