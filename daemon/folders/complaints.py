"""What stands in a watched folder's way, gathered into one sentence for people."""

from __future__ import annotations

from typing import NamedTuple


class _Tried(NamedTuple):
    sentence: str
    #: The look at which it was last found so.
    look: int


class Complaints:
    """Everything that is wrong with one folder at the moment."""

    def __init__(self) -> None:
        self._look = 0
        #: About the folder as a whole; each at most once.
        self._general: dict[str, None] = {}
        #: About sub-folders: relative path -> sentence.
        self._places: dict[str, str] = {}
        #: About files and rules, known only some time after a look began: file or rule -> what came of the last try.
        self._tried: dict[str, _Tried] = {}
        self._in_cloud: set[str] = set()

    def renew(self) -> None:
        """Begin a new look: what it finds counts.

        What is said of files and rules stays until they were tried again, lest the folder looks well in between.
        """
        self._general.clear()
        self._places.clear()
        self._in_cloud.clear()
        self._tried = {key: tried for key, tried in self._tried.items() if tried.look == self._look}
        self._look += 1

    def add(self, sentence: str) -> None:
        """Note what is wrong with the folder as a whole."""
        self._general[sentence] = None

    def at(self, relative: str, sentence: str) -> None:
        """Note what is wrong with a sub-folder."""
        self._places[relative] = sentence

    def tried(self, key: str, sentence: str) -> None:
        """Note what came of trying a file, by its relative path, or of a rule, by its name."""
        self._tried[key] = _Tried(sentence, self._look)

    def in_cloud(self, relative: str) -> None:
        """Note that a file's content has not been downloaded."""
        self._in_cloud.add(relative)

    @property
    def cloud_pending(self) -> int:
        """Return how many files are still in a cloud."""
        return len(self._in_cloud)

    def settled(self, *keys: str) -> None:
        """Forget what was said of a file or a rule."""
        for key in keys:
            self._tried.pop(key, None)
            self._in_cloud.discard(key)

    def text(self) -> str | None:
        """Return all of it as one line, None if nothing is wrong."""
        parts = list(self._general)
        single = [*self._places.values(), *dict.fromkeys(tried.sentence for tried in self._tried.values())]
        if single:
            more = len(single) - 1
            parts.append(f"{single[0]} (and {more} more)" if more else single[0])
        if self._in_cloud:
            count = len(self._in_cloud)
            files = "1 file is" if count == 1 else f"{count} files are"
            parts.append(f"{files} still in the cloud; taken when downloaded")
        return _printable("; ".join(parts)) or None


def _printable(text: str) -> str:
    """Return *text* as one line without what moves a cursor or no UTF-8 can hold: file names may hold anything."""
    return "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
