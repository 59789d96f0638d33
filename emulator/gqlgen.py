"""gqlgen's manners: from an HTTP request to an operation, and its execution against a schema.

`graphql-core` does the work. What cannot be executed becomes the answer that gqlgen gives. An error of a
resolver becomes `{"message", "path"}`, or `internal system error` where gqlgen would have caught a panic.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    OperationType,
    execute_sync,
    get_nullable_type,
)

from . import gojson, gqlparser, http
from .http import Answer

_PERSISTED = 100  # queries that clients may name by their hash; the server's own limit
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf'\s*({_WORD}/{_WORD})(?:\s*;\s*{_WORD}=(?:{_WORD}|"[^"]*"))*\s*;?\s*')
_BOUNDARY = re.compile(r";\s*boundary=\"?([^\";]+)", re.IGNORECASE)
_META = ("__schema", "__type")
_TEXT, _OBJECT = ("string", "string"), ("object", "map[string]interface {}")
_FIELDS = {"query": _TEXT, "operationName": _TEXT, "variables": _OBJECT, "extensions": _OBJECT}

Resolvers = Mapping[str, Callable[..., Any]]


class Refused(Exception):
    """The answer is a GraphQL error with this message; only the Director's have extensions."""

    def __init__(self, message: str, extensions: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.extensions = extensions


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The parts of an HTTP request that matter here."""

    method: str
    content_type: str
    upgrade: bool
    query: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a request asks for, or the answer that it gets for asking wrongly.

    `operation` is the name that faults and counters use, `response_key` the alias in an error's path.
    """

    operation: str
    response_key: str = "result"
    document: DocumentNode | None = None
    operation_name: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    introspects: bool = False
    failure: Answer | None = None


class Endpoint:
    """A schema behind HTTP, and the names by which faults and counters know its root fields."""

    def __init__(
        self, file: str, operations: Mapping[str, str], *, introspection: str, otherwise: str
    ) -> None:
        self._schema, self._executed = _schemas(file)
        self._operations = operations
        self._introspection = introspection
        self._otherwise = otherwise
        self._persisted: OrderedDict[str, str] = OrderedDict()

    def call(self, asked: Asked) -> Call:
        """The call inside a request; never raises."""
        try:
            return self._call(self._identified(_parameters(asked)), mutations=asked.method != "GET")
        except gqlparser.Invalid as error:
            return self.failed(http.graphql_errors(error.errors, status=422))
        except _Unusable as error:
            return self.failed(error.answer)

    def failed(self, failure: Answer) -> Call:
        """A call that gets this answer if nothing in front of it gives another one."""
        return Call(operation=self._otherwise, failure=failure)

    def execute(self, call: Call, resolvers: Resolvers) -> Answer:
        """Data, or errors in gqlgen's shape: all root fields are executed, and one error voids the data."""
        assert call.document is not None, "a call with a failure is not executed"  # noqa: S101
        result = execute_sync(
            self._schema if call.introspects else self._executed,
            call.document,
            root_value=resolvers,
            variable_values=call.variables,
            operation_name=call.operation_name,
        )
        if result.errors:
            return http.graphql_errors([_as_gqlgen(error) for error in result.errors])
        return http.graphql(result.data)

    def _call(self, parameters: "_Parameters", *, mutations: bool) -> Call:
        document = _document(self._schema, parameters.query)
        operation = gqlparser.operation(document, parameters.operation_name)
        variables = gqlparser.variables(self._schema, operation, parameters.variables)
        if operation.operation is OperationType.MUTATION and not mutations:
            raise _Unusable(http.MUTATION_BY_GET)
        fields = [node for node in operation.selection_set.selections if isinstance(node, FieldNode)]
        names = [node.name.value for node in fields]
        first = next(
            (node for node in fields if node.name.value in self._operations), fields[0] if fields else None
        )
        return Call(
            operation=self._classify(names),
            response_key=(first.alias or first.name).value if first else "result",
            document=document,
            operation_name=operation.name.value if operation.name else None,
            variables=variables,
            introspects=any(name in _META for name in names),
        )

    def _classify(self, names: list[str]) -> str:
        """The operation that a selection of root fields stands for."""
        if names and all(name == "__typename" for name in names):
            return self._introspection
        return next((self._operations[name] for name in names if name in self._operations), self._otherwise)

    def _identified(self, parameters: "_Parameters") -> "_Parameters":
        """Automatic persisted queries: a hash stands for a query, or comes with it to be remembered."""
        persisted = parameters.extensions.get("persistedQuery")
        if persisted is None:
            return parameters
        digest = persisted.get("sha256Hash", "") if isinstance(persisted, dict) else None
        if not isinstance(digest, str):
            raise _Unusable(http.graphql_errors([{"message": "invalid APQ extension data"}]))
        if persisted.get("version") != "1":
            raise _Unusable(http.graphql_errors([{"message": "unsupported APQ version"}]))
        if not parameters.query:
            if digest not in self._persisted:
                raise _Unusable(http.PERSISTED_QUERY_NOT_FOUND)
            return _Parameters(self._persisted[digest], parameters.variables, parameters.operation_name, {})
        if hashlib.sha256(parameters.query.encode("utf-8", "surrogatepass")).hexdigest() != digest:
            raise _Unusable(http.graphql_errors([{"message": "provided APQ hash does not match query"}]))
        self._persisted[digest] = parameters.query
        while len(self._persisted) > _PERSISTED:
            self._persisted.popitem(last=False)
        return parameters


@dataclass(frozen=True, slots=True)
class _Parameters:
    query: str
    variables: dict[str, Any]
    operation_name: str
    extensions: dict[str, Any]


class _Unusable(Exception):
    """gqlgen cannot use the request."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _parameters(asked: Asked) -> _Parameters:
    """By the first transport that supports the request: OPTIONS and HEAD, GET, POST, multipart."""
    if asked.method in ("OPTIONS", "HEAD"):
        raise _Unusable(http.METHODS if asked.method == "OPTIONS" else http.NO_HEAD)
    media = _media_type(asked.content_type)
    if asked.method == "GET" and not asked.upgrade:
        return _from_query(asked.query)
    if asked.method == "POST" and not asked.upgrade and media == "application/json":
        return _from_body(asked.body)
    if asked.method == "POST" and not asked.upgrade and media == "multipart/form-data":
        return _from_form(asked)
    raise _Unusable(http.TRANSPORT_NOT_SUPPORTED)


def _media_type(text: str) -> str | None:
    match = _MEDIA_TYPE.fullmatch(text)
    return match[1].lower() if match else None


def _from_body(body: bytes) -> _Parameters:
    try:
        content = gojson.decode(body)
        if content is None:
            raise _Unusable(http.graphql_errors([{"message": "internal system error"}], status=422))
        return _from_json(content)
    except gojson.NotJSON as error:
        text = body.decode("utf-8", "surrogateescape")
        message = f"json request body could not be decoded: {error} body:{text}"
        raise _Unusable(http.transport_error(400, message)) from error


def _from_json(content: Any) -> _Parameters:
    """gqlgen's RawParams; raises NotJSON where Go cannot unmarshal into it."""
    if not isinstance(content, dict):
        raise gojson.NotJSON(
            f"json: cannot unmarshal {gojson.kind(content)} into Go value of type graphql.RawParams"
        )
    found: dict[str, Any] = {}
    for key, value in content.items():
        for name in _FIELDS:
            if key.lower() == name.lower() and value is not None:
                found[name] = value
    for name, value in found.items():
        go_kind, go_type = _FIELDS[name]
        if gojson.kind(value) != go_kind:
            field_ = f"Go struct field RawParams.{name} of type {go_type}"
            raise gojson.NotJSON(f"json: cannot unmarshal {gojson.kind(value)} into {field_}")
    return _Parameters(
        found.get("query", ""),
        found.get("variables", {}),
        found.get("operationName", ""),
        found.get("extensions", {}),
    )


def _from_query(query: str) -> _Parameters:
    given = dict(reversed(parse_qsl(query, keep_blank_values=True)))
    decoded: dict[str, dict[str, Any]] = {"variables": {}, "extensions": {}}
    for name in decoded:
        try:
            value = gojson.decode(given[name].encode()) if given.get(name) else {}
        except gojson.NotJSON:
            value = ""
        if not isinstance(value, dict | None):
            raise _Unusable(http.transport_error(400, f"{name} could not be decoded"))
        decoded[name] = value or {}
    return _Parameters(
        given.get("query", ""), decoded["variables"], given.get("operationName", ""), decoded["extensions"]
    )


def _from_form(asked: Asked) -> _Parameters:
    """The parts `operations` and `map`; no variable of these schemas takes a file, so none is admitted."""
    boundary = _BOUNDARY.search(asked.content_type)
    parts = _parts(asked.body, boundary[1]) if boundary else None
    if parts is None:
        raise _form_error("failed to parse multipart form")
    if not parts or parts[0][0] != "operations":
        raise _form_error("first part must be operations")
    try:
        parameters = _from_json(gojson.decode(parts[0][1]))
    except gojson.NotJSON as error:
        raise _form_error("operations form field could not be decoded") from error
    if len(parts) < 2 or parts[1][0] != "map":
        raise _form_error("second part must be map")
    try:
        uploads = gojson.decode(parts[1][1])
    except gojson.NotJSON as error:
        raise _form_error("map form field could not be decoded") from error
    if not isinstance(uploads, dict):
        raise _form_error("map form field could not be decoded")
    for key, _ in parts[2:]:
        raise _form_error(f"invalid empty operations paths list for key {key}")
    for key in uploads:
        raise _form_error(f"failed to get key {key} from form")
    return parameters


def _parts(body: bytes, boundary: str) -> list[tuple[str, bytes]]:
    """Names and contents of a form's parts."""
    parts = []
    for part in re.split(rb"(?:^|\r\n)--" + re.escape(boundary.encode()) + rb"(?:--)?[ \t]*(?=\r\n|$)", body)[
        1:-1
    ]:
        head, _, content = part.partition(b"\r\n\r\n")
        parsed = BytesParser().parsebytes(head.lstrip(b"\r\n") + b"\r\n\r\n", headersonly=True)
        parts.append((str(parsed.get_param("name", "", "content-disposition")), content))
    return parts


def _form_error(message: str) -> _Unusable:
    return _Unusable(http.transport_error(422, message))


@lru_cache(maxsize=4)
def _schemas(file: str) -> tuple[GraphQLSchema, GraphQLSchema]:
    """The schema, and the one to execute: there a root field that fails leaves the others alone."""
    text = files(__package__).joinpath(file).read_text(encoding="utf-8")
    executed = gqlparser.schema_from(text)
    for root in (executed.query_type, executed.mutation_type):
        assert isinstance(root, GraphQLObjectType)  # noqa: S101 (both schemas have both)
        for one in root.fields.values():
            one.type = get_nullable_type(one.type)
    return gqlparser.schema_from(text), executed


@lru_cache(maxsize=64)
def _document(schema: GraphQLSchema, query: str) -> DocumentNode:
    """Parsed and validated; cached, because clients send the same few documents again and again."""
    document = gqlparser.parse(query)
    gqlparser.validate(schema, document)
    return gqlparser.without_defer(document) if "@defer" in query else document


def _as_gqlgen(error: GraphQLError) -> dict[str, Any]:
    known = error.original_error is None or isinstance(error.original_error, Refused)
    message = error.message if known else "internal system error"
    extensions = error.extensions and {"extensions": error.extensions}
    return {"message": message, "path": list(error.path or []), **(extensions or {})}
