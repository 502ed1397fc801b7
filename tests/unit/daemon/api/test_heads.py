"""What a request's head must be."""

from __future__ import annotations

import pytest

from daemon.api.heads import MOST, require_sound

HOST = (b"host", b"m")


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", [HOST]),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked")]),
        ("1.1", [HOST, (b"upgrade", b"h2c"), (b"content-length", b"3")]),
        ("1.0", []),
    ],
)
def test_a_plain_head_passes(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """One host, or none where HTTP knew none; a body as it is or in chunks; another protocol may be asked for."""
    require_sound(version, b"/v1/jobs?limit=1", headers)


@pytest.mark.parametrize(
    ("version", "target", "headers"),
    [
        ("0.9", b"/", [HOST]),
        ("2.0", b"/", [HOST]),
        ("1.1", b"http://evil.example/v1/health", [HOST]),
        ("1.1", b"evil.example:443", [HOST]),
        ("1.1", b"*", [HOST]),
        ("1.1", b"", [HOST]),
        ("1.1", b"/v1/jobs#part", [HOST]),
        ("1.1", b"/", []),
        ("1.1", b"/", [HOST, HOST]),
        ("1.0", b"/", [HOST, HOST]),
        ("1.1", b"/", [HOST, (b"transfer-encoding", b"gzip, chunked")]),
        ("1.1", b"/", [HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")]),
        ("1.1", b"/", [HOST, (b"transfer-encoding", b"chunked"), (b"upgrade", b"h2c")]),
    ],
)
def test_what_leaves_a_doubt_is_refused(version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Other versions, targets that are no path, no host or two, encodings within the chunks."""
    with pytest.raises(ValueError, match=r"\w"):
        require_sound(version, target, headers)


def test_a_head_has_a_bound_however_it_is_filled() -> None:
    """One long target, one long value and many short headers are refused at the same size, and not below it."""
    full = MOST - len(b"hostm")
    require_sound("1.1", b"/" + b"x" * (full - 1), [HOST])
    for target, headers in (
        (b"/" + b"x" * full, [HOST]),
        (b"/", [HOST, (b"x", b"y" * (full - 1))]),
        (b"/", [HOST, *[(b"x", b"y")] * (full // 2 + 1)]),
    ):
        with pytest.raises(ValueError, match="bytes"):
            require_sound("1.1", target, headers)
