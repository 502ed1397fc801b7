"""TOML that somebody wrote."""

from __future__ import annotations

import tomllib

import pytest

from jobs.toml import parse


def test_a_document_is_read() -> None:
    """As Python's own parser reads it."""
    assert parse('a = 1\n[b]\nc = ["d"]\n') == {"a": 1, "b": {"c": ["d"]}}


@pytest.mark.parametrize("text", ["a = ", "a = " + 5000 * "[", "a = " + 5000 * "{b=", 3000 * "[a."])
def test_whatever_is_wrong_is_one_error(text: str) -> None:
    """Also what makes Python's parser run out of stack: a stranger's file must not end a thread of ours."""
    with pytest.raises(tomllib.TOMLDecodeError):
        parse(text)
