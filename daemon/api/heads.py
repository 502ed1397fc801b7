"""What a request's head must be, beyond what the parser asks for: one host, a path, a framing that all understand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Bytes of a head: its target, and the names and values of its headers.
MOST: Final = 16 * 1024

_VERSIONS: Final = frozenset({"1.0", "1.1"})


def require_sound(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise ``ValueError`` unless *target* is a path and *headers* (names in lower case) leave nothing in doubt."""
    if version not in _VERSIONS:
        raise ValueError(f"HTTP/{version} is not spoken here")
    if not target.startswith(b"/") or b"#" in target:
        raise ValueError("the target is no path")
    if len(target) + sum(len(name) + len(value) for name, value in headers) > MOST:
        raise ValueError(f"a head may have {MOST} bytes")
    names = [name for name, _ in headers]
    if (count := names.count(b"host")) > 1 or (not count and version == "1.1"):
        raise ValueError("one host is asked for, and no other")
    if b"transfer-encoding" in names:
        _require_chunks(headers)


def _require_chunks(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse encodings within the chunks, and chunks that the parser leaves alone: another protocol is asked for."""
    coded = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if coded != [b"chunked"] or any(name == b"upgrade" for name, _ in headers):
        raise ValueError("a body is sent as it is, or in chunks")
