"""Imports go one way, and each kind of input and output has its one place (house.md)."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
parser = import_module("re._parser")  # a private part, but for the public `sre_parse`, which is deprecated

SHARED_ADAPTERS = (
    "files",
    "ownership",
    "transport",
    "diagnosis",
    "anchors",
    "reader",
    "stderr",
    "tls",
    "worker",
)
# Which modules of ours a room may import; a package stands for all that is in it.
ROOMS: Mapping[str, frozenset[str]] = {
    "compass_sidecar": frozenset(),  # the version
    **{
        f"compass_sidecar.{room}": frozenset(f"compass_sidecar.{each}".removesuffix(".") for each in allowed)
        for room, allowed in {
            "errors": (),
            "core": ("errors", "core"),
            "settings": ("errors", "core"),
            "engine": ("errors", "core", "engine"),
            # Several adapters write files, speak HTTP or have threads: what they share is the exception.
            "adapters": ("", "errors", "core", *(f"adapters.{each}" for each in SHARED_ADAPTERS)),
            "api": ("", "errors", "core", "engine", "api"),
            "cli": ("", "errors", "core", "adapters", "settings", "cli", "__main__"),
            "main": ("", "errors", "core", "engine", "adapters", "settings", "api"),
            "__main__": ("", "errors", "core", "adapters", "settings", "cli", "main"),
        }.items()
    },
    "compass_emulator": frozenset({"compass_emulator"}),
}

# Rooms that need no library but cryptography, and of the standard library nothing that does something.
INNER = {"compass_sidecar.errors", "compass_sidecar.core", "compass_sidecar.engine"}
IMPURE = {"asyncio", "logging", "os", "random", "secrets", "shutil", "signal", "socket", "ssl"}
IMPURE |= {"subprocess", "tempfile", "threading", "time", "urllib.request", "http.client", "uuid"}

# Where alone these names may be used: by rooms.
PLACES: Mapping[str, frozenset[str]] = {
    "httpx": frozenset({"compass_sidecar.adapters"}),
    **{
        f"urllib.parse.{each}": frozenset({"compass_sidecar.core.url", "compass_sidecar.cli.address"})
        for each in ("urlsplit", "urlparse")
    },
    "httpx.URL": frozenset(),
    "fastapi": frozenset({"compass_sidecar.api", "compass_sidecar.main"}),
    # The health check is given 0.1 s, and the clock's asyncio would take half of that to import.
    "time": frozenset({"compass_sidecar.adapters.clock", "compass_sidecar.cli.healthcheck"}),
    "asyncio.sleep": frozenset({"compass_sidecar.adapters.clock"}),
    "datetime.datetime.now": frozenset({"compass_sidecar.adapters.clock"}),
    "datetime.datetime.utcnow": frozenset({"compass_sidecar.adapters.clock"}),
    "datetime.datetime.today": frozenset({"compass_sidecar.adapters.clock"}),
    "datetime.date.today": frozenset({"compass_sidecar.adapters.clock"}),
    "os.environ": frozenset({"compass_sidecar.__main__", "compass_sidecar.cli.commands"}),
    "os.environb": frozenset({"compass_sidecar.__main__", "compass_sidecar.cli.commands"}),
    "os.getenv": frozenset({"compass_sidecar.__main__", "compass_sidecar.cli.commands"}),
}


@dataclass(frozen=True)
class Use:
    """A name from elsewhere, in full, and the line where a module imports or uses it."""

    module: str
    line: int
    name: str
    imported: bool

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}: {'import of ' if self.imported else ''}{self.name}"


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files(folder: str, package: str) -> dict[str, Path]:
    """The modules below a folder of the repository, by the name that they are installed under."""
    found = sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py"))
    return {module_name(package / path.relative_to(folder)): path for path in found}


OURS = {**files("app", "compass_sidecar"), **files("emulator", "compass_emulator")}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def room_of(module: str) -> str | None:
    """The smallest room that a module is in; `app` is no room for what has not been given one."""
    rooms = [
        room
        for room in ROOMS
        if within(module, room) and (room != "compass_sidecar" or module == "compass_sidecar")
    ]
    return max(rooms, key=len, default=None)


def uses(module: str, source: str) -> Iterator[Use]:
    """Every import of a module, and every dotted name that begins with something imported."""
    tree, known = ast.parse(source), {}
    path = OURS.get(module)
    package = module if path is not None and path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        for alias, name in bindings(node, package):
            known[alias] = name
            yield Use(module, node.lineno, name, imported=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = dotted(node).partition(".")
            if first in known:
                yield Use(module, node.lineno, f"{known[first]}.{rest}", imported=False)


def bindings(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """(name here, full name) of what a statement or a call of `import_module` imports."""
    match node:
        case ast.Import(names=names):
            for each in names:
                yield (each.asname, each.name) if each.asname else (each.name.partition(".")[0], each.name)
        case ast.ImportFrom(module=source, names=names, level=level):
            above = ".".join(package.split(".")[: len(package.split(".")) - level + 1]) if level else ""
            origin = ".".join(filter(None, (above, source)))
            for each in names:
                yield each.asname or each.name, f"{origin}.{each.name}"
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if dotted(function).endswith(
            ("import_module", "__import__")
        ):
            yield "", name


def dotted(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value)}.{name}"
    return ""


def module_of(name: str) -> str:
    """Our module that a name is from: `compass_sidecar.core.policy` for its `decide`."""
    while name not in OURS and "." in name:
        name = name.rpartition(".")[0]
    return name


def against_the_arrows(module: str, source: str) -> list[str]:
    room = room_of(module)
    if room is None:
        return [f"{module}: has no room; give it one in ROOMS"]
    found = [use for use in uses(module, source) if use.imported and not may_import(room, use.name)]
    return [str(use) for use in found]


def may_import(room: str, name: str) -> bool:
    target = module_of(name)
    if within(target, "app") or within(target, "emulator"):
        return False  # the folder's name: the same modules once more
    if not within(target, "compass_sidecar") and not within(target, "compass_emulator"):
        return True
    return any(
        target == allowed if allowed == "compass_sidecar" else within(target, allowed)
        for allowed in ROOMS[room]
    )


def out_of_place(module: str, source: str) -> list[str]:
    if not within(module, "compass_sidecar"):
        return []
    return [
        str(use)
        for use in uses(module, source)
        for name, places in PLACES.items()
        if within(use.name, name) and not any(within(module, place) for place in places)
    ]


def not_inner(module: str, source: str) -> list[str]:
    room = room_of(module)
    if room not in INNER:
        return []
    pure = room != "compass_sidecar.engine"
    return [
        str(use)
        for use in uses(module, source)
        if use.imported
        and (is_library(use.name) or (pure and any(within(use.name, each) for each in IMPURE)))
    ]


def is_library(name: str) -> bool:
    return name.partition(".")[0] not in {
        *sys.stdlib_module_names,
        "compass_sidecar",
        "compass_emulator",
        "cryptography",
    }


def patterns(source: str) -> Iterator[str | bytes]:
    """The literals in what is handed to a function of `re`."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and dotted(call.func).startswith("re."):
            for node in ast.walk(call):
                if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                    yield node.value


def is_possessive(pattern: str | bytes) -> bool:
    """Whether it is a regular expression with a possessive quantifier or an atomic group."""
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    with suppress(re.error, OverflowError, RecursionError):
        return any(name in str(parser.parse(text).data) for name in ("POSSESSIVE_REPEAT", "ATOMIC_GROUP"))
    return False


RULES = {rule.__name__: rule for rule in (against_the_arrows, out_of_place, not_inner)}


# --- the house as it is


def test_there_is_a_house_to_look_at() -> None:
    assert {
        "compass_sidecar",
        "compass_sidecar.errors",
        "compass_sidecar.core.policy",
        "compass_sidecar.adapters.clock",
        "compass_emulator",
    } <= OURS.keys()
    assert ROOMS.keys() <= OURS.keys()


@pytest.mark.parametrize("rule", RULES)
def test_no_module_breaks_the_rule(rule: str) -> None:
    broken = [
        f"{path}: {violation}"
        for module, path in OURS.items()
        for violation in RULES[rule](module, (ROOT / path).read_text())
    ]
    assert broken == []


def test_no_test_mocks() -> None:
    mocks = [
        f"{path}: {use}"
        for module, path in files("tests", "tests").items()
        for use in uses(module, (ROOT / path).read_text())
        if use.imported and any(within(use.name, each) for each in ("unittest.mock", "mock", "pytest_mock"))
    ]
    assert mocks == []


def test_no_pattern_has_what_cpython_before_3_11_5_matches_wrongly() -> None:
    found = [
        f"{path}: {pattern!r}"
        for folder, package in (
            ("app", "compass_sidecar"),
            ("emulator", "compass_emulator"),
            ("tests", "tests"),
        )
        for path in files(folder, Path(package)).values()
        for pattern in patterns((ROOT / path).read_text())
        if is_possessive(pattern)
    ]
    assert found == []


# --- the rules themselves


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("compass_sidecar.errors", "from compass_sidecar.core import csr", "compass_sidecar.core.csr"),
        (
            "compass_sidecar.core.chain",
            "from compass_sidecar.engine.renewal import Renewal",
            "compass_sidecar.engine.renewal.Renewal",
        ),
        ("compass_sidecar.core.chain", "import compass_sidecar.settings", "compass_sidecar.settings"),
        (
            "compass_sidecar.core.chain",
            "from compass_sidecar import __version__",
            "compass_sidecar.__version__",
        ),
        (
            "compass_sidecar.core.chain",
            "def late():\n    from compass_sidecar.main import run",
            "compass_sidecar.main.run",
        ),
        ("compass_sidecar.core.chain", "from ..adapters import clock", "compass_sidecar.adapters.clock"),
        (
            "compass_sidecar.adapters.filestore",
            "from compass_sidecar.settings import Settings",
            "compass_sidecar.settings.Settings",
        ),
        (
            "compass_sidecar.adapters.filestore",
            "from compass_sidecar.adapters.connector import Connector",
            "compass_sidecar.adapters.connector.Connector",
        ),
        (
            "compass_sidecar.adapters.filestore",
            "from . import connector",
            "compass_sidecar.adapters.connector",
        ),
        (
            "compass_sidecar.adapters.filestore",
            "from compass_sidecar.engine.renewal import Store",
            "compass_sidecar.engine.renewal.Store",
        ),
        (
            "compass_sidecar.engine.renewal",
            "from compass_sidecar.adapters.clock import Clock",
            "compass_sidecar.adapters.clock.Clock",
        ),
        (
            "compass_sidecar.engine.sidecar",
            "from compass_sidecar.api.guard import Access",
            "compass_sidecar.api.guard.Access",
        ),
        (
            "compass_sidecar.settings",
            "from compass_sidecar.adapters import files",
            "compass_sidecar.adapters.files",
        ),
        (
            "compass_sidecar.api.guard",
            "from compass_sidecar.adapters.clock import Clock",
            "compass_sidecar.adapters.clock.Clock",
        ),
        (
            "compass_sidecar.api.guard",
            "from compass_sidecar.settings import Settings",
            "compass_sidecar.settings.Settings",
        ),
        ("compass_sidecar.main", "import compass_emulator.connector", "compass_emulator.connector"),
        ("compass_sidecar.core.chain", "__import__('compass_emulator')", "compass_emulator"),
        (
            "compass_emulator.connector",
            "from compass_sidecar.core.chain import order",
            "compass_sidecar.core.chain.order",
        ),
        (
            "compass_emulator.connector",
            "import importlib\nimportlib.import_module('compass_sidecar.core')",
            "compass_sidecar.core",
        ),
    ],
)
def test_an_import_against_the_arrows_is_named(module: str, source: str, name: str) -> None:
    line = source.count("\n") + 1
    assert against_the_arrows(module, source) == [f"{module}, line {line}: import of {name}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "compass_sidecar.core.chain",
            "from compass_sidecar.errors import KeyMismatch\nfrom .csr import attributes",
        ),
        (
            "compass_sidecar.adapters.filestore",
            "from compass_sidecar.adapters import files\nfrom compass_sidecar import __version__",
        ),
        ("compass_sidecar.adapters.connector", "from compass_sidecar.adapters.transport import Transport"),
        ("compass_sidecar.api.schemas", "from compass_sidecar.engine.renewal import Renewed"),
        (
            "compass_sidecar.api.guard",
            "from compass_sidecar.engine.renewal import Renewed\nfrom .guard import Access",
        ),
        (
            "compass_sidecar.main",
            "from compass_sidecar.settings import Settings\nfrom compass_sidecar.adapters.clock import Clock",
        ),
        ("compass_sidecar.cli.commands", "from compass_sidecar.adapters.local import Local"),
        ("compass_emulator.connector", "from compass_emulator.registry import Registry"),
        ("compass_sidecar.core.chain", "import application, appdirs"),
    ],
)
def test_an_import_along_the_arrows_is_none(module: str, source: str) -> None:
    assert against_the_arrows(module, source) == []


@pytest.mark.parametrize(
    "pattern", ["a*+", "(?:a|b)++c", b"[ab]?+", "a{2,}+", "x(?>a|b)", r"(?:[^-]|-(?!--))*+-"]
)
def test_a_possessive_pattern_is_found(pattern: str | bytes) -> None:
    assert list(patterns(f"P = re.compile({pattern!r})")) == [pattern]
    assert is_possessive(pattern)


@pytest.mark.parametrize("pattern", ["a*", r"\*+", "[*+]+", "(?:a+)+", "a*?", "(a+", "*+", r"a\++"])
def test_another_pattern_is_not_possessive(pattern: str) -> None:
    assert not is_possessive(pattern)


def test_a_module_without_a_room_is_named() -> None:
    assert against_the_arrows("compass_sidecar.utils", "") == [
        "compass_sidecar.utils: has no room; give it one in ROOMS"
    ]


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("compass_sidecar.engine.renewal", "import httpx", "import of httpx"),
        ("compass_sidecar.cli.commands", "from httpx import get", "import of httpx.get"),
        ("compass_sidecar.engine.renewal", "from asyncio import sleep", "import of asyncio.sleep"),
        ("compass_sidecar.engine.renewal", "import time", "import of time"),
        ("compass_sidecar.engine.renewal", "from time import monotonic as now", "import of time.monotonic"),
        (
            "compass_sidecar.adapters.filestore",
            "from datetime import datetime\ndatetime.now()",
            "datetime.datetime.now",
        ),
        (
            "compass_sidecar.adapters.filestore",
            "import datetime as d\nd.datetime.utcnow()",
            "datetime.datetime.utcnow",
        ),
        (
            "compass_sidecar.adapters.filestore",
            "from datetime import date as D\nD.today",
            "datetime.date.today",
        ),
        ("compass_sidecar.adapters.filestore", "import asyncio\nasyncio.sleep(1)", "asyncio.sleep"),
        ("compass_sidecar.main", "import asyncio as a\na.sleep(1)", "asyncio.sleep"),
        ("compass_sidecar.main", "import os\nos.environ['X']", "os.environ"),
        ("compass_sidecar.adapters.local", "import os\nos.environ.get('X')", "os.environ"),
        ("compass_sidecar.settings", "from os import getenv", "import of os.getenv"),
    ],
)
def test_a_name_out_of_its_place_is_named(module: str, source: str, name: str) -> None:
    found = out_of_place(module, source)
    assert found
    assert all(each.startswith(f"{module}, line {source.count(chr(10)) + 1}: {name}") for each in found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("compass_sidecar.adapters.clock", "import time, asyncio\ntime.monotonic()\nasyncio.sleep(1)"),
        ("compass_sidecar.adapters.clock", "from datetime import datetime\ndatetime.now()"),
        ("compass_sidecar.adapters.local", "import httpx\nhttpx.get('x')"),
        ("compass_sidecar.api.guard", "from fastapi import Request"),
        ("compass_sidecar.cli.commands", "import os\nos.environ"),
        (
            "compass_sidecar.engine.renewal",
            "from datetime import datetime\ndatetime.fromisoformat('x')\nclock.now()\nself.time.now()",
        ),
        ("compass_sidecar.engine.renewal", "import asyncio\nasyncio.to_thread(print)"),
        ("compass_emulator.clock", "import time\ntime.time()"),
    ],
)
def test_a_name_in_its_place_is_none(module: str, source: str) -> None:
    assert out_of_place(module, source) == []


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("compass_sidecar.core.chain", "from pydantic import BaseModel", "pydantic.BaseModel"),
        ("compass_sidecar.engine.renewal", "import structlog", "structlog"),
        ("compass_sidecar.core.chain", "import random", "random"),
        ("compass_sidecar.core.chain", "import os.path", "os.path"),
        ("compass_sidecar.core.chain", "from urllib.request import urlopen", "urllib.request.urlopen"),
        ("compass_sidecar.errors", "import logging", "logging"),
    ],
)
def test_what_makes_the_inside_impure_is_named(module: str, source: str, name: str) -> None:
    assert not_inner(module, source) == [f"{module}, line 1: import of {name}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "compass_sidecar.core.chain",
            "import json\nfrom cryptography import x509\nfrom urllib.parse import urlsplit",
        ),
        ("compass_sidecar.engine.renewal", "import asyncio\nfrom cryptography import x509"),
        ("compass_sidecar.settings", "import pydantic"),
        ("compass_sidecar.adapters.logs", "import structlog, random"),
    ],
)
def test_what_the_inside_may_use_is_none(module: str, source: str) -> None:
    assert not_inner(module, source) == []
