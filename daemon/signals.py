"""Signals as messages: the kernel wakes the main thread through a pipe, and nothing happens inside a handler."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Final, Self

#: What the daemon listens to: stop, stop, read the configuration again.
LISTENED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Catches signals while open; `wait` returns them one by one. Must be opened on the main thread."""

    def __init__(self, listened: Iterable[signal.Signals] = LISTENED) -> None:
        self._listened = tuple(listened)
        self._before: dict[signal.Signals, Any] = {}
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup_before = -1
        self._stops = 0
        self._heard = False

    def __enter__(self) -> Self:
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for each in self._listened:
            self._before[each] = signal.signal(each, self._noted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read)
        os.close(self._write)

    def wait(self) -> signal.Signals:
        """Sleep until a signal comes or `send` is called."""
        self._heard = True
        return signal.Signals(os.read(self._read, 1)[0])

    def send(self, which: signal.Signals) -> None:
        """Wake `wait` as if *which* had come; from any thread."""
        os.write(self._write, bytes([which]))

    def _noted(self, number: int, frame: FrameType | None) -> None:
        """Do nothing: the interpreter has already written the number into the wake-up pipe.

        Unless nobody has listened yet and this is the second request to stop: then the start hangs (a plugin that
        does not return from its import, a dead network drive), and nothing else would end it.
        """
        self._stops += number in _STOPPING
        if self._stops > 1 and not self._heard:
            _give_up(frame)


def _give_up(frame: FrameType | None) -> None:
    where = f" It was busy in {frame.f_code.co_filename}, line {frame.f_lineno}." if frame else ""
    os.write(2, f"mlxd: stopped before it was ready.{where}\n".encode(errors="backslashreplace"))
    os._exit(1)
