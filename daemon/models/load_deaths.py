"""Models whose runner dies while it loads them: nobody's job is to blame, so the model is set aside, not the jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from daemon.models.references import ResolvedModel
from jobs.errors import ModelUnloadable, RunnerDied


@dataclass(frozen=True, kw_only=True)
class DeathPolicy:
    """Numbers to judge by."""

    #: Loads in a row whose runner died, after which the model is set aside.
    most: int = 3
    #: Seconds until it is tried again by itself; each further death sets it aside for as long.
    rest_s: float = 600.0


@dataclass(kw_only=True)
class _Record:
    count: int = 0
    at: float = 0.0
    why: str = ""


@dataclass(kw_only=True)
class LoadDeaths:
    """Counts; *clock* is in seconds. Owned by the scheduler's thread."""

    clock: Callable[[], float]
    policy: Callable[[], DeathPolicy] = DeathPolicy
    _records: dict[str, _Record] = field(default_factory=dict)

    def died(self, model: ResolvedModel, error: RunnerDied) -> RunnerDied | ModelUnloadable:
        """Count a death; return what those who waited for the model are told. None of it costs a job anything."""
        record = self._records.setdefault(model.key, _Record())
        record.count, record.at, record.why = record.count + 1, self.clock(), error.message
        return self.refusal(model) or RunnerDied(error.message, **{**error.facts, "jobs": 0, "requests": 0})

    def loaded(self, key: str) -> None:
        """Forget what was: the model can be loaded."""
        self._records.pop(key, None)

    def barred(self, key: str) -> bool:
        """Tell whether the model is set aside at the moment."""
        record, policy = self._records.get(key), self.policy()
        return record is not None and record.count >= policy.most and self.clock() < record.at + policy.rest_s

    def barred_keys(self) -> frozenset[str]:
        """Return the models that are set aside at the moment."""
        return frozenset(filter(self.barred, self._records))

    def refusal(self, model: ResolvedModel) -> ModelUnloadable | None:
        """Return why *model* is not loaded, and what can be done; None if nothing speaks against it."""
        if not self.barred(model.key):
            return None
        record, minutes = self._records[model.key], max(1, round(self.policy().rest_s / 60))
        return ModelUnloadable(
            f"{model.ref} is set aside: its runner died in each of its last {record.count} loads. The last time: "
            f"{record.why} Free memory or repair the model, then `mlxd models load {model.ref}`; it is also tried "
            f"again by itself every {minutes} min. Its jobs wait and lose nothing.",
            model=model.ref,
            key=model.key,
            deaths=record.count,
        )

    def counts(self) -> Mapping[str, int]:
        """Return the deaths in a row by model."""
        return {key: record.count for key, record in self._records.items()}
