"""The served API against its own description; the short form of `make conformance`."""

from pathlib import Path

from tests.conformance import run


def test_every_answer_is_one_that_is_described(tmp_path: Path) -> None:
    result, count = run(tmp_path, cases=8, seed=7)
    assert "No issues found" in result, result
    assert count > 8, result
