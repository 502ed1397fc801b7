"""The daemon's handle on one runner process: start it, send it requests, notice at once when it dies.

One reader thread per engine owns everything that comes back. It sleeps in `select` and wakes for a message, for a new
request (through a self-pipe, so that the silence deadline starts to run), or for the deadline: an idle engine wakes
nobody. Whatever ends the runner, every pending call gets an error; no call waits for ever.

A `RunnerDied` says who was aboard: ``jobs`` and ``requests`` in its facts. Both are 0 for a request that the runner
never got because others, who were aboard, had killed it before. They are absent when nobody was aboard.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from daemon.models.admission import Admission, Ticket
from daemon.models.calls import EngineCall, revive
from daemon.models.launch import Launch, Stderr
from daemon.models.orders import Orders
from daemon.models.scarcity import ADVICE, Scarcity
from daemon.models.spares import Spares, spawn
from daemon.models.wire import Wire, WireError
from jobs.errors import Interrupted, InvalidRequest, MlxdError, ModelBroken, RunnerDied
from jobs.failpoints import reach
from jobs.model import Lane
from plugins.task import OnEvent

log = logging.getLogger(__name__)

#: Seconds that an ended runner is given to become a dead process before it is killed.
_REAP_S: Final = 0.5
#: Seconds until a killed runner must be gone.
_KILL_S: Final = 5.0
#: Parts in which a runner's silence is waited for; see `Engine._silence_left`.
_PARTS: Final = 4
#: Seconds by which a wait may last longer than asked for before we take ourselves for stopped.
_OVERSLEPT_S: Final = 0.25


class Engine:
    """One runner process serving one model.

    *on_exit* is called once, on the reader thread, when a runner that had become ready is gone; *on_memory* with
    the bytes the runner occupies each time it says so.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        on_exit: Callable[[Engine], None] | None = None,
        on_memory: Callable[[int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        scarcity: Scarcity | None = None,
        spares: Spares | None = None,
    ) -> None:
        self._launch = launch
        self._scarcity = scarcity or Scarcity()
        self._spares = spares
        self._orders = Orders(self._order)
        self._wire: Wire
        self._wake: socket.socket
        self._listen: socket.socket
        self._process: subprocess.Popen[bytes]
        self._stderr: Stderr
        self._on_exit = on_exit
        self._on_memory = on_memory
        self._clock = clock
        self._ids = itertools.count(1)
        self._lock = threading.Lock()  # guards the five below
        self._admission = Admission()
        self._end: MlxdError | None = None
        #: What a request gets that comes after the end.
        self._late: MlxdError | None = None
        self._stopping = False
        self._heard = 0.0
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None
        #: What the runtime said when it had loaded the model.
        self.info: Mapping[str, Any] = {}
        #: Bytes the runner occupied when it last said so; None until then.
        self.memory: int | None = None
        #: Called on the reader thread with what the session wants and has learned of memory: see `Memory`.
        self.on_wishes: Callable[[Mapping[str, Any]], None] | None = None
        #: Whether the runner ended for lack of memory, as far as can be told.
        self.ran_out = False

    @property
    def pid(self) -> int | None:
        """Return the runner's process id, or None before it was started."""
        return self._process.pid if self._reader else None

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self._ready.is_set() and self._end is None

    # -- life, in order ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Spawn the runner and wait until its model is loaded.

        Raises:
            ModelBroken: the runtime could not load the model; the message is the runtime's own.
            UnknownRuntime: no plugin the runner loaded offers it.
            RunnerDied: it ended, or was not ready within the start timeout and was killed.
            Interrupted: `stop` was called meanwhile.

        """
        self._refuse_if_stopping()
        self._stderr = Stderr(self._launch.log)
        try:
            reach("runner.spawning")
            spare = self._spares.take(self._launch) if self._spares is not None else None
            self._process, ours = spare or spawn(self._launch, self._stderr.file)
        except BaseException:
            self._stderr.close()
            raise
        reach("runner.spawned")
        self._wire = Wire(ours)
        self._listen, self._wake = socket.socketpair()
        self._wake.settimeout(0)
        self._heard = self._clock()
        reader = threading.Thread(target=self._read, name=f"engine-{self._launch.label}", daemon=True)
        reader.start()
        self._reader = reader  # only now: `stop` joins whatever stands here
        if self._stopping:  # by a `stop` that saw no reader yet
            self._process.kill()
        with contextlib.suppress(OSError):  # it died at once: the reader tells why
            self._wire.send(self._launch.message())
        self._ready.wait()
        with self._lock:
            if self._end is not None:
                raise self._end

    def submit(
        self,
        request: Mapping[str, Any],
        *,
        on_event: OnEvent | None = None,
        lane: Lane = Lane.NORMAL,
        alone: bool = False,
        holder: object = None,
    ) -> EngineCall:
        """Send *request* (JSON). *on_event* is called on the reader thread for each event before the end.

        With *alone* it waits until the runner has nothing else to do, and everybody else waits for it. *holder* is
        whose request it is. A runner that is gone is not an error here but the result of the call.

        Raises:
            InvalidRequest: it is not JSON, or too long to be sent.

        """
        call = EngineCall(str(next(self._ids)), on_event=on_event, send_cancel=self._send_cancel)
        since = self._clock()
        ticket = Ticket(call=call, request=dict(request), lane=lane, alone=alone, holder=holder, since=since)
        with self._lock:
            late = self._late
            boarded = self._board(self._admission.enter(ticket, since)) if late is None else []
        if late is not None:
            call.fail(late)
            return call
        self._nudge()
        self._send_later([one for one in boarded if one is not ticket])
        if ticket in boarded:
            self._send(ticket)
        return call

    def stop(self, timeout: float) -> None:
        """End the runner: ask it, after *timeout* seconds kill it. Pending calls get `Interrupted`."""
        with self._lock:
            self._stopping = True
        if self._reader is None:
            return
        with contextlib.suppress(OSError):
            self._wire.send({"op": "close"})
        self._reader.join(timeout)
        if self._reader.is_alive():
            self._process.kill()
            self._reader.join(_KILL_S)

    def kill(self) -> None:
        """End the runner at once; pending calls get `RunnerDied`."""
        if self._reader is not None and self._end is None:
            self._process.kill()

    def order(self, op: str, **what: Any) -> None:
        """Tell the runner something about memory; never waits for it. A later order of the same *op* replaces it."""
        if self.alive:
            self._orders.put(op, {"op": op, **what})

    # -- the reader thread ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        why = ""
        try:
            why = self._converse()
        except WireError as error:
            why = f"what it sent makes no sense: {error}"
        finally:
            self._finish(why)

    def _converse(self) -> str:
        """Handle messages until the runner's end; return why it had to be killed, if it had."""
        poller = select.poll()
        poller.register(self._wire, select.POLLIN)
        poller.register(self._listen, select.POLLIN)
        while True:
            began = self._clock()
            left, longest = self._silence_left()
            if left is not None and left < -_OVERSLEPT_S:  # nobody waited for it when it was due
                self._heard = began
                continue
            timeout = None if left is None else max(0.0, min(left, longest))
            # poll, not select: a daemon may have more than 1024 descriptors open.
            readable = {fd for fd, _ in poller.poll(None if timeout is None else math.ceil(timeout * 1000))}
            if left is not None and left <= 0 and not readable:  # judged only after everything it said was read
                return self._silent()
            if timeout is not None:
                # What the wait took too long we were stopped ourselves, and could have heard nobody.
                overslept = self._clock() - began - timeout
                self._heard += overslept if overslept > _OVERSLEPT_S else 0.0
            if self._listen.fileno() in readable:
                self._listen.recv(4096)
            if self._wire.fileno() in readable:
                batch = self._wire.read()
                if batch is None:
                    return ""
                self._heard = self._clock()
                for message in batch:
                    self._handle(message)

    def _silence_left(self) -> tuple[float | None, float]:
        """Return the seconds the runner may still be silent, None while it owes nothing; and how long to wait at most.

        Silence is waited for in parts: of the time in which we are stopped ourselves no more than a part counts.
        """
        with self._lock:
            if not self._ready.is_set():
                limit = self._launch.start_timeout_s
            elif self._admission.aboard:
                limit = self._launch.silence_timeout_s
            else:
                return None, 0.0
            return self._heard + limit - self._clock(), limit / _PARTS

    def _silent(self) -> str:
        if not self._ready.is_set():
            return f"it was not ready within {self._launch.start_timeout_s:g} s"
        return f"it was silent for {self._launch.silence_timeout_s:g} s while it had work"

    def _handle(self, message: Mapping[str, Any]) -> None:
        match message["op"]:
            case "event":
                self._event(str(message.get("id")), str(message.get("kind")), _data(message))
            case "ready":
                reach("runner.ready")
                self.info = _data(message)
                self._ready.set()
            case "memory":
                self._remember(message)
            case "wishes" if self.on_wishes is not None:
                self.on_wishes(_data(message))
            case "failed":
                self._load_failed(_data(message))

    def _event(self, call_id: str, kind: str, data: Mapping[str, Any]) -> None:
        with self._lock:
            ticket = self._admission.aboard.get(call_id)
        if kind in ("done", "error"):
            self._forget(call_id)
        if ticket is not None:
            reach("request.event")
            ticket.call.tell(kind, data)

    def _remember(self, message: Mapping[str, Any]) -> None:
        found = message.get("bytes")
        if isinstance(found, int):
            self._scarcity.note()
            self.memory = found
            if self._on_memory is not None:
                self._on_memory(found)

    def _load_failed(self, data: Mapping[str, Any]) -> None:
        error = revive(str(data.get("type")), str(data.get("message")), default=ModelBroken)
        with self._lock:
            self._end = self._end or error

    # -- the end ----------------------------------------------------------------------------------------------------

    def _finish(self, why: str) -> None:
        """Reap the process, then end every call: after this nothing of the runner is left."""
        if why:
            self._process.kill()
        status = self._reap()
        was_ready = self._ready.is_set()
        with self._lock:
            aboard, waiting = self._admission.clear()
            self._end = end = self._end or self._obituary(why, status, aboard)
            self._late = late = _too_late(end) if aboard else end
            self._wake.close()
        self._wire.close()
        self._listen.close()
        self._stderr.close()
        # First: a job that is tried again at once must not be given this engine once more.
        if was_ready and self._on_exit is not None:
            self._on_exit(self)
        for ticket in aboard:
            ticket.call.fail(end)
        for ticket in waiting:
            ticket.call.fail(late)
        self._ready.set()

    def _reap(self) -> int:
        try:
            return self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            # It let go of the wire but lives on: a process that hangs at its end, or a child of it that does.
            self._process.kill()
            return self._process.wait()

    def _obituary(self, why: str, status: int, aboard: Sequence[Ticket]) -> MlxdError:
        if self._stopping:
            return Interrupted(f"The model {self._launch.label} was unloaded.")
        facts: dict[str, Any] = {"exit": status, "tail": self._stderr.tail()}
        if status < 0:
            facts["signal"] = signal_name(-status)
        how = why or (f"it was ended by {facts['signal']}" if status < 0 else f"it ended with status {status}")
        self.ran_out = not why and self._scarcity.explains(status, facts["tail"])
        if self.ran_out:
            how = f"it ran out of memory ({how}). {ADVICE}".removesuffix(".")
            facts["out_of_memory"] = True
        if aboard:
            facts |= {"jobs": len({ticket.holder for ticket in aboard}), "requests": len(aboard)}
            if self.ran_out and self._launch.forgiving and len(aboard) > 1:
                facts["jobs"] = 0  # too many at once is nobody's fault: they are asked again, fewer together
        log.warning(
            "The runner of %s is gone: %s", self._launch.label, how, extra={"action": "engine.died", "exit": status}
        )
        return RunnerDied(f"The runner of {self._launch.label} is gone: {how}.", **facts)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _board(self, boarded: list[Ticket]) -> list[Ticket]:
        """Let the silence deadline run from now on if nothing was aboard before *boarded*; the lock is held."""
        if boarded and len(boarded) == len(self._admission.aboard):
            self._heard = self._clock()
        return boarded

    def _send(self, ticket: Ticket) -> None:
        call = ticket.call
        try:
            message = {"op": "submit", "id": call.id, "lane": ticket.lane.value, "request": ticket.request}
            self._wire.send(message)
        except WireError as error:
            self._forget(call.id)
            raise InvalidRequest(str(error)) from error
        except OSError:
            pass  # it is dying: the reader ends every call in a moment
        reach("request.sent")
        if call.ended:
            self._send_cancel(call.id)  # cancelled before the runner had heard of it

    def _send_later(self, boarded: list[Ticket]) -> None:
        """Send what has waited for its turn, on a thread of its own: the reader must never wait for the runner."""
        for ticket in boarded:
            threading.Thread(target=self._send_or_fail, args=(ticket,), name="engine-send", daemon=True).start()

    def _send_or_fail(self, ticket: Ticket) -> None:
        try:
            self._send(ticket)
        except InvalidRequest as error:
            ticket.call.fail(error)

    def _send_cancel(self, call_id: str) -> None:
        self._forget(call_id)
        with contextlib.suppress(OSError):
            self._wire.send({"op": "cancel", "id": call_id})

    def _forget(self, call_id: str) -> None:
        with self._lock:
            boarded = self._board(self._admission.leave(call_id, self._clock()))
        self._send_later(boarded)

    # -- small change -----------------------------------------------------------------------------------------------

    def _order(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError, WireError):
            self._wire.send(message)

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise Interrupted

    def _nudge(self) -> None:
        """Wake the reader, so that it reckons with the silence deadline of the first call."""
        with self._lock, contextlib.suppress(OSError):
            self._wake.send(b"!")


def _too_late(end: MlxdError) -> MlxdError:
    """Return what the requests get that the runner never had: its end is the doing of those it had."""
    return RunnerDied(end.message, **{**end.facts, "jobs": 0, "requests": 0}) if isinstance(end, RunnerDied) else end


def signal_name(number: int) -> str:
    """Return "SIGKILL" for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _data(message: Mapping[str, Any]) -> dict[str, Any]:
    data = message.get("data")
    return data if isinstance(data, dict) else {}
