"""Stop words, whatever pieces a text comes in."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from plugins.stop_words import StopWords

LETTERS = st.text(alphabet="ab漢é😀\n ", max_size=12)


def expected(text: str, words: list[str]) -> str:
    """Return *text* up to the word that is complete first, letter by letter."""
    for end in range(len(text) + 1):
        starts = [end - len(word) for word in words if text[:end].endswith(word)]
        if starts:
            return text[: min(starts)]
    return text


@given(text=LETTERS, words=st.lists(st.text(alphabet="ab漢é😀\n ", min_size=1, max_size=4), max_size=3), cuts=st.data())
@example(text="abcd", words=["abcd", "bc"], cuts=None)
def test_pieces_change_nothing(text, words, cuts):
    """The text ends before the first complete word, several words and letters of several bytes included."""
    places = [] if cuts is None else cuts.draw(st.lists(st.integers(0, len(text)), max_size=6))
    pieces = [text[begin:end] for begin, end in itertools.pairwise(sorted({0, len(text), *places}))]
    stops = StopWords(words)
    shown = "".join(stops.feed(piece) for piece in pieces)
    shown += "" if stops.met else stops.rest()
    assert shown == expected(text, words)
    assert stops.met == (expected(text, words) != text or any(text.endswith(word) for word in words))
