"""The resident models and the line of those who wait: state and effects, owned by the scheduler's one thread.

No method may be called from any other thread, and none blocks: loading and unloading run in the background and *post*
what came of them.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from daemon.models import residency
from daemon.models.apportioning import Apportioning
from daemon.models.learned import Learned
from daemon.models.leases import EngineFactory, Lease, Waiter
from daemon.models.load_deaths import DeathPolicy, LoadDeaths
from daemon.models.references import ResolvedModel
from daemon.models.residency import Claim, Phase, Request, Resident, Verdict
from daemon.models.resident import Model
from daemon.models.wishes import NOBODYS, Line, NoLine, Outlook, Wish
from jobs.errors import Interrupted, JobCancelled, MlxdError, ModelTooLarge, RunnerDied
from jobs.model import Lane

log = logging.getLogger(__name__)

Event = Callable[[], None]

#: Seconds a runner gets to end by itself when its model is unloaded.
UNLOAD_S: Final = 5.0

# What the person is told, by the case of the decision.
_WAITING_FOR: Final = {2: "loading", 3: "making room for", 7: "waiting for room for", 8: "waiting for room for"}


class Residents:
    """What is resident, and who waits."""

    def __init__(
        self,
        *,
        spawn: EngineFactory,
        budget: int,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        post: Callable[[Event], None],
        background: Callable[[Event], None],
        policy: Callable[[], DeathPolicy] = DeathPolicy,
        learned: Learned | None = None,
    ) -> None:
        self._spawn = spawn
        self._budget = budget
        self._clock = clock
        self._now = now
        self._post = post
        self._background = background
        self._seq = itertools.count()
        self._line: list[Waiter] = []
        self._closing = False
        self.models: dict[str, Model] = {}
        self.memory = Apportioning(self.models, learned or Learned())
        #: The jobs that wait, which wish for models.
        self.queued: Line = NoLine()
        self.deaths = LoadDeaths(clock=clock, policy=policy)
        #: Models that queued jobs need not wait for: they were refused, or could not be loaded.
        self._hopeless: set[str] = set()
        #: To whom places are promised: the urgency of the first in the line.
        self._promised: dict[str, float] = {}
        #: When running jobs of the batch lane are to be asked to make room, on the clock.
        self._recall_at: float | None = None
        #: Models whose last load failed, and why.
        self.problems: dict[str, tuple[ResolvedModel, str]] = {}
        #: Whether a model came or went since somebody last set this to False.
        self.changed = False

    @property
    def closed(self) -> bool:
        """Whether everything has been ended."""
        return self._closing and not self.models

    def deadline(self) -> float | None:
        """Return when the next keep-alive ends, on the clock."""
        ends = [at for one in self._residents() if (at := residency.deadline(one)) is not None]
        return min(ends if self._recall_at is None else [*ends, self._recall_at], default=None)

    def outlook(self) -> Outlook:
        """Return which models jobs can be started on."""
        ready = {key for key, model in self.models.items() if model.phase is Phase.READY}
        return Outlook(
            ready={key: self._promised.get(key, NOBODYS) for key in ready},
            hopeless=frozenset(self._hopeless) | self.deaths.barred_keys(),
        )

    def _residents(self) -> list[Resident]:
        return [model.facts() for model in self.models.values()]

    def settle(self) -> None:
        """Serve the line, then unload what has run out or what is too much."""
        if self._closing:
            return
        demand, now = self.queued.demand(), self._clock()
        doomed = frozenset(key for key, model in self.models.items() if model.doomed)
        ahead, self._promised, self._recall_at = residency.Ahead(promised=doomed), dict.fromkeys(doomed, -NOBODYS), None
        for key, model in self.models.items():
            model.wanted = key in demand
            model.reserved &= model.wanted
        asked, reserved = self._asked(), dict[str, int]()
        for request in residency.line_up(asked, now):
            decision = residency.decide(request, self._residents(), self._budget, ahead, demand)
            self._carry_out(asked[request], request, decision)
            if decision.verdict is Verdict.WAIT:
                self._promise(request, decision.victims, now)
            before, ahead = ahead, ahead.behind(request, decision)
            if (
                decision.verdict is Verdict.SERVE
                and request.claim is not Claim.RUNNING
                and self._unused(request.key, now)
            ):
                ahead = ahead.keeping(request.key)
            if ahead is not before and request.key not in self.models:
                reserved[request.key] = request.need
        self._unload_surplus(sum(reserved.values()))

    def _unload_surplus(self, reserved: int) -> None:
        """Unload what has run out, and what is too much beside the *reserved* bytes of those who wait."""
        for key in residency.expired(self._residents(), self._clock()):
            self._unload(key, "idle")
        for key in residency.overflow(self._residents(), self._budget):
            self._unload(key, "memory")
        while victims := self.memory.settle(self._budget, reserved):
            for key in victims:
                self._unload(key, "memory")

    def _unused(self, key: str, now: float) -> bool:
        """Tell whether a model has just come, and nobody had the time to use it.

        Not for ever: the workers that might use it may all be waiting for its place.
        """
        model = self.models[key]
        return not model.leases and now < model.since + residency.PATIENCE_S

    @property
    def room(self) -> int:
        """Return the bytes of the budget that nobody has."""
        return self._budget - sum(one.memory for one in self._residents())

    def unload_idle(self, *, excess: int | None) -> int:
        """Unload idle models that take *excess* bytes, None: all, pinned ones too; return how many."""
        idle = sorted((one for one in self._residents() if one.idle), key=lambda one: (one.pinned, one.last_used))
        left, count = excess, 0
        for one in idle:
            if left is not None and (left <= 0 or one.pinned):
                break
            self._unload(one.key, "pressure")
            left, count = None if left is None else left - one.memory, count + 1
        return count

    def _asked(self) -> dict[Request, Waiter | Wish]:
        """Return what is asked for, by running jobs and by queued ones."""
        asked: dict[Request, Waiter | Wish] = {self._request(waiter): waiter for waiter in self._line}
        for seq, wish in enumerate(self.queued.wishes()):
            key = wish.model.key
            if key not in self._hopeless and not self.deaths.barred(key):
                need, claim = wish.need, Claim.DUE if wish.due else Claim.POLITE
                asked[Request(key=key, lane=wish.lane, seq=seq, since=wish.since, need=need, claim=claim)] = wish
        return asked

    def _request(self, waiter: Waiter) -> Request:
        key, need = waiter.model.key, waiter.estimate
        return Request(key=key, lane=waiter.lane, seq=waiter.seq, since=waiter.since, need=need)

    def _carry_out(self, asker: Waiter | Wish, request: Request, decision: residency.Decision) -> None:
        model = asker.model
        say = asker.say if isinstance(asker, Waiter) else _nobody
        match decision.verdict:
            case Verdict.SERVE if isinstance(asker, Waiter):
                self._serve(asker)
            case Verdict.SERVE:
                self.models[model.key].reserved = True
            case Verdict.LOAD:
                say(f"loading {model.ref}")
                self._load(model, request.need)
            case Verdict.EVICT:
                for key in decision.victims:
                    self._unload(key, "evicted")
                say(f"making room for {model.ref}")
            case Verdict.WAIT:
                say(f"{_WAITING_FOR[decision.case]} {model.ref}")
            case Verdict.REFUSE if isinstance(asker, Waiter):
                self._line.remove(asker)
                asker.fail(_too_large(model, request.need, decision.available, self._budget))
            case Verdict.REFUSE:
                self._hopeless.add(model.key)

    def _promise(self, request: Request, victims: Iterable[str], now: float) -> None:
        """Keep the places of *victims* for *request*, and ask the batch lane's running jobs for them if it may."""
        for key in victims:
            self._promised.setdefault(key, request.urgency(now))
            lent = [lease for lease in self.models[key].lent if lease.lane is Lane.BATCH and lease.recall]
            if not lent or request.lane is Lane.BATCH:
                continue
            patience = 0.0 if request.lane is Lane.INTERACTIVE else residency.PATIENCE_S
            if now < request.since + patience:
                self._recall_at = min(request.since + patience, self._recall_at or NOBODYS)
                continue
            for lease in lent:
                recall, lease.recall = lease.recall, None
                if recall is not None:
                    self._background(recall)

    def _serve(self, waiter: Waiter) -> None:
        model = self.models[waiter.model.key]
        model.leases += 1
        model.refs.add(waiter.model.ref)
        model.keep_alive = waiter.model.keep_alive_s
        self._touch(model)
        self._line.remove(waiter)
        engine = model.engine
        give_back = lambda: self._post(lambda: self._given_back(model, lease))  # noqa: E731 - bound to this very model
        lease = Lease(engine, ref=waiter.model.ref, lane=waiter.lane, give_back=give_back, recall=waiter.recall)
        model.lent.append(lease)
        waiter.grant(lease)

    def _load(self, resolved: ResolvedModel, need: int) -> None:
        engine = self._spawn(
            resolved,
            on_exit=lambda: self._post(lambda: self._gone(model)),
            on_memory=lambda found: self._post(lambda: self.memory.measured(model, found)),
        )
        model = Model(
            resolved=resolved,
            engine=engine,
            estimate=need,
            pinned=resolved.pin,
            keep_alive=resolved.keep_alive_s,
            last_used=self._clock(),
            refs={resolved.ref},
        )
        engine.on_wishes = lambda data: self._post(lambda: self.memory.wishes(model, data))
        self.models[resolved.key] = model
        self.changed = True
        log.info("Loading %s", resolved.ref, extra={"action": "models.load", "estimate": need})
        self._background(lambda: self._start_engine(model))

    def _start_engine(self, model: Model) -> None:
        """Load on a background thread and post what came of it."""
        try:
            model.engine.start()
        except MlxdError as error:
            failure = error
        except Exception as error:  # fork failed, no descriptors left: told to the waiters like any other failure
            log.exception("A runner could not be started", extra={"action": "models.spawn_failed"})
            failure = RunnerDied(f"The runner of {model.resolved.ref} could not be started: {error}")
        else:
            self._post(lambda: self._loaded(model))
            return
        self._post(lambda: self._not_loaded(model, failure))

    # -- events -----------------------------------------------------------------------------------------------------

    def arrive(self, waiter: Waiter) -> None:
        """Put *waiter* at the end of the line."""
        if waiter.model.key not in self.models:
            # Loaded with a draft model beside it is loaded: nothing need be loaded twice.
            there = (model.resolved for model in self.models.values() if not model.doomed)
            waiter.model = next((one for one in there if one.covers(waiter.model)), waiter.model)
        if (refusal := Interrupted() if self._closing else self.deaths.refusal(waiter.model)) is not None:
            waiter.fail(refusal)
            return
        waiter.seq, waiter.since = next(self._seq), self._clock()
        self._line.append(waiter)

    def withdraw(self, waiter: Waiter) -> None:
        """Take *waiter* out of the line, if it is still there."""
        if waiter in self._line:
            self._line.remove(waiter)
            waiter.fail(JobCancelled())

    def _loaded(self, model: Model) -> None:
        if model.phase is not Phase.LOADING or self.models.get(model.resolved.key) is not model:
            return
        model.phase = Phase.READY
        model.loaded_at, model.since = self._now(), self._clock()
        self.memory.loaded(model)
        model.doomed = model.doomed and not any(waiter.model.key == model.resolved.key for waiter in self._line)
        self._touch(model)
        self.problems.pop(model.resolved.key, None)
        self.deaths.loaded(model.resolved.key)
        self._hopeless.discard(model.resolved.key)
        self.changed = True

    def _not_loaded(self, model: Model, error: MlxdError) -> None:
        key = model.resolved.key
        self._gone(model)
        if self._closing:
            return
        log.warning("Could not load %s: %s", model.resolved.ref, error.message, extra={"action": "models.load_failed"})
        if isinstance(error, RunnerDied):
            error = self.deaths.died(model.resolved, error)
        else:
            self._hopeless.add(key)
        self.problems[key] = (model.resolved, error.message)
        for waiter in [one for one in self._line if one.model.key == key]:
            self._line.remove(waiter)
            waiter.fail(error)

    def _given_back(self, model: Model, lease: Lease) -> None:
        model.leases -= 1
        model.lent.remove(lease)
        model.reserved = False
        self._touch(model)

    def _gone(self, model: Model) -> None:
        """Forget a model whose runner has ended, whether it was asked to or not."""
        if self.models.get(model.resolved.key) is model:
            self.memory.gone(model)
            del self.models[model.resolved.key]
            self.changed = True

    def _touch(self, model: Model) -> None:
        model.last_used, model.used_at = self._clock(), self._now()

    def _unload(self, key: str, why: str) -> None:
        model = self.models[key]
        model.phase = Phase.UNLOADING
        self.changed = True
        log.info("Unloading %s (%s)", model.resolved.ref, why, extra={"action": "models.unload", "why": why})
        self._background(lambda: self._stop_engine(model, UNLOAD_S))

    def _stop_engine(self, model: Model, timeout: float) -> None:
        model.engine.stop(timeout)
        self._post(lambda: self._gone(model))

    def doom(self, ref: str) -> bool:
        """Mark what *ref* names for unloading; False if it is not resident."""
        found = [model for model in self.models.values() if ref in model.refs or ref == str(model.resolved.path)]
        for model in found:
            model.doomed = True
        return any(model.phase is not Phase.UNLOADING for model in found)

    def pin(self, key: str, *, pin: bool) -> None:
        """Pin or unpin a resident model."""
        if key in self.models:
            self.models[key].pinned = pin

    def renew(self, budget: int | None, fresh: Mapping[str, ResolvedModel]) -> None:
        """Take a new budget and the configuration's models by key."""
        self._budget = self._budget if budget is None else budget
        self._hopeless.clear()
        for key, model in self.models.items():
            if key in fresh:
                model.pinned, model.keep_alive = fresh[key].pin, fresh[key].keep_alive_s

    def close(self, timeout: float) -> None:
        """Fail whoever waits and end every runner."""
        self._closing = True
        while self._line:
            self._line.pop().fail(Interrupted())
        for model in self.models.values():
            model.phase = Phase.UNLOADING
            self._background(lambda model=model: self._stop_engine(model, timeout))  # type: ignore[misc]

    def kill_all(self) -> None:
        """End the runners that do not end by themselves."""
        for model in self.models.values():
            model.engine.kill()


def _nobody(_message: str) -> None:
    """Tell nobody: the jobs have not begun."""


def _too_large(model: ResolvedModel, need: int, available: int, budget: int) -> ModelTooLarge:
    pinned = budget - available
    message = (
        f"{model.ref} needs about {need / 1e9:.2f} GB, and all models together may have {budget / 1e9:.2f} GB"
        + (f", of which pinned ones keep {pinned / 1e9:.2f} GB. " if pinned > 0 else ". ")
        + f"Raise memory.budget{', unpin a model,' if pinned > 0 else ''} or take a smaller one."
    )
    return ModelTooLarge(message, need=need, available=available, budget=budget)
