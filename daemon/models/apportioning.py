"""Shares the budget out among the resident models and hears what they want and learn; on the scheduler's thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from daemon.models.learned import Learned
from daemon.models.residency import Phase
from daemon.models.resident import Model
from daemon.models.shares import Claimant, in_the_way, shares
from jobs.model import Lane
from plugins.runtime import Share

#: A runner is told of a new share when it differs by this part of the budget.
_NEWS: Final = 0.02


class Apportioning:
    """*models* are those that take memory, by key; they are changed by the residents."""

    def __init__(self, models: Mapping[str, Model], learned: Learned) -> None:
        self._models = models
        self._learned = learned
        self._told: dict[str, Share] = {}
        self._paused: list[str] = []

    def settle(self, budget: int, reserved: int) -> tuple[str, ...]:
        """Tell every runner its share; return the idle models that are in the way of one that stands still."""
        claimants = [self._claimant(model) for model in self._models.values()]
        victims = in_the_way(claimants, budget, reserved)
        if victims:  # asked again as soon as they are on their way out
            return victims
        found = shares(claimants, budget, reserved)
        self._told = {key: share for key, share in self._told.items() if key in found}
        for key, share in found.items():
            if _news(self._told.get(key), share, budget):
                self._told[key] = share
                self._models[key].engine.order("share", share=share._asdict())
        return ()

    def _claimant(self, model: Model) -> Claimant:
        facts, lesson = model.facts(), self._learned.of(model.resolved.key)
        return Claimant(
            key=facts.key,
            memory=facts.memory,
            ready=facts.phase is Phase.READY,
            leaving=facts.phase is Phase.UNLOADING,
            in_use=facts.leases > 0,
            spare=facts.idle and not (facts.pinned or facts.reserved),
            pinned=facts.pinned,
            last_used=facts.last_used,
            wants=model.wants,
            ceiling=lesson.ceiling,
            factor=lesson.factor,
        )

    def told(self, key: str) -> Share | None:
        """Return the share that a model was told last."""
        return self._told.get(key)

    # -- what the runners say ---------------------------------------------------------------------------------------

    def loaded(self, model: Model) -> None:
        """Greet a runner that has become ready."""
        if self._paused:
            model.engine.order("pause", lanes=self._paused)

    def measured(self, model: Model, found: int) -> None:
        """Take what its runner occupies, bytes."""
        if model.memory is None and model.phase is not Phase.UNLOADING:
            self._learned.loaded(model.resolved.key, found)
        model.memory = found

    def wishes(self, model: Model, data: Mapping[str, Any]) -> None:
        """Take what its session wants and has learned."""
        wanted, ceiling, factor = data.get("wanted"), data.get("ceiling"), data.get("factor")
        model.wants = wanted if isinstance(wanted, int) and wanted > 0 else 0
        if isinstance(ceiling, int) and ceiling != model.ceiling:
            model.ceiling = ceiling
            self._learned.too_much(model.resolved.key, ceiling)
        if isinstance(factor, float | int) and factor > 0:
            self._learned.takes(model.resolved.key, float(factor))

    def gone(self, model: Model) -> None:
        """Learn from the end of a runner."""
        key = model.resolved.key
        if model.engine.ran_out:
            share = self._told.get(key)
            occupied = model.memory or model.estimate
            self._learned.died(key, min(occupied, share.memory) if share is not None else occupied)
        elif model.phase is Phase.UNLOADING:
            self._learned.ended_well(key)

    # -- what the machine's memory asks for -------------------------------------------------------------------------

    def trim(self) -> None:
        """Let every runner give back what it keeps for speed alone."""
        for model in self._models.values():
            model.engine.order("trim")

    def pause(self, lanes: Collection[Lane]) -> None:
        """Let the runners begin nothing new of *lanes* beside other work."""
        self._paused = [lane.value for lane in lanes]
        for model in self._models.values():
            model.engine.order("pause", lanes=self._paused)


def _news(told: Share | None, share: Share, budget: int) -> bool:
    if told is None or told._replace(memory=0, most=0, factor=0) != share._replace(memory=0, most=0, factor=0):
        return True
    return max(abs(told.memory - share.memory), abs(told.most - share.most)) > _NEWS * budget
