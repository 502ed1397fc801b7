"""Between the lines of waiting jobs and the models: jobs of one model together, and no worker held by one that waits.

Workers ask what they may take (`jobs.storage.Order`); the model scheduler asks what is waited for
(`daemon.models.wishes.Line`); the decision is `daemon.models.planning`. Nobody polls: workers are woken when the
outlook on the models changes, and sleep no longer than until the next model is due.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from daemon.models.planning import LanePlan, Want
from daemon.models.references import ResolvedModel
from daemon.models.wishes import Outlook, Wish
from jobs.errors import MlxdError
from jobs.model import Job, Lane, State
from jobs.storage import Place

log = logging.getLogger(__name__)

#: Seconds for which it is believed what a reference stands for: a folder may be moved, and a backlog asks often.
_BELIEVED_S: Final = 1.0


class Models(Protocol):
    """What the planner needs of the model scheduler."""

    @property
    def outlook(self) -> Outlook:
        """Which models jobs can be started on."""

    def nudge(self) -> None:
        """Look at the line again; returns at once."""

    def size(self, model: ResolvedModel) -> int:
        """Return the bytes the model will need; reads files."""


def _on_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="model-size", daemon=True).start()


class Planner:
    """*asked* says which model a job will ask for first: (runtime, reference or None for the default).

    *bounds* is how long a job may be overtaken in each lane, seconds; *held* tells whether a lane's jobs are held back
    for another reason: for those no model is loaded. *background* runs what reads files.
    """

    def __init__(
        self,
        *,
        models: Models,
        asked: Callable[[str, Mapping[str, Any]], tuple[str, str | None] | None],
        resolve: Callable[[str | None, str], ResolvedModel],
        bounds: Callable[[], Mapping[Lane, float]],
        held: Callable[[Lane], bool] = lambda _lane: False,
        clock: Callable[[], float] = time.monotonic,
        background: Callable[[Callable[[], None]], None] = _on_a_thread,
    ) -> None:
        self._models = models
        self._asked = asked
        self._resolve = resolve
        self._held = held
        self._clock = clock
        self._background = background
        #: Each is touched only under the lock of its lane's line.
        self._plans = {lane: LanePlan(lambda lane=lane: bounds()[lane]) for lane in Lane}  # type: ignore[misc]
        self._lock = threading.Lock()  # guards the rest
        self._known: dict[str, ResolvedModel] = {}
        #: What references stood for, and until when that is believed.
        self._resolved: dict[tuple[str | None, str], tuple[str, float]] = {}
        #: Bytes by model; None while they are being looked up.
        self._sizes: dict[str, int | None] = {}
        #: Models that could not be looked up: the jobs are let through, and are told why when they ask.
        self._odd: set[str] = set()
        self._wants: dict[Lane, tuple[Want, ...]] = dict.fromkeys(Lane, ())
        self._demand: dict[Lane, frozenset[str]] = dict.fromkeys(Lane, frozenset())
        self._poke: Callable[[], None] = lambda: None

    def start(self, poke: Callable[[], None]) -> None:
        """Begin; *poke* lets the workers that wait ask again what they may take."""
        self._poke = poke

    def forget(self) -> None:
        """Believe nothing of what models are called: the configuration has changed."""
        with self._lock:
            self._resolved.clear()
            self._sizes.clear()
            self._odd.clear()

    # What whoever leaves hints asks.

    def need(self, task: str, params: Mapping[str, Any]) -> str:
        """Return the key of the model that such a job needs first, empty if it needs none, or none that is known."""
        try:
            asked = self._asked(task, params)
            return "" if asked is None else self._key(asked[1], asked[0])
        except (MlxdError, OSError, ValueError, TypeError, AttributeError):
            return ""  # parameters are anybody's: the job is told what is wrong when it runs

    def _key(self, ref: str | None, runtime: str) -> str:
        now = self._clock()
        with self._lock:
            key, until = self._resolved.get((ref, runtime), ("", now))
        if now < until:
            return key
        model = self._resolve(ref, runtime)
        with self._lock:
            self._known[model.key] = model
            self._resolved[ref, runtime] = model.key, now + _BELIEVED_S
        return model.key

    def why(self, job: Job) -> str | None:
        """Return why a queued job has not begun although there may be a worker for it; None if its model is ready."""
        waits = job.state is State.QUEUED and job.not_before is None
        key = self.need(job.task, job.params) if waits else ""
        if not key or self._models.outlook.opened(key, job.lane):
            return None
        with self._lock:
            return f"{self._known[key].ref} has to be loaded first" if key not in self._odd else None

    # What the lines ask.

    def choose(self, lane: str, heads: Mapping[str, Place], out: Collection[str]) -> tuple[str | None, float | None]:
        """Return what need's first hint a free worker of *lane* takes, and after how many seconds it asks again."""
        place, outlook = Lane(lane), self._models.outlook
        if self._held(place):  # whoever takes a hint there finds out, and drops it until the lane is open
            self._note(place, (), frozenset(out))
            return min(heads, key=heads.__getitem__, default=None), None
        with self._lock:
            self._odd -= outlook.ready.keys()
            odd = frozenset(self._odd)
        choice = self._plans[place].choose(heads, lambda key: key in odd or outlook.opened(key, place), self._clock())
        self._note(place, choice.wants, frozenset(heads) | frozenset(out))
        return choice.need, choice.again

    def waits(self, lane: str, need: str) -> None:
        """Reckon with a need of which nothing has waited until now; the workers may all be busy."""
        if need:
            with self._lock:
                self._demand[Lane(lane)] |= {need}

    def _note(self, lane: Lane, wants: tuple[Want, ...], demand: frozenset[str]) -> None:
        """Keep what the scheduler will ask for, and tell it if that has changed."""
        with self._lock:
            changed = (self._wants[lane], self._demand[lane]) != (wants, demand)
            self._wants[lane], self._demand[lane] = wants, demand
            unknown = [want.need for want in wants if want.need not in self._sizes and want.need not in self._odd]
            self._sizes.update(dict.fromkeys(unknown))
        for key in unknown:
            self._background(lambda key=key: self._look_up(key))  # type: ignore[misc]
        if changed:
            self._models.nudge()

    def _look_up(self, key: str) -> None:
        """Find out how much memory a model needs."""
        with self._lock:
            model = self._known[key]
        try:
            size = self._models.size(model)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job that asks for the model is told
            log.info("Nothing can be planned for %s: %s", model.ref, error, extra={"action": "plan_unknown"})
            with self._lock:
                self._sizes.pop(key, None)
                self._odd.add(key)
            self._poke()
            return
        with self._lock:
            self._sizes[key] = size
        self._models.nudge()

    # What the model scheduler asks.

    def wishes(self) -> Sequence[Wish]:
        """Return the models that are waited for, by lane, of each the most deserving first."""
        with self._lock:
            return [
                Wish(model=self._known[want.need], lane=lane, need=size, since=want.since, due=want.due)
                for lane in Lane
                for want in self._wants[lane]
                if (size := self._sizes.get(want.need)) is not None
            ]

    def demand(self) -> Mapping[str, Lane]:
        """Return the most urgent lane that has jobs for a model, waiting or just begun, by its key."""
        with self._lock:
            # The most urgent lane is written last.
            return {key: lane for lane in reversed(Lane) for key in self._demand[lane]}
