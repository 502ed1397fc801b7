"""The deterministic plugin without MLX: its source, and what it has to give for a key."""

from __future__ import annotations

from pathlib import Path

from torture.stub_plugin import expected, expected_output

__all__ = ["STUB", "expected", "expected_output"]

#: The source of the plugin, for a home's plugin folder.
STUB = Path(__file__).with_name("stub_plugin.py").read_text(encoding="utf-8")
