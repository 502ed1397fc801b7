"""What a target is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

CORPUS = Path(__file__).parent / "corpus"


class Target(NamedTuple):
    """One reader of strange bytes."""

    name: str
    #: Feeds bytes to a subject, and raises whatever is wrong (`AssertionError`, or what the subject must not raise).
    check: Callable[[bytes, Any], None]
    #: The reader as it ships.
    subject: Any
    #: Each planted bug by its name: a subject that has it.
    planted: Mapping[str, Any]

    def seeds(self) -> list[bytes]:
        """Return the corpus."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]
