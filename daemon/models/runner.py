"""The runner: a process that holds one model. Started as ``python -I -m daemon.models.runner <descriptor>``.

The main thread owns MLX: it loads the model, steps the session and closes it. A reader thread only moves messages from
the wire into a queue, so the main thread sleeps for nothing while idle and hears of cancellations between two steps.
Told to close, finish the step, close the session and exit. When the wire ends without that, the daemon is dead, and
nobody wants what is under way, be it an import, a load or a step: exit at once, for the next daemon is starting and
needs the processor and the memory.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from daemon.models import terse
from daemon.models.footprint import footprint
from daemon.models.inbox import Message, waiting
from daemon.models.wire import Wire, WireError
from jobs.errors import InvalidRequest, MlxdError, ModelBroken, OutOfMemory, RequestFailed, UnknownRuntime
from jobs.failpoints import reach
from jobs.model import Lane
from plugins import mlx_process
from plugins.manager import PluginManager
from plugins.runtime import Event, Memory, Runtime, Session, Share

log = logging.getLogger("mlxd.runner")

#: Seconds between two signs of life while a long request tells nothing else.
BEAT_S: Final = 1.0
#: Seconds the step under way may take once the wire has ended after we were told to close.
GRACE_S: Final = 3.0


class Runner:
    """Serves one session over one wire; every method runs on the thread that owns MLX."""

    def __init__(self, wire: Wire, inbox: queue.SimpleQueue[Message]) -> None:
        self._wire = wire
        self._inbox = inbox
        self._open: set[str] = set()
        self._said = time.monotonic()
        self._beaten = time.monotonic()
        self._memory = 0
        #: What the daemon was told last of what the session wants and has learned.
        self._told: dict[str, Any] = {}

    def run(self) -> None:
        """Load what the first message asks for, serve until told to close."""
        first = self._inbox.get()
        if first["op"] == "warm":
            self._warm(first)
            first = self._inbox.get()
            redirect(first.get("log"))
        if first["op"] != "load":
            return
        reach("runner.loading")
        session = self._load(first)
        if session is None:
            return
        reach("runner.loaded")
        try:
            self._say({"op": "ready", "data": dict(session.info)})
            self._tell_memory(session)
            self._serve(session)
        finally:
            session.close()

    def _warm(self, message: Message) -> None:
        """Import what a load will need: this runner waits for its model."""
        for name in message["runtimes"]:
            try:
                with descriptors_kept():
                    mlx_process.prepare(**message["limits"])
                    warm: Callable[[], None] | None = getattr(find_runtime(name, message["plugins"]), "warm", None)
                    if warm is not None:
                        warm()
            except Exception:  # the load will say what is wrong, to somebody who waits for it
                log.exception("The runtime %s could not be prepared", name)

    def _load(self, message: Message) -> Session | None:
        """Return the session, or None after the daemon was told why there is none."""
        try:
            with descriptors_kept():
                mlx_process.prepare(**message["limits"])
                runtime = find_runtime(message["runtime"], message["plugins"])
                return runtime.load(Path(message["model"]), message["options"])
        except Exception as error:  # whatever a runtime raises here, the daemon must hear it in a sentence
            log.exception("Loading %s failed", message["model"])
            kind = OutOfMemory if mlx_process.out_of_memory(error) else ModelBroken
            self._say({"op": "failed", "data": _told(error, default=kind)})
            return None

    def _serve(self, session: Session) -> None:
        while True:
            for message in waiting(self._inbox, block=not session.busy):
                if message["op"] == "close":
                    return
                self._take(session, message)
            if session.busy:
                self._step(session)
            self._tell_wishes(session)

    def _take(self, session: Session, message: Message) -> None:
        request_id = str(message.get("id"))
        memory: Memory | None = getattr(session, "memory", None)
        match message["op"]:
            case "cancel":
                self._open.discard(request_id)
                session.cancel(request_id)
            case "submit":
                self._submit(session, request_id, message)
            case "share" if memory is not None:
                memory.limit(Share(**message["share"]))
            case "share":
                share = Share(**message["share"])
                mlx_process.share_out(share.memory, cache=share.memory - self._memory)
            case "trim" if memory is None:
                mlx_process.give_back()
            case "trim" if memory is not None:
                memory.trim()
                self._tell_memory(session)
            case "pause" if memory is not None:
                memory.pause([Lane(name) for name in message["lanes"]])

    def _submit(self, session: Session, request_id: str, message: Message) -> None:
        self._open.add(request_id)
        try:
            session.submit(request_id, {**message["request"], "lane": message["lane"]})
        except Exception as error:  # noqa: BLE001 - refuses this request alone; the session's other requests go on
            default = InvalidRequest if isinstance(error, ValueError) else RequestFailed
            self._event((request_id, "error", _told(error, default=default)))

    def _step(self, session: Session) -> None:
        """Do one unit of work; a session that cannot go on ends the process, which is what a crash is."""
        reach("runner.stepping")
        for event in session.step():
            self._event(event)
        now = time.monotonic()
        if now - self._said >= BEAT_S:
            self._say({"op": "beat"})
        if now - self._beaten >= BEAT_S or not session.busy:
            self._beaten = now
            self._tell_memory(session)

    def _event(self, event: Event) -> None:
        request_id, kind, data = event
        if request_id not in self._open:
            return  # cancelled meanwhile
        if kind in ("done", "error"):
            self._open.discard(request_id)
        try:
            self._say({"op": "event", "id": request_id, "kind": kind, "data": dict(data)})
        except WireError as error:
            self._open.discard(request_id)
            told = _told(error, default=RequestFailed)
            self._say({"op": "event", "id": request_id, "kind": "error", "data": told})

    def _tell_memory(self, session: Session) -> None:
        """Say what this process occupies, if that has changed by more than a hundredth.

        What is kept for speed alone is left out: it may be asked back at any time.
        """
        memory: Memory | None = getattr(session, "memory", None)
        spare = memory.spare if memory is not None else 0
        now = max(0, max(footprint(), mlx_process.active_bytes()) - spare)
        if abs(now - self._memory) * 100 > self._memory:
            self._memory = now
            self._say({"op": "memory", "bytes": now})

    def _tell_wishes(self, session: Session) -> None:
        """Say what the session wants and has learned of memory, when it is news."""
        memory: Memory | None = getattr(session, "memory", None)
        if memory is None:
            return
        now = {"wanted": memory.wanted, "ceiling": memory.ceiling, "factor": round(memory.factor, 2)}
        if now != self._told:
            self._told = now
            self._say({"op": "wishes", "data": now})

    def _say(self, message: Message) -> None:
        self._said = time.monotonic()
        # A daemon that is gone cannot be told; the reader notices the end of the wire and closes us.
        with contextlib.suppress(OSError):
            self._wire.send(message)


def find_runtime(name: str, place: Mapping[str, Any]) -> Runtime:
    """Return the runtime called *name*, loading plugins as the daemon does.

    Raises:
        UnknownRuntime: no plugin offers it; the message tells which plugins are broken.

    """
    files = place["files"]
    manager = PluginManager(
        files=None if files is None else Path(files),
        entry_points=place["entry_points"],
        disabled=place["disabled"],
    )
    manager.load()
    if name in manager.runtimes:
        return manager.runtimes[name]
    broken = "; ".join(f"{one.name}: {one.problem}" for one in manager.status() if one.problem)
    raise UnknownRuntime(f"No plugin offers the runtime {name!r}." + (f" Broken: {broken}." if broken else ""))


def redirect(path: str | None) -> None:
    """Let what is printed from now on go into the log file *path*, which exists."""
    if path is not None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)


@contextlib.contextmanager
def descriptors_kept() -> Any:
    """Undo what importing mlx_lm does to the limit of open files (it sets 2048, lowering a higher one)."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        after = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft, hard = max(before[0], after[0]), after[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))


def _told(error: BaseException, *, default: type[MlxdError]) -> dict[str, Any]:
    """Return *error* as the wire carries it."""
    if isinstance(error, MlxdError):
        return {"type": error.slug, "message": error.message}
    said = str(error) or type(error).__name__
    plain = said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"
    return {"type": default.slug, "message": plain[:2000]}


def _pump(wire: Wire, inbox: queue.SimpleQueue[Message], done: threading.Event, grace: float) -> None:
    """Move messages from the wire to the owner; at its end see that the process ends too."""
    told_to_close = False
    try:
        for message in wire.messages():
            told_to_close = told_to_close or message["op"] == "close"
            inbox.put(message)
    except WireError:
        log.exception("The daemon sent what makes no sense")
    if not done.wait(grace if told_to_close else 0.0):
        why = "The step under way does not end" if told_to_close else "The daemon is gone"
        log.warning("%s; leaving at once", why)
        os._exit(1)


def main(argv: list[str], *, grace: float = GRACE_S) -> int:
    """Serve the wire whose descriptor is the first argument."""
    terse.install()
    # Ctrl-C in the daemon's terminal reaches the whole group, systemd's stop the whole unit: when a runner ends is the
    # daemon's decision, which lets jobs finish first. What ends it in any case is the end of the wire.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    descriptor = int(argv[0])
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - positional only; a child of a library must not keep the wire open after our death
    os.dup2(2, 1)  # libraries print; whatever they say belongs into the log
    wire = Wire(socket.socket(fileno=descriptor))
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    done = threading.Event()
    reader = threading.Thread(target=functools.partial(_pump, wire, inbox, done, grace), name="wire", daemon=True)
    reader.start()
    try:
        Runner(wire, inbox).run()
    finally:
        done.set()
        wire.shut()
        reader.join(grace)
        wire.close()
        gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
