"""The scheduler's models as values that travel over the socket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from daemon.models.references import ResolvedModel
from daemon.models.resident import Model
from daemon.models.residents import Residents
from daemon.views import ModelStatus, Residency


def status(residents: Residents, absent: Iterable[ResolvedModel]) -> list[ModelStatus]:
    """Return resident models, failed ones, and those of *absent* that are neither."""
    found = [_shown(model, ref) for model in residents.models.values() for ref in sorted(model.refs)]
    failed = [
        _failed(model, problem) for key, (model, problem) in residents.problems.items() if key not in residents.models
    ]
    named = {(one.ref, one.runtime) for one in [*found, *failed]}
    for model in absent:
        if (model.ref, model.runtime) not in named:
            named.add((model.ref, model.runtime))
            found.append(_absent(model))
    return [*found, *failed]


def _shown(model: Model, ref: str) -> ModelStatus:
    return ModelStatus(
        ref=ref,
        runtime=model.resolved.runtime,
        state=Residency(model.phase.value),
        pid=model.engine.pid,
        pinned=model.pinned,
        leases=model.leases,
        memory_bytes=model.memory,
        estimate_bytes=model.estimate,
        loaded_at=model.loaded_at,
        last_used=model.used_at,
        keep_alive_s=_shown_stay(model.keep_alive),
        info=dict(model.engine.info),
    )


def _absent(model: ResolvedModel, **more: Any) -> ModelStatus:
    stay = _shown_stay(model.keep_alive_s)
    return ModelStatus(ref=model.ref, runtime=model.runtime, pinned=model.pin, keep_alive_s=stay, **more)


def _failed(model: ResolvedModel, problem: str) -> ModelStatus:
    return _absent(model, state=Residency.FAILED, problem=problem)


def _shown_stay(keep_alive: float | None) -> float:
    return -1.0 if keep_alive is None else keep_alive
