"""What stands in a watched folder's way, gathered into one sentence for people."""

from __future__ import annotations


class Complaints:
    """Everything that is wrong with one folder at the moment."""

    def __init__(self) -> None:
        #: About the folder as a whole; each at most once.
        self._general: dict[str, None] = {}
        #: About single files and sub-folders: relative path -> sentence.
        self._single: dict[str, str] = {}
        self._in_cloud: set[str] = set()

    def clear(self) -> None:
        """Forget everything: a new look begins."""
        self._general.clear()
        self._single.clear()
        self._in_cloud.clear()

    def add(self, sentence: str) -> None:
        """Note what is wrong with the folder as a whole."""
        self._general[sentence] = None

    def about(self, relative: str, sentence: str) -> None:
        """Note what is wrong with one file or sub-folder."""
        self._single[relative] = sentence

    def in_cloud(self, relative: str) -> None:
        """Note that a file's content has not been downloaded."""
        self._in_cloud.add(relative)

    def settled(self, relative: str) -> None:
        """Forget what was said of one file."""
        self._single.pop(relative, None)
        self._in_cloud.discard(relative)

    def text(self) -> str | None:
        """Return all of it as one line, None if nothing is wrong."""
        parts = list(self._general)
        if self._single:
            first, more = next(iter(self._single.values())), len(self._single) - 1
            parts.append(f"{first} (and {more} more)" if more else first)
        if self._in_cloud:
            count = len(self._in_cloud)
            files = "1 file is" if count == 1 else f"{count} files are"
            parts.append(f"{files} still in the cloud; taken when downloaded")
        return _printable("; ".join(parts)) or None


def _printable(text: str) -> str:
    """Return *text* as one line without what moves a cursor or no UTF-8 can hold: file names may hold anything."""
    return "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
