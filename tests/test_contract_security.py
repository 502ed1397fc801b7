"""The threat model names tests and rows that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "SECURITY.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documents are not beside these tests")
def test_every_defence_names_a_test_that_exists() -> None:
    """Each line of the table has a test or a row of the campaign, and it is there."""
    tests = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    rows = {path.stem for path in (ROOT / "tests" / "torture" / "rows").glob("*.py")}
    lines = re.findall(r"^\| (?!defence|---)(.+?) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 10
    for defence, named in lines:
        found = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", named)
        campaign = re.findall(r"row `(\w+)`", named)
        assert found or campaign, defence
        assert set(campaign) <= rows, defence
        for file, test in found:
            assert file in tests, file
            assert not test or f"def {test}(" in tests[file], f"{file}::{test}"
