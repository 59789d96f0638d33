"""gqlparser's manners over graphql-core: which documents and variables it refuses, in its words.

The library finds the errors. Whatever differs is here and nowhere else: the wording (`_WORDS`), the position
that each error has, their order, and the few rules that only one of the two knows.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, cast

from graphql import (
    REMOVE,
    ArgumentNode,
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLFloat,
    GraphQLID,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLSyntaxError,
    InlineFragmentNode,
    Lexer,
    Node,
    OperationDefinitionNode,
    Source,
    Token,
    TokenKind,
    VariableDefinitionNode,
    Visitor,
    build_schema,
    get_location,
    get_named_type,
    is_leaf_type,
    print_ast,
    specified_rules,
    type_from_ast,
    value_from_ast,
    visit,
)
from graphql import validate as find_errors
from graphql.language import DefinitionNode, SelectionSetNode
from graphql.language.parser import Parser
from graphql.validation import ASTValidationRule, ValidationRule

from .gojson import Number, kind

Error = dict[str, Any]
_DIRECTIVES = """
directive @defer(if: Boolean = true, label: String) on FRAGMENT_SPREAD | INLINE_FRAGMENT
directive @deprecated(reason: String = "No longer supported")
    on FIELD_DEFINITION | ARGUMENT_DEFINITION | INPUT_FIELD_DEFINITION | ENUM_VALUE
directive @include(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
directive @skip(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
directive @specifiedBy(url: String!) on SCALAR
"""
_MAX_TOKENS = 2_000  # a document, not a program; also bounds what the parser's recursion can be made to do


class Invalid(Exception):
    """The document or a variable is refused with these errors and this code."""

    def __init__(self, code: str, *errors: Error) -> None:
        super().__init__(code)
        self.errors = [{**error, "extensions": {"code": code}} for error in errors]


def schema_from(text: str) -> GraphQLSchema:
    """A schema as gqlparser has it: with every scalar, with its own directives, sorted by name."""
    built = build_schema(_DIRECTIVES + text)
    directives = [one for one in built.directives if one.name != "oneOf"]
    schema = GraphQLSchema(
        query=built.query_type,
        mutation=built.mutation_type,
        types=[*built.type_map.values(), GraphQLFloat, GraphQLID, GraphQLInt],
        directives=sorted(directives, key=lambda one: one.name),
    )
    schema.type_map = dict(sorted(schema.type_map.items()))
    return schema


def parse(query: str) -> DocumentNode:
    """The document; raises Invalid."""
    try:
        return _Parser(Source(query), max_tokens=_MAX_TOKENS).parse_document()
    except RecursionError as error:
        raise Invalid("GRAPHQL_PARSE_FAILED", {"message": "Unexpected <Invalid>"}) from error
    except GraphQLSyntaxError as error:
        message = error.message.removeprefix("Syntax Error: ").removesuffix(".")
        for pattern, words in _SYNTAX_WORDS:
            message = pattern.sub(words, message)
        places = [{"line": place.line, "column": place.column} for place in error.locations or []]
        raise Invalid("GRAPHQL_PARSE_FAILED", {"message": message, "locations": places}) from error


def validate(schema: GraphQLSchema, document: DocumentNode) -> None:
    """Raises Invalid with every error of a document."""
    if not any(isinstance(node, OperationDefinitionNode) for node in document.definitions):
        raise Invalid("GRAPHQL_VALIDATION_FAILED", {"message": "no operation provided"})
    errors = find_errors(schema, document, _RULES, max_errors=_MAX_TOKENS)
    if errors:
        tree = _Tree(document)
        ordered = sorted((tree.translated(error) for error in errors), key=lambda one: one[0])
        raise Invalid("GRAPHQL_VALIDATION_FAILED", *(error for _, error in ordered))


def without_defer(document: DocumentNode) -> DocumentNode:
    """The document without `@defer`, which asks for a second answer that HTTP alone has no place for."""
    return cast("DocumentNode", visit(document, _WithoutDefer()))


def operation(document: DocumentNode, name: str) -> OperationDefinitionNode:
    """The operation of that name, or the only one if the name is empty; raises Invalid."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    named = [node for node in operations if (node.name.value if node.name else "") == name]
    found = operations if not name and len(operations) == 1 else named
    if not found:
        raise Invalid("GRAPHQL_VALIDATION_FAILED", {"message": f"operation {name} not found"})
    return found[0]


def variables(
    schema: GraphQLSchema, node: OperationDefinitionNode, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The variables that were given, coerced as Go coerces them; raises Invalid."""
    coerced = {}
    for definition in node.variable_definitions or ():
        name = definition.variable.name.value
        type_ = cast("GraphQLInputType", type_from_ast(schema, definition.type))
        path = ["variable", name]
        if name in given:
            coerced[name] = _coerced(type_, given[name], path)
        elif definition.default_value is not None:
            coerced[name] = value_from_ast(definition.default_value, type_)
        elif isinstance(type_, GraphQLNonNull):
            raise _wrong(path, "must be defined")
    return coerced


class _Invalid(Enum):
    """The kind of a token that cannot be read."""

    INVALID = "<Invalid>"


class _Lexer(Lexer):
    """What cannot be read is a token, for the parser to stumble over."""

    def read_next_token(self, start: int) -> Token:
        try:
            return super().read_next_token(start)
        except GraphQLSyntaxError as error:
            [position], [place] = error.positions or [start], error.locations or []
            invalid = cast("TokenKind", _Invalid.INVALID)
            return Token(invalid, position, position, place.line, place.column)


class _Parser(Parser):
    """gqlparser's grammar: `configuration()` is fine, `query { }` and type definitions are not."""

    def __init__(self, source: Source, *, max_tokens: int) -> None:
        super().__init__(source, max_tokens=max_tokens, allow_empty_selection_sets=False)
        self._lexer = _Lexer(source)

    def parse_document(self) -> DocumentNode:
        if self._lexer.lookahead().kind is TokenKind.EOF:
            return DocumentNode(definitions=())
        return super().parse_document()

    def parse_definition(self) -> DefinitionNode:
        token = self._lexer.token
        executable = ("query", "mutation", "subscription", "fragment")
        if token.kind is TokenKind.BRACE_L or (token.kind is TokenKind.NAME and token.value in executable):
            return super().parse_definition()
        raise self.unexpected(token)

    def parse_selection_set(self) -> SelectionSetNode:
        if self.peek(TokenKind.BRACE_L) and self._lexer.lookahead().kind is TokenKind.BRACE_R:
            raise GraphQLSyntaxError(
                self._lexer.source, self._lexer.lookahead().start, "expected at least one definition, found }"
            )
        return super().parse_selection_set()

    def parse_arguments(self, is_const: bool) -> tuple[ArgumentNode, ...] | None:
        if self.peek(TokenKind.PAREN_L) and self._lexer.lookahead().kind is TokenKind.PAREN_R:
            self.expect_token(TokenKind.PAREN_L)
            self.expect_token(TokenKind.PAREN_R)
            return ()
        return super().parse_arguments(is_const)


_SYNTAX_WORDS = (
    (re.compile(r"^(Expected .+, found )(?:'(\W+)'|([A-Z<]\w+>?))(?: '.*')?$", re.DOTALL), r"\1\2\3"),
    (re.compile(r"^Expected '(\W+)'"), r"Expected \1"),
    (re.compile(r"^Unexpected '(\W+)'$"), r"Unexpected \1"),
    (re.compile(r"^(Unexpected \w+) '(.*)'$", re.DOTALL), r'\1 "\2"'),
)


class _WithoutDefer(Visitor):
    def enter_directive(self, node: DirectiveNode, *_: object) -> Any:
        return REMOVE if node.name.value == "defer" else None


class _FieldOfLeaf(ValidationRule):
    """A field below a scalar: to graphql-core only the selection is wrong, to gqlparser the field is too."""

    def enter_field(self, node: FieldNode, *_: object) -> None:
        type_ = get_named_type(self.context.get_type())
        if node.selection_set is None or not is_leaf_type(type_):
            return
        for child in node.selection_set.selections:
            if isinstance(child, FieldNode) and child.name.value != "__typename":
                words = f"Cannot query field '{child.name.value}' on type '{type_}'."
                self.report_error(GraphQLError(words, [child]))


class _OneAnonymousOperation(ASTValidationRule):
    """To gqlparser two operations without a name have the same one."""

    def leave_document(self, node: DocumentNode, *_: object) -> None:
        anonymous = [
            one for one in node.definitions if isinstance(one, OperationDefinitionNode) and one.name is None
        ]
        for one in anonymous[1:]:
            self.report_error(GraphQLError("There can be only one operation named ''.", [one]))


_UNKNOWN_RULES = ("ExecutableDefinitions", "DeferStream", "StreamDirective")  # gqlparser has none of them
_RULES = (
    *(rule for rule in specified_rules if not rule.__name__.startswith(_UNKNOWN_RULES)),
    _FieldOfLeaf,
    _OneAnonymousOperation,
)


class _Tree:
    """The nodes of a document: what encloses each, and when gqlparser visits it."""

    def __init__(self, document: DocumentNode) -> None:
        self._around: dict[int, Node] = {}
        self._turn: dict[int, int] = {}
        self._nodes: list[Node] = []
        fragments = [one for one in document.definitions if isinstance(one, FragmentDefinitionNode)]
        operations = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
        for definition in (*operations, *fragments):
            self._visit(definition)

    def translated(self, error: GraphQLError) -> tuple[int, Error]:
        """When gqlparser would find an error, and its words for it."""
        message, position, turn = error.message, _first, _first
        if not _OF_VALUES.search(message):
            message = _QUOTED.sub(r'"\1"', message)
        for pattern, words, *places in _WORDS:
            if pattern.search(message):
                message, position, turn = pattern.sub(words, message), places[0], places[-1]
                break
        nodes = [self._own(node) for node in error.nodes or ()]
        translated: Error = {"message": message, "locations": [_location(position(self, nodes))]}
        return self._turn[id(turn(self, nodes))], translated

    def around(self, node: Node, *kinds: type[Node]) -> Node:
        """The innermost node of these kinds that encloses a node, itself included."""
        while not isinstance(node, kinds):
            node = self._around[id(node)]
        return node

    def _visit(self, node: Node) -> None:
        """Children first, as gqlparser's walker does."""
        for child in _children(node):
            self._around[id(child)] = node
            self._visit(child)
        self._turn[id(node)] = len(self._nodes)
        self._nodes.append(node)

    def _own(self, node: Node) -> Node:
        """The node of the document: of a list or an object graphql-core may name a copy."""
        if id(node) in self._turn:
            return node
        text = print_ast(node)
        alike = (one for one in self._nodes if one.kind == node.kind and print_ast(one) == text)
        return next(alike, self._nodes[-1])


def _children(node: Node) -> Iterator[Node]:
    for key in node.keys:
        value = getattr(node, key, None)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, list | tuple):
            yield from value


def _location(node: Node) -> dict[str, int]:
    """gqlparser's position of a node: a directive and a spread are at their name."""
    named = node.name if isinstance(node, DirectiveNode | FragmentSpreadNode) else node
    assert named.loc is not None  # noqa: S101 (documents are parsed with locations)
    place = get_location(named.loc.source, named.loc.start)
    return {"line": place.line, "column": place.column}


Place = Callable[[_Tree, list[Node]], Node]


def _first(_tree: _Tree, nodes: list[Node]) -> Node:
    return nodes[0]


def _last(_tree: _Tree, nodes: list[Node]) -> Node:
    return nodes[-1]


def _field(tree: _Tree, nodes: list[Node]) -> Node:
    return tree.around(nodes[0], FieldNode, DirectiveNode)


def _operation(tree: _Tree, nodes: list[Node]) -> Node:
    return tree.around(nodes[-1], OperationDefinitionNode, FragmentDefinitionNode)


def _conditioned(tree: _Tree, nodes: list[Node]) -> Node:
    return tree.around(nodes[0], VariableDefinitionNode, InlineFragmentNode, FragmentDefinitionNode)


# Quotes differ everywhere but around values. Besides: graphql-core's words, gqlparser's, the node whose
# position the error has, and (if another) the node at which gqlparser finds it.
_OF_VALUES = re.compile(r"^\w+ cannot represent ")
_QUOTED = re.compile(r"'([^']*)'")
_WORDS: tuple[tuple[Any, ...], ...] = tuple(
    (re.compile(pattern, re.DOTALL), *rest)
    for pattern, *rest in (
        (r'^(Unknown type ".*?"\.).*', r"\1", _conditioned),
        (r"^Unknown argument", r"\g<0>", _field),
        (r'^Argument "\w+\.(\w+)\((\w+):\)"', r'Field "\1" argument "\2"', _first),
        (r'^Argument "(@\w+)\((\w+):\)"', r'Directive "\1" argument "\2"', _first),
        (r'^(Field ".*" must not have a selection since type "\w+)[^"]*', r"\1", _field),
        (
            r"^Expected value of non-null type (.*) not to be None",
            r"Expected value of type \1, found null",
            _first,
        ),
        (r"^There can be only one operation", r"\g<0>", _operation),
        (r"^There can be only one ", r"\g<0>", _last),
        (r"^The directive .* can only be used once", r"\g<0>", _last),
        (r"^The (\w+) operation is not .*", r'Schema does not support operation type "\1"', _first),
        (r"^Variable .* is never used", r"\g<0>", _first, _operation),
        (r"^Variable .* used in position expecting", r"\g<0>", _last),
        (r"^Fields .* conflict because", r"\g<0>", _last),
    )
)


def _coerced(type_: GraphQLInputType, value: Any, path: Sequence[str | int]) -> Any:
    """A variable's value as its type wants it."""
    if value is None:
        if isinstance(type_, GraphQLNonNull):
            raise _wrong(path, "cannot be null")
        return None
    if isinstance(type_, GraphQLNonNull):
        return _coerced(type_.of_type, value, path)
    if isinstance(type_, GraphQLList):
        items = value if isinstance(value, list) else [value]
        return [_coerced(type_.of_type, item, [*path, place]) for place, item in enumerate(items)]
    if isinstance(type_, GraphQLInputObjectType):
        return _coerced_object(type_, value, path)
    if isinstance(type_, GraphQLEnumType):
        if not isinstance(value, str):
            raise _wrong(path, "enums must be ints or strings")
        if value not in type_.values:
            raise _wrong(path, f"{value} is not a valid {type_.name}")
        return value
    return _coerced_scalar(type_, value, path)


def _coerced_object(type_: GraphQLInputObjectType, value: Any, path: Sequence[str | int]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, f"must be a {type_.name}")
    for name in value:
        if name not in type_.fields:
            raise _wrong([*path, name], "unknown field")
    for name, one in type_.fields.items():
        if name not in value and isinstance(one.type, GraphQLNonNull):
            raise _wrong([*path, name], "must be defined")
    return {name: _coerced(type_.fields[name].type, item, [*path, name]) for name, item in value.items()}


def _coerced_scalar(type_: GraphQLScalarType, value: Any, path: Sequence[str | int]) -> Any:
    """A number is a text to Go's decoder, and so it is one wherever a text is wanted."""
    if type_.name in ("String", "ID") and isinstance(value, str):
        return str(value)
    if type_.name == "Boolean" and isinstance(value, bool):
        return value
    if type_.name == "Int" and isinstance(value, Number) and re.fullmatch(r"-?\d{1,10}", value):
        return int(value)
    if type_.name == "Float" and isinstance(value, Number):
        return float(value)
    if type_.name not in ("String", "ID", "Boolean", "Int", "Float"):
        return value
    go_kind = {"number": "string", "array": "slice", "object": "map"}.get(kind(value), kind(value))
    raise _wrong(path, f"cannot use {go_kind} as {type_.name}")


def _wrong(path: Sequence[str | int], message: str) -> Invalid:
    return Invalid("GRAPHQL_VALIDATION_FAILED", {"message": message, "path": list(path)})
