"""The names of uvicorn and cryptography that are used here although no promise covers them.

A new version may change them. So both have an upper bound in pyproject.toml, and a new bound starts here.
"""

import ast
import importlib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROTOCOL = "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol"
CYCLE = "uvicorn.protocols.http.httptools_impl.RequestResponseCycle"
FLOW = "uvicorn.protocols.http.flow_control.FlowControl"
SERVER, STATE = "uvicorn.server.Server", "uvicorn.server.ServerState"
ASN1 = "cryptography.hazmat.asn1"  # "not yet subject to our backwards compatibility policy"
NAME_TYPE = "cryptography.x509.name._ASN1Type"

# What an expression in a class of ours is of theirs.
OBJECTS = {
    ("app/api/connection.py", "Connection"): {
        "self": PROTOCOL,
        "super()": PROTOCOL,
        "self.cycle": CYCLE,
        "self._running": CYCLE,
        "self.flow": FLOW,
        "self.server_state": STATE,
    },
    ("app/api/server.py", "_Server"): {"self": SERVER, "super()": SERVER, "self.server_state": STATE},
}
USED = {
    PROTOCOL: """__init__ _start_asgi_task _unset_keepalive_if_required app app_state connection_lost
        connection_made cycle data_received eof_received flow headers loop on_body on_header
        on_headers_complete on_message_begin on_message_complete on_response_complete
        parser pause_writing pipeline resume_writing scope server server_state timeout_keep_alive_handler
        timeout_keep_alive_task transport url""",
    CYCLE: "body disconnected message_event response_complete response_started scope",
    FLOW: "pause_reading resume_reading write_paused",
    SERVER: """__init__ capture_signals config handle_exit main_loop on_tick server_state servers shutdown
        started startup""",
    STATE: "connections default_headers",
    NAME_TYPE: "UTF8String",
    ASN1: "BitString Explicit Implicit SetOf TLV decode_der encode_der sequence",
}
# Modules of theirs with an API that is promised.
DOCUMENTED = re.compile(r"uvicorn|cryptography\.(exceptions|x509|hazmat\.primitives)(\.[A-Za-z]\w*)*")


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "app").rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def names_of(name: str) -> set[str]:
    """What a class or module of theirs has: methods, and attributes that are set."""
    if name == ASN1:
        return set(importlib.import_module(name).__all__)
    module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module), last)
    tree = ast.parse(textwrap.dedent(inspect.getsource(found)))
    methods = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return methods | set(vars(found)) | {node.attr for node in stored if isinstance(node.ctx, ast.Store)}


def used() -> dict[str, set[str]]:
    """What we use of each: attributes read or set, and methods replaced."""
    found: dict[str, set[str]] = {name: set() for name in USED}
    for path, tree in trees():
        for node in ast.walk(tree):
            match node:
                case ast.ClassDef(name=name) if objects := OBJECTS.get((path, name)):
                    own = {each.name for each in node.body if hasattr(each, "name")}
                    found[objects["self"]] |= own & names_of(objects["self"])
                    for each in ast.walk(node):
                        if isinstance(each, ast.Attribute) and (
                            theirs := objects.get(ast.unparse(each.value))
                        ):
                            found[theirs] |= {each.attr} & names_of(theirs)
                case ast.Attribute(value=ast.Name(id="asn1"), attr=name):
                    found[ASN1].add(name)
                case ast.Attribute(value=ast.Name(id="_ASN1Type"), attr=name):
                    found[NAME_TYPE].add(name)
    return found


def test_the_private_names_are_those_that_are_listed() -> None:
    assert used() == {name: set(names.split()) for name, names in USED.items()}


@pytest.mark.parametrize("name", USED)
def test_every_listed_name_is_there(name: str) -> None:
    assert set(USED[name].split()) - names_of(name) == set()


def test_no_other_module_or_name_of_them_is_private() -> None:
    """Private attributes are ruff's affair (SLF001)."""
    imported = {
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    theirs = {name for name in imported if name.startswith(("uvicorn", "cryptography"))}
    assert {name for name in theirs if not DOCUMENTED.fullmatch(name)} == {PROTOCOL, ASN1, NAME_TYPE}


@pytest.mark.parametrize("library", ["uvicorn", "cryptography", "httptools"])
def test_the_versions_have_an_upper_bound_that_the_installed_one_keeps(library: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = [each for each in project["dependencies"] if re.match(rf"{library}\b", each)]
    bounds = re.fullmatch(rf"{library}>=([0-9.]+),<([0-9.]+)", line)
    assert bounds is not None, line
    low, high = (tuple(map(int, bound.split("."))) for bound in bounds.groups())
    for lock in ("requirements.lock", "requirements-dev.lock", "requirements-emulator.lock"):
        pinned = re.search(rf"^{library}==([0-9.]+)", (ROOT / lock).read_text(), re.MULTILINE)
        assert pinned is not None
        assert low <= tuple(map(int, pinned[1].split("."))) < high
    assert low <= tuple(map(int, version(library).split("."))) < high
