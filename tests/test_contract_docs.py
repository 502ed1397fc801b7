"""What the architecture page names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documents are not beside these tests")
def test_named_tests_exist() -> None:
    """Every test file and test that a guarantee points to is there."""
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(?:[\w/]*/)?(test_\w+\.py)(?:::(\w+))?`", PAGE.read_text(encoding="utf-8"))

    assert named
    for file, test in named:
        assert file in files, file
        assert not test or f"def {test}(" in files[file].read_text(encoding="utf-8"), f"{file}::{test}"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documents are not beside these tests")
def test_every_module_has_a_room() -> None:
    """Every module of jobs and launchd, and every folder and loose module of daemon, stands in the tables."""
    page = PAGE.read_text(encoding="utf-8")
    modules = [path.stem for room in ("jobs", "launchd") for path in (ROOT / room).glob("*.py")]
    rooms = [f"{path.name}/" for path in (ROOT / "daemon").iterdir() if (path / "__init__.py").is_file()]
    loose = [path.stem for path in (ROOT / "daemon").glob("*.py")]
    missing = [name for name in (*modules, *rooms, *loose) if not name.startswith("_") and f"`{name}" not in page]

    assert missing == []


def test_every_test_says_what_it_proves() -> None:
    """Each test function has a docstring."""
    silent = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        silent += [
            f"{path.name}: {match[1]}"
            for match in re.finditer(
                r'^ *(?:async )?def (test_\w+)\([^)]*\)(?: -> [^:]+)?:\n(?! *r?""")', text, re.MULTILINE
            )
        ]

    assert silent == []
