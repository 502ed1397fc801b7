"""File names that are safe to write."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.names import LONGEST, numbered, safe_name, shortened

# Text with everything that file systems and screens stumble over, far more often than chance would have it.
HOSTILE = st.text(st.one_of(st.characters(), st.sampled_from("/\\:.\0\n\r\t \u202e\u2028\ud800é\u0301")), max_size=400)


@given(HOSTILE)
def test_any_text_becomes_one_visible_component(name: str) -> None:
    """Whatever the text, the name is one encodable, composed, visible component of at most 255 bytes."""
    safe = safe_name(name)
    assert 1 <= len(safe.encode()) <= LONGEST
    assert not set(safe) & set("/\\:\0")
    assert not safe.startswith((".", " "))
    assert not safe.endswith((".", " "))
    assert safe == unicodedata.normalize("NFC", safe)
    assert not any(unicodedata.category(char) in {"Cc", "Cs"} for char in safe)


@given(HOSTILE)
def test_a_safe_name_is_left_alone(name: str) -> None:
    """Making a name safe twice changes nothing the second time: a replay finds its own file."""
    safe = safe_name(name)
    assert safe_name(safe) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("memo.txt", "memo.txt"),
        ("Cafe\u0301.txt", "Café.txt"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".hidden", "hidden"),
        ("..", "output"),
        ("", "output"),
        ("a\nb.txt", "a_b.txt"),
        ("harmless\u202etxt.exe", "harmlesstxt.exe"),
        ("12:30.md", "12_30.md"),
        ("日本語のメモ.srt", "日本語のメモ.srt"),
    ],
)
def test_known_names(name: str, safe: str) -> None:
    """Ordinary names stay, hostile ones become dull."""
    assert safe_name(name) == safe


def test_a_long_name_keeps_its_suffix() -> None:
    """Cutting a long name takes from the stem and never through the middle of a letter."""
    safe = safe_name("é" * 300 + ".txt")
    assert safe.endswith("é.txt")
    assert len(safe.encode()) in {LONGEST - 1, LONGEST}


def test_what_is_too_long_for_a_suffix_is_cut() -> None:
    """A dot early in a long name does not make the rest of it a suffix."""
    assert len(safe_name("a." + "b" * 400).encode()) == LONGEST


@given(HOSTILE, st.integers(1, 999))
def test_numbered_names_fit(name: str, number: int) -> None:
    """The n-th choice of a safe name fits too, and differs from the first."""
    safe = safe_name(name)
    choice = numbered(safe, number)
    assert len(choice.encode()) <= LONGEST
    assert (choice == safe) == (number == 1)


def test_numbers_go_before_the_suffix() -> None:
    """The second choice is named as people expect."""
    assert numbered("memo.txt", 2) == "memo (2).txt"
    assert numbered("memo", 3) == "memo (3)"


def test_shortening_leaves_no_trailing_dot() -> None:
    """A cut that ends on a dot or a space goes on until it does not."""
    assert shortened("abc. def", 5) == "abc"
    assert shortened("abc", -1) == ""
