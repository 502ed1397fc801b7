"""Makes engines for the scheduler: where the configuration's runner settings become a `daemon.launch.Launch`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daemon.engine import Engine
from daemon.launch import Launch, PluginPlace
from daemon.models import ResolvedModel


@dataclass(frozen=True, kw_only=True)
class Spawner:
    """An `daemon.leases.EngineFactory` that starts real processes."""

    plugins: PluginPlace = field(default_factory=PluginPlace)
    #: Folder of the runners' logs, one file a model; None keeps none.
    logs: Path | None = None
    start_timeout_s: float = 300.0
    silence_timeout_s: float = 300.0
    env: Mapping[str, str] = field(default_factory=dict)
    #: MLX's limits in bytes; None leaves MLX's own.
    memory_limit: int | None = None
    cache_limit: int | None = None

    def __call__(
        self, model: ResolvedModel, *, on_exit: Callable[[], None], on_memory: Callable[[int], None]
    ) -> Engine:
        """Return an engine for *model* that has not been started."""
        launch = Launch(
            runtime=model.runtime,
            model=model.path,
            options=model.options,
            label=model.ref,
            plugins=self.plugins,
            start_timeout_s=self.start_timeout_s,
            silence_timeout_s=self.silence_timeout_s,
            log=None if self.logs is None else self.logs / f"runner-{_file_name(model.ref)}.log",
            env=self.env,
            memory_limit=self.memory_limit,
            cache_limit=self.cache_limit,
        )
        return Engine(launch, on_exit=lambda _: on_exit(), on_memory=on_memory)


def _file_name(ref: str) -> str:
    """Return *ref* as a file name; two that collide share a log, which hurts nobody."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ref).strip("-.")[-80:] or "model"
