"""Ends a text at the first stop word, also when the word is split over pieces; the word itself is never let through."""

from __future__ import annotations

from collections.abc import Sequence


class StopWords:
    """Watches one text as it grows."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._words = [word for word in words if word]
        self._held = ""
        #: Whether a stop word was met: nothing more comes.
        self.met = False

    def feed(self, piece: str) -> str:
        """Take the next *piece* and return what can be shown for certain."""
        if self.met:
            return ""
        text = self._held + piece
        # The word that is complete first counts, as if the text came a letter at a time.
        found = [(at + len(word), at) for word in self._words if (at := text.find(word)) >= 0]
        if found:
            self.met, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((self._beginning(text, word) for word in self._words), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """Return what was held back, when nothing more will come."""
        rest, self._held = self._held, ""
        return rest

    @staticmethod
    def _beginning(text: str, word: str) -> int:
        """Return how many characters at the end of *text* begin *word*."""
        return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)
