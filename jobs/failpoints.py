"""Named places where the program may be made to die: every step after which something is on disk that was not before.

The torture campaign kills the daemon at each of them and looks whether anything is lost or done twice. Without the
variables below in the environment `reach` does nothing at all, and nothing can arm it later.

- ``MLXD_FAILPOINTS``: ``name@n=action`` with commas between; the n-th time (default 1) in a process. Actions: ``kill``
  (SIGKILL to this process), ``stop`` (SIGSTOP), or the name of an error to raise as `OSError`: ``EIO``, ``ENOSPC``.
- ``MLXD_FAILPOINTS_ONCE``: a folder in which a file marks what has fired; it never fires again, in no process. Without
  it, a daemon that is started again dies again.
- ``MLXD_FAILPOINTS_SEEN``: a file to which each name is appended when a process comes there for the first time.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

#: What each verb of the ledger writes: two failpoints each, ``ledger.VERB.commit`` (everything said to SQLite, nothing
#: committed) and ``ledger.VERB.committed`` (on disk, and nobody knows).
VERBS: Final[Mapping[str, str]] = {
    "add": "a new job, with the watched file it was made of",
    "remember": "a watched file that became a job before",
    "claim": "an attempt begins",
    "progress": "how far a job is (not synced)",
    "checkpoint": "where a job would go on",
    "intend": "a file is about to get its name",
    "recipe": "what a job did, for the same work later",
    "finish": "a success",
    "fail": "a failed attempt",
    "crash": "an attempt whose runner died",
    "release": "an attempt given back",
    "block": "a job that lacks something",
    "stop": "a running job that was cancelled has stopped",
    "cancel": "a job is taken back, or asked to stop",
    "requeue": "a job released by hand",
    "unblock": "blocked jobs try again",
    "recover": "the jobs of a dead daemon are put back",
    "plan": "an input is about to be moved",
    "desk": "a folder is paused or resumed, a job taken back",
    "schedule": "a schedule added, changed, removed or run by hand",
    "fire": "a schedule's time became a job, together with its next time",
    "prune": "old jobs are forgotten",
    "migrate": "one step of the ledger's layout",
}

_STEPS: Final[Mapping[str, str]] = {
    "start.locked": "this home is ours; the ledger is not open",
    "start.recovered": "a dead daemon's jobs are back in the ledger's queue; no hint, no worker yet",
    "start.settled": "inputs and notices of jobs that had just ended are dealt with; nothing runs",
    "start.working": "workers and dispatcher run; nobody can reach the socket",
    "start.serving": "the socket answers; folders and schedules are not watched",
    "migration.statement": "one statement of a migration was executed in a transaction that goes on",
    "api.accepted": "the job is committed and its hint is put; the answer is not sent",
    "hint.put": "the hint is in the queue's file; no worker has it",
    "hint.taken": "the hint is gone from the queue's file; its job is not claimed",
    "hint.missing": "a job that may run has no hint; none is put yet",
    "orphan.found": "the ledger names us as owner of a job that does not run; it is not released",
    "job.claimed": "the job runs according to ledger and memory; nothing of it was done",
    "job.done": "the task has returned; nothing of its end is written down",
    "job.ended": "the end is committed; its input, notices and followers know nothing",
    "model.wanted": "the job asks for a model; it stands in no line",
    "model.leased": "the job has its model; nothing was asked of it",
    "runner.spawning": "nothing of the runner is there but its log",
    "runner.spawned": "the runner's process is there; it was not told what to load",
    "runner.loading": "in the runner: it was told what to load",
    "runner.loaded": "in the runner: the model is in memory; the daemon does not know",
    "runner.ready": "the daemon knows that the model is in memory; those who wait do not",
    "runner.stepping": "in the runner: requests are there, a step of work begins",
    "request.sent": "the runner has the request; nothing came back",
    "request.event": "the first piece of an answer is here; nobody was told",
    "output.created": "an empty temporary file is there",
    "output.filled": "the temporary file has its content; it is not synced",
    "output.synced": "the temporary file is on disk; the ledger knows of no intent",
    "output.intended": "the intent is committed; the file has no final name",
    "output.linked": "the file has its final and its temporary name",
    "output.named": "the file has only its final name; the folder is not synced",
    "output.replaced": "an earlier attempt's file was replaced; the folder is not synced",
    "output.kept": "an earlier attempt's file is right as it is; its remains are not removed",
    "output.settled": "the file is whole, named and synced; the task does not know",
    "sidecar.written": "the sidecars are beside the outputs; the recipe and the end are not written down",
    "input.linked": "the input has its new and its old name",
    "input.moved": "the input has only its new name",
    "input.explained": "the sidecar that explains a failure is beside the input",
    "trash.noted": "the trash has the note about a file that is still in its place",
    "notice.sent": "somebody was told of a job's end; the delivery's own end is not written down",
    "file.settled": "a watched file holds still; nothing of it was read",
    "file.read": "the watched file's content is known; no job was made",
    "file.taken": "the watched file's job is committed; the file's place is not remembered",
    "schedule.due": "a schedule's time has come; nothing is written",
    "schedule.fired": "the time's job is committed; no hint is put",
    "drain.begun": "told to stop: nothing more is accepted",
    "drain.idle": "jobs have ended or stepped aside; workers and runners are there",
    "drain.workers": "the workers are gone; runners are there",
    "drain.closed": "everything is closed; the process is there",
}

#: Every failpoint: name -> what is, and what is not yet, when it is reached.
NAMES: Final[Mapping[str, str]] = {
    **{
        f"ledger.{verb}.{moment}": f"{what}: {state}"
        for verb, what in VERBS.items()
        for moment, state in (("commit", "said to SQLite, not committed"), ("committed", "on disk, nobody knows"))
    },
    **_STEPS,
}

#: Calls for a failpoint by its name.
Reach = Callable[[str], None]

_POINT: Final = re.compile(r"(?P<name>[a-z.-]+)(?:@(?P<nth>[1-9][0-9]*))?=(?P<action>kill|stop|E[A-Z0-9]+)")
_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Point(NamedTuple):
    """One failpoint that is armed."""

    #: Which time it fires, counted in each process.
    nth: int
    #: "kill", "stop" or the name of an error.
    action: str


def parse(text: str) -> dict[str, Point]:
    """Return the failpoints that ``MLXD_FAILPOINTS`` arms; `ValueError` for what is none."""
    points = {}
    for said in filter(None, (part.strip() for part in text.split(","))):
        match = _POINT.fullmatch(said)
        if match is None or match["name"] not in NAMES:
            raise ValueError(f"MLXD_FAILPOINTS: {said!r} is not NAME@N=ACTION with a name of jobs.failpoints.NAMES")
        if match["action"] not in _SIGNALS and not hasattr(errno, match["action"]):
            raise ValueError(f"MLXD_FAILPOINTS: there is no error {match['action']}")
        points[match["name"]] = Point(int(match["nth"] or 1), match["action"])
    return points


class Failpoints:
    """The armed failpoints of one process. Any thread may call any method."""

    def __init__(self, points: Mapping[str, Point], *, seen: Path | None = None, once: Path | None = None) -> None:
        self._points = points
        self._seen = seen
        self._once = once
        self._lock = threading.Lock()
        self._times: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        """Fire if *name* is armed for this time."""
        with self._lock:
            self._times[name] += 1
            times = self._times[name]
            if times == 1 and self._seen is not None:
                _append(self._seen, name)
            point = self._points.get(name)
            due = point is not None and times == point.nth and self._first(name)
        if point is not None and due:
            _fire(point.action, name)

    def _first(self, name: str) -> bool:
        """Tell whether it has never fired before, and mark that it has now."""
        if self._once is None:
            return True
        try:
            os.close(os.open(self._once / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        return True


def _fire(action: str, name: str) -> None:
    if action in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[action])
        return
    number: int = getattr(errno, action)
    raise OSError(number, f"{os.strerror(number)} (failpoint {name})")


def _append(path: Path, name: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, f"{name}\n".encode())
    finally:
        os.close(file)


def _nothing(name: str) -> None:
    """Do nothing: failpoints are not armed."""


def armed(environ: Mapping[str, str]) -> Reach:
    """Return what `reach` is under *environ*."""
    points, seen, once = (environ.get(f"MLXD_FAILPOINTS{ending}") for ending in ("", "_SEEN", "_ONCE"))
    if not points and not seen:
        return _nothing
    place = {key: Path(value) for key, value in (("seen", seen), ("once", once)) if value}
    return Failpoints(parse(points or ""), **place).reach


#: Say that this place of the program is reached; *name* is one of `NAMES`.
reach: Final[Reach] = armed(os.environ)
