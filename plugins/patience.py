"""Calls somebody else's code without being at its mercy: it may raise anything, and it may never return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

#: Longest text of an error that is shown.
_LONGEST: Final = 500


class Stuck(Exception):
    """The call has not returned in time; it goes on in its thread, which nobody can end."""


def bounded(call: Callable[[], Any], seconds: float, *, name: str) -> Any:
    """Return what *call* returns, and raise what it raises: an ``Exception`` or ``SystemExit``, whatever it was.

    Raises:
        Stuck: it took more than *seconds*.

    """
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - a plugin may raise even KeyboardInterrupt
            failure.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    if outcome:
        return outcome[0]
    if not failure:
        raise Stuck(f"it did not return within {seconds:g} s")
    if isinstance(failure[0], Exception | SystemExit):
        raise failure[0]
    raise RuntimeError(f"it raised {type(failure[0]).__name__}") from failure[0]


def said(error: BaseException) -> str:
    """Return what *error* says, in one line and not at any length; an error may fail at that too."""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - see above
        return "(an error that cannot be shown)"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
