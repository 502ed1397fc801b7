"""What the tests of watched folders share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def memo(tmp_path: Path) -> Path:
    """A recording whose name has to be quoted."""
    path = tmp_path / "in" / "a b%ü.wav"
    path.parent.mkdir()
    path.write_bytes(b"audio")
    return path
