"""The documents are true: tables as in the code, links that lead somewhere.

`python -m tests.test_docs` writes the tables anew.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from compass_sidecar.core.catalogue import Code, Event, Reason
from compass_sidecar.settings import describe
from tests.test_openapi import described

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def table(*rows: tuple[str, ...]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"| {' | '.join('---' for _ in rows[0])} |", *lines[1:]]) + "\n"


def variables() -> str:
    rows = [
        (f"`{row.name}`" + (f", `{row.name}_FILE`" if row.secret else ""), row.default, row.meaning)
        for row in describe()
        # The token's file has a row of its own, since it is looked at again and again.
        if row.name != "COMPASS_TOKEN_FILE"
    ]
    return table(("variable", "default", "meaning"), *rows)


def calls() -> str:
    return table(("call", "what it does", "answers"), *(_call(*each) for each in _operations()))


def _operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths = described()["paths"].items()
    return [(method.upper(), path, each) for path, item in paths for method, each in item.items()]


def _call(method: str, path: str, operation: dict[str, Any]) -> tuple[str, str, str]:
    told = operation.get("description") or operation["summary"]
    return f"`{method} {path}`", " ".join(told.split()), ", ".join(sorted(operation["responses"]))


def codes() -> str:
    rows = [
        (
            f"`{code}`",
            str(code.status) + (f" ({code.posted} for a POST)" if code.posted != code.status else ""),
            f"{code.words}.",
            code.remedy,
        )
        for code in Code
    ]
    return table(("code", "status", "meaning", "what to do"), *rows)


def reasons() -> str:
    rows = [
        (f"`{each}`", each.meaning, each.remedy + (f" [Runbook](#{each.runbook})" if each.runbook else ""))
        for each in Reason
    ]
    return table(("reason", "meaning", "what to do"), *rows)


def journal_events() -> str:
    return _events(each for each in Event if each.words)


def log_events() -> str:
    return _events(each for each in Event if not each.words)


def _events(events: Iterable[Event]) -> str:
    rows = [
        (f"`{each}`", each.level, each.meaning, ", ".join(f"`{name}`" for name in each.fields.split()))
        for each in events
    ]
    return table(("event", "level", "meaning", "fields"), *rows)


TABLES = {
    "variables": variables,
    "calls": calls,
    "codes": codes,
    "reasons": reasons,
    "journal_events": journal_events,
    "log_events": log_events,
}


def up_to_date(text: str) -> str:
    return _GENERATED.sub(lambda part: part[1] + TABLES[part[2]]() + part[3], text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_tables_are_as_the_code_says(page: Path) -> None:
    assert up_to_date(page.read_text()) == page.read_text(), "run: python -m tests.test_docs"


def test_every_table_stands_somewhere() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert {part[1] for part in _GENERATED.findall(text)} == set(TABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text()):
        other = (page.parent / target).resolve() if target else page
        assert other.exists(), target
        if anchor and other.suffix == ".md":
            assert anchor in headings(other), f"{target}#{anchor}"


def headings(page: Path) -> set[str]:
    """As anchors, in the way of GitHub."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"({name})" not in index} == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(up_to_date(each.read_text()))
