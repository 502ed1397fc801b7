"""A runner that waits without a model: starting Python and importing an engine takes longer than loading most models.

It has imported what the runtimes need that were asked for so far, and has nothing else. The next model takes it over
instead of starting a process. It is there only while models come and go: `Spares.end` is called when nothing has been
loaded for a while, and when memory is short.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from daemon.models.launch import Launch
from daemon.models.wire import Wire, WireError

log = logging.getLogger(__name__)


class Child(NamedTuple):
    """A runner process and our end of the connection to it."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


def spawn(launch: Launch, output: BinaryIO) -> Child:
    """Start a runner whose standard output and error go to *output*; raises `OSError`."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, *launch.arguments, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=launch.environment(os.environ),
            )
    except BaseException:
        ours.close()
        raise
    return Child(process, ours)


def kind(launch: Launch) -> str:
    """Return what two launches have in common if a spare for one serves the other."""
    message: dict[str, Any] = launch.message()
    return json.dumps([message["plugins"], message["limits"], launch.environment(os.environ)], sort_keys=True)


class Spares:
    """At most one spare. Thread-safe; starting one happens on the caller's thread and takes milliseconds."""

    def __init__(self, start: Callable[[Launch, BinaryIO], Child] = spawn) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._kind = ""
        self._child: Child | None = None
        self._closed = threading.Event()
        self._runtimes: set[str] = set()

    @property
    def pid(self) -> int | None:
        """Return the process that waits, None if there is none."""
        with self._lock:
            return None if self._child is None else self._child.process.pid

    def keep(self, launch: Launch) -> None:
        """Have a spare for models like that of *launch*; one that is there already stays."""
        wanted = kind(launch)
        with self._lock:
            if self._closed.is_set() or (self._alive() and self._kind == wanted and launch.runtime in self._runtimes):
                return
            self._runtimes.add(launch.runtime)
            runtimes = sorted(self._runtimes)
        self.end()
        try:
            with tempfile.TemporaryFile() as output:
                child = self._start(launch, output)
            Wire(child.socket).send(launch.message() | {"op": "warm", "runtimes": runtimes})
        except (OSError, WireError) as error:
            log.warning("No spare runner could be started: %s", error, extra={"action": "models.no_spare"})
            return
        with self._lock:
            surplus, self._child, self._kind = self._child, child, wanted
            closed = self._closed.is_set()
        _end(surplus)
        if closed:
            self.close()

    def take(self, launch: Launch) -> Child | None:
        """Give the spare away if it serves *launch*; it is the caller's from then on."""
        if launch.log is None:  # a runner that exists already can only be given a log that has a name
            return None
        with self._lock:
            if not self._alive() or self._kind != kind(launch):
                return None
            child, self._child = self._child, None
            return child

    def end(self) -> None:
        """End the spare, if there is one."""
        with self._lock:
            child, self._child = self._child, None
        _end(child)

    def close(self) -> None:
        """Keep none any more, and return when there is none."""
        with self._lock:
            self._closed.set()
            child, self._child = self._child, None
        _end(child)
        if child is not None:
            child.process.wait()

    def _alive(self) -> bool:
        return self._child is not None and self._child.process.poll() is None


def _end(child: Child | None) -> None:
    """End *child* at once: it has nothing to lose, and while it imports it would not hear of anything gentler."""
    if child is not None:
        child.process.kill()
        child.socket.close()
        threading.Thread(target=child.process.wait, name="spare-end", daemon=True).start()
