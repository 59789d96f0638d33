"""Imports go one way, and each kind of input and output has its one place (house.md)."""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Which modules of ours a room may import; a package stands for all that is in it. `app` is the version.
ROOMS: Mapping[str, frozenset[str]] = {
    "app": frozenset(),
    "app.errors": frozenset(),
    "app.core": frozenset({"app.errors", "app.core"}),
    "app.settings": frozenset({"app.errors", "app.core"}),
    # Two adapters write files and two speak HTTP: what they share is the exception to "never each other".
    "app.adapters": frozenset(
        {"app", "app.errors", "app.core", "app.adapters.files", "app.adapters.transport"}
    ),
    "app.events": frozenset(),
    "app.connector_clock": frozenset(),
    "app.inputs": frozenset({"app.errors", "app.core"}),
    "app.renewal": frozenset({"app.errors", "app.core"}),
    "app.attempts": frozenset({"app.errors", "app.core", "app.renewal"}),
    "app.scheduler": frozenset(
        {"app.errors", "app.core", "app.renewal", "app.attempts", "app.connector_clock"}
    ),
    "app.api": frozenset({"app", "app.errors", "app.core", "app.scheduler", "app.api"}),
    "app.api.ports": frozenset({"app.errors", "app.core", "app.renewal"}),
    "app.server": frozenset({"app.errors", "app.api"}),
    "app.main": frozenset({"app"}),
    "app.check": frozenset({"app"}),
    "app.findings": frozenset({"app.adapters.files", "app.adapters.store"}),
    # The commands speak to a sidecar through one adapter, and write what they are told to through another.
    "app.address": frozenset(),
    "app.healthcheck": frozenset({"app.address", "app.core.duration"}),
    "app.asking": frozenset(
        {"app.errors", "app.address", "app.core.duration", "app.adapters.local", "app.adapters.files"}
    ),
    "app.display": frozenset({"app.core.duration", "app.core.words"}),
    "app.cli": frozenset(
        {
            *("app", "app.errors", "app.__main__", "app.asking", "app.display", "app.healthcheck"),
            *("app.check", "app.findings"),
            *("app.adapters.local", "app.adapters.files", "app.adapters.clock"),
        }
    ),
    "app.__main__": frozenset(
        {"app", "app.errors", "app.cli", "app.healthcheck", "app.main", "app.settings", "app.adapters.logs"}
    ),
    "emulator": frozenset({"emulator"}),
}
# Those that see everything: what serves, and what examines a configuration without serving.
COMPOSITION_ROOTS = {"app.main", "app.check"}

# Rooms that need no library but cryptography, and of the standard library nothing that does something.
INNER = {"app.errors", "app.core", "app.events", "app.connector_clock"}
INNER |= {"app.inputs", "app.renewal", "app.attempts", "app.scheduler"}
IMPURE = {"asyncio", "logging", "os", "random", "secrets", "shutil", "signal", "socket", "ssl"}
IMPURE |= {"subprocess", "tempfile", "threading", "time", "urllib.request", "http.client", "uuid"}

# Where alone these names may be used: by rooms.
PLACES: Mapping[str, frozenset[str]] = {
    "httpx": frozenset({"app.adapters"}),
    "fastapi": frozenset({"app.api", "app.main"}),
    # The health check is given 0.1 s, and the clock's asyncio would take half of that to import.
    "time": frozenset({"app.adapters.clock", "app.healthcheck"}),
    "asyncio.sleep": frozenset({"app.adapters.clock"}),
    "datetime.datetime.now": frozenset({"app.adapters.clock"}),
    "datetime.datetime.utcnow": frozenset({"app.adapters.clock"}),
    "datetime.datetime.today": frozenset({"app.adapters.clock"}),
    "datetime.date.today": frozenset({"app.adapters.clock"}),
    "os.environ": frozenset({"app.__main__", "app.cli"}),
    "os.environb": frozenset({"app.__main__", "app.cli"}),
    "os.getenv": frozenset({"app.__main__", "app.cli"}),
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


def files(folder: str) -> dict[str, Path]:
    """The modules below a folder of the repository, by name."""
    found = sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py"))
    return {module_name(path): path for path in found}


OURS = {**files("app"), **files("emulator")}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def room_of(module: str) -> str | None:
    """The smallest room that a module is in; `app` is no room for what has not been given one."""
    rooms = [room for room in ROOMS if within(module, room) and (room != "app" or module == "app")]
    return max(rooms, key=len, default=None)


def uses(module: str, source: str) -> Iterator[Use]:
    """Every import of a module, and every dotted name that begins with something imported."""
    tree, known = ast.parse(source), {}
    package = (
        module if (ROOT / Path(*module.split(".")) / "__init__.py").exists() else module.rpartition(".")[0]
    )
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
    """Our module that a name is from: `app.core.policy` for `app.core.policy.decide`."""
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
    if not within(target, "app") and not within(target, "emulator"):
        return True
    if room in COMPOSITION_ROOTS:
        return within(target, "app")
    return any(target == allowed if allowed == "app" else within(target, allowed) for allowed in ROOMS[room])


def out_of_place(module: str, source: str) -> list[str]:
    if not within(module, "app"):
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
    pure = room in {"app.errors", "app.core"}
    return [
        str(use)
        for use in uses(module, source)
        if use.imported
        and (is_library(use.name) or (pure and any(within(use.name, each) for each in IMPURE)))
    ]


def is_library(name: str) -> bool:
    return name.partition(".")[0] not in {*sys.stdlib_module_names, "app", "emulator", "cryptography"}


RULES = {rule.__name__: rule for rule in (against_the_arrows, out_of_place, not_inner)}


# --- the house as it is


def test_there_is_a_house_to_look_at() -> None:
    assert {"app", "app.errors", "app.core.policy", "app.adapters.clock", "emulator"} <= OURS.keys()
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
        for module, path in files("tests").items()
        for use in uses(module, (ROOT / path).read_text())
        if use.imported and any(within(use.name, each) for each in ("unittest.mock", "mock", "pytest_mock"))
    ]
    assert mocks == []


# --- the rules themselves


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("app.errors", "from app.core import csr", "app.core.csr"),
        ("app.core.chain", "from app.renewal import Renewal", "app.renewal.Renewal"),
        ("app.core.chain", "import app.settings", "app.settings"),
        ("app.core.chain", "from app import __version__", "app.__version__"),
        ("app.core.chain", "def late():\n    from app.main import run", "app.main.run"),
        ("app.core.chain", "from ..adapters import clock", "app.adapters.clock"),
        ("app.adapters.store", "from app.settings import Settings", "app.settings.Settings"),
        (
            "app.adapters.store",
            "from app.adapters.connector import Connector",
            "app.adapters.connector.Connector",
        ),
        ("app.adapters.store", "from . import connector", "app.adapters.connector"),
        ("app.adapters.store", "from app.renewal import Store", "app.renewal.Store"),
        ("app.renewal", "from app.adapters.clock import Clock", "app.adapters.clock.Clock"),
        ("app.renewal", "from app.scheduler import Scheduler", "app.scheduler.Scheduler"),
        ("app.attempts", "from app.scheduler import Scheduler", "app.scheduler.Scheduler"),
        ("app.scheduler", "from app.api.ports import Sidecar", "app.api.ports.Sidecar"),
        ("app.inputs", "from app.adapters import files", "app.adapters.files"),
        ("app.settings", "from app.adapters import files", "app.adapters.files"),
        ("app.api.guard", "from app.adapters.clock import Clock", "app.adapters.clock.Clock"),
        ("app.api.guard", "from app.renewal import Renewed", "app.renewal.Renewed"),
        ("app.api.guard", "from app.settings import Settings", "app.settings.Settings"),
        ("app.cli", "from app.settings import Settings", "app.settings.Settings"),
        ("app.main", "import emulator.connector", "emulator.connector"),
        ("app.core.chain", "__import__('emulator')", "emulator"),
        ("emulator.connector", "from app.core.chain import order", "app.core.chain.order"),
        ("emulator.connector", "import importlib\nimportlib.import_module('app.core')", "app.core"),
    ],
)
def test_an_import_against_the_arrows_is_named(module: str, source: str, name: str) -> None:
    line = source.count("\n") + 1
    assert against_the_arrows(module, source) == [f"{module}, line {line}: import of {name}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.core.chain", "from app.errors import KeyMismatch\nfrom app.core.csr import same_subject"),
        ("app.adapters.store", "from app.adapters import files\nfrom app import __version__"),
        ("app.adapters.connector", "from app.adapters.transport import Transport"),
        ("app.api.ports", "from app.renewal import Renewed"),
        ("app.api.guard", "from app.api.ports import Renewed\nfrom .access import Access"),
        ("app.main", "from app.settings import Settings\nfrom app.adapters.clock import Clock"),
        ("app.cli", "from app.adapters.local import Local"),
        ("emulator.connector", "from emulator.registry import Registry"),
        ("app.core.chain", "import application, appdirs"),
    ],
)
def test_an_import_along_the_arrows_is_none(module: str, source: str) -> None:
    assert against_the_arrows(module, source) == []


def test_a_module_without_a_room_is_named() -> None:
    assert against_the_arrows("app.utils", "") == ["app.utils: has no room; give it one in ROOMS"]


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("app.renewal", "import httpx", "import of httpx"),
        ("app.cli", "from httpx import get", "import of httpx.get"),
        ("app.server", "from fastapi.responses import Response", "import of fastapi.responses.Response"),
        ("app.renewal", "from asyncio import sleep", "import of asyncio.sleep"),
        ("app.renewal", "import time", "import of time"),
        ("app.renewal", "from time import monotonic as now", "import of time.monotonic"),
        ("app.adapters.store", "from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("app.adapters.store", "import datetime as d\nd.datetime.utcnow()", "datetime.datetime.utcnow"),
        ("app.adapters.store", "from datetime import date as D\nD.today", "datetime.date.today"),
        ("app.adapters.store", "import asyncio\nasyncio.sleep(1)", "asyncio.sleep"),
        ("app.main", "import asyncio as a\na.sleep(1)", "asyncio.sleep"),
        ("app.main", "import os\nos.environ['X']", "os.environ"),
        ("app.adapters.local", "import os\nos.environ.get('X')", "os.environ"),
        ("app.settings", "from os import getenv", "import of os.getenv"),
    ],
)
def test_a_name_out_of_its_place_is_named(module: str, source: str, name: str) -> None:
    found = out_of_place(module, source)
    assert found
    assert all(each.startswith(f"{module}, line {source.count(chr(10)) + 1}: {name}") for each in found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.adapters.clock", "import time, asyncio\ntime.monotonic()\nasyncio.sleep(1)"),
        ("app.adapters.clock", "from datetime import datetime\ndatetime.now()"),
        ("app.adapters.local", "import httpx\nhttpx.get('x')"),
        ("app.api.guard", "from fastapi import Request"),
        ("app.cli", "import os\nos.environ"),
        (
            "app.renewal",
            "from datetime import datetime\ndatetime.fromisoformat('x')\nclock.now()\nself.time.now()",
        ),
        ("app.renewal", "import asyncio\nasyncio.to_thread(print)"),
        ("emulator.clock", "import time\ntime.time()"),
    ],
)
def test_a_name_in_its_place_is_none(module: str, source: str) -> None:
    assert out_of_place(module, source) == []


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("app.core.chain", "from pydantic import BaseModel", "pydantic.BaseModel"),
        ("app.renewal", "import structlog", "structlog"),
        ("app.core.chain", "import random", "random"),
        ("app.core.chain", "import os.path", "os.path"),
        ("app.core.chain", "from urllib.request import urlopen", "urllib.request.urlopen"),
        ("app.errors", "import logging", "logging"),
    ],
)
def test_what_makes_the_inside_impure_is_named(module: str, source: str, name: str) -> None:
    assert not_inner(module, source) == [f"{module}, line 1: import of {name}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.core.chain", "import json\nfrom cryptography import x509\nfrom urllib.parse import urlsplit"),
        ("app.renewal", "import asyncio\nfrom cryptography import x509"),
        ("app.settings", "import pydantic"),
        ("app.adapters.logs", "import structlog, random"),
    ],
)
def test_what_the_inside_may_use_is_none(module: str, source: str) -> None:
    assert not_inner(module, source) == []
