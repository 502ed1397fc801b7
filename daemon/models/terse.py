"""Errors as a runner writes them into its log: where and of what kind, not what they say, which may quote a prompt."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any


class TerseFormatter(logging.Formatter):
    """Formats records with the places of an exception only."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        """Return the places of an exception."""
        return places(ei[1])


def install() -> None:
    """Write terse errors from now on: those that are logged, and those that end a thread or the process."""
    handler = logging.StreamHandler()
    handler.setFormatter(TerseFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    sys.excepthook = _uncaught
    threading.excepthook = lambda arguments: _write(arguments.exc_value)


def places(error: BaseException | None) -> str:
    """Return the frames and kinds of *error* and of what caused it, outermost last."""
    lines: list[str] = []
    while error is not None:
        frames = [f"  {one.filename}:{one.lineno} {one.name}" for one in traceback.extract_tb(error.__traceback__)]
        lines = [*frames, f"{type(error).__module__}.{type(error).__qualname__}", *lines]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(lines)


def _uncaught(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    _write(error)


def _write(error: BaseException | None) -> None:
    sys.stderr.write(f"The runner was ended by an error (what it says is withheld):\n{places(error)}\n")
    sys.stderr.flush()
