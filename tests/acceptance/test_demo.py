"""`mlxd demo`, which is what `make demo` runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from daemon.demo import main

pytestmark = [pytest.mark.models, pytest.mark.timeout(180)]


def test_the_demo_does_all_it_promises() -> None:
    """The memo's transcript and action items are right, the prompt folder is complete and as expected, it stops."""
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mlxd-") as folder:
        assert main(keep=Path(folder), say=said.append) == 0
        memos = {path.name: path.read_text() for path in (Path(folder) / "inbox").glob("memo*.txt")}

    assert memos["memo.transcript.txt"].split() == memos["memo-again.transcript.txt"].split()
    assert memos["memo.actions.txt"].splitlines() == [
        "- Email Laura about the heating (Monday afternoon)",
        "- Lunch with Alice (Tuesday morning)",
        "- Buy rice and coffee",
    ]
    assert any("12 of 12 answered, 12 just as expected" in line for line in said), said
