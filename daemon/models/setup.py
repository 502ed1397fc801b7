"""What the model scheduler is made of: references, limits and runners as the configuration has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from daemon.config.lanes import turns
from daemon.config.model import Config
from daemon.models.engine import Engine
from daemon.models.launch import Launch, PluginPlace
from daemon.models.learned import LEARNED, Learned
from daemon.models.leases import EngineLike
from daemon.models.load_deaths import DeathPolicy
from daemon.models.references import ModelResolver, ResolvedModel
from daemon.models.scheduler import ModelScheduler
from daemon.models.sizes import Sizes
from daemon.models.spares import Spares
from daemon.models.watermarks import Marks
from daemon.paths import Home
from jobs.errors import MlxdError
from plugins.lm_prefix_disk_folder import BYTES, FOLDER
from plugins.manager import PluginManager


def scheduler(home: Home, config: Callable[[], Config], plugins: PluginManager) -> ModelScheduler:
    """Return the scheduler that keeps the models of *config* resident; its runners load the same plugins."""
    learned, spares = Learned(home.state / LEARNED), Spares()
    launch = partial(_launch, home, config, plugin_place(home, config()), learned)
    spawn = partial(_engine, launch, spares)
    return ModelScheduler(
        runtimes=lambda: plugins.runtimes,
        spawn=spawn,
        sizes=Sizes(lambda: plugins.runtimes, learned=learned),
        learned=learned,
        spare=Spare(spares, launch, enabled=lambda: config().runner.spare),
        marks=lambda: marks_of(config()),
        deaths=lambda: DeathPolicy(most=config().runner.max_load_deaths, rest_s=config().runner.load_rest_s),
        **scheduler_settings(config()),
    )


def marks_of(config: Config) -> Marks:
    """Return the watermarks of memory."""
    soft, hard = config.memory.marks()
    return Marks(soft=soft, hard=hard)


def plugin_place(home: Home, config: Config) -> PluginPlace:
    """Return where the daemon and its runners find plugins."""
    return PluginPlace(files=home.plugins, entry_points=config.plugins.entry_points, disabled=config.plugins.disabled)


def scheduler_settings(config: Config) -> dict[str, Any]:
    """Return what the model scheduler takes from the configuration, at the start and at a reload."""
    resolve = resolver(config)
    return {
        "resolve": resolve,
        "budget": config.memory.budget_bytes(),
        "configured": partial(_configured, config, resolve),
    }


def resolver(config: Config) -> ModelResolver:
    """Return what turns references into models under *config*."""
    return ModelResolver(aliases=config.models, defaults=config.defaults.refs(), keep_alive=config.defaults.keep_alive)


def _configured(config: Config, resolve: ModelResolver) -> Iterable[ResolvedModel]:
    """Return the models of the configuration that are on this machine."""
    wanted: Mapping[str, str] = {
        **{ref: runtime for runtime, ref in config.defaults.refs().items()},
        **{alias: model.runtime or "lm" for alias, model in config.models.items()},
    }
    for ref, runtime in wanted.items():
        try:
            yield resolve(ref, runtime)
        except MlxdError:  # not here (yet): `mlxd doctor` says so, and so does whoever asks for it
            continue


def _launch(
    home: Home,
    config: Callable[[], Config],
    place: PluginPlace,
    learned: Learned,
    model: ResolvedModel,
) -> Launch:
    """Return how a runner for *model* is started."""
    settings = config().runner
    return Launch(
        runtime=model.runtime,
        model=model.path,
        options=_options(config(), model),
        label=model.ref,
        plugins=place,
        start_timeout_s=settings.start_timeout_s,
        silence_timeout_s=settings.silence_timeout_s,
        log=home.logs / f"runner-{_file_name(model.ref)}.log",
        env={**settings.env, FOLDER: str(home.prefixes), BYTES: str(settings.prefix_cache)},
        memory_limit=config().memory.budget_bytes(),
        wired=config().memory.wired,
        forgiving=learned.forgiving(model.key),
    )


def _engine(
    launch: Callable[[ResolvedModel], Launch],
    spares: Spares,
    model: ResolvedModel,
    *,
    on_exit: Callable[[], None],
    on_memory: Callable[[int], None],
) -> EngineLike:
    """Make the handle on a runner for *model*."""
    return Engine(launch(model), on_exit=lambda _: on_exit(), on_memory=on_memory, spares=spares)


class Spare:
    """See `daemon.models.sparing.Keeper`."""

    def __init__(
        self, spares: Spares, launch: Callable[[ResolvedModel], Launch], *, enabled: Callable[[], bool]
    ) -> None:
        self._spares = spares
        self._launch = launch
        self._enabled = enabled
        self.end = spares.end
        self.close = spares.close

    @property
    def pid(self) -> int | None:
        """Return the process that waits."""
        return self._spares.pid

    def keep(self, model: ResolvedModel) -> None:
        """Have one, unless the configuration says no."""
        if self._enabled():
            self._spares.keep(self._launch(model))


def _options(config: Config, model: ResolvedModel) -> Mapping[str, Any]:
    """Return what the runtime is told: the model's own options, and what share of the steps each lane has."""
    steps = turns(config.lanes)
    return {"one_step_in": steps, **model.options} if steps and model.runtime in ("lm", "whisper") else model.options


def _file_name(ref: str) -> str:
    """Return *ref* as part of a file name."""
    return "".join(character if character.isalnum() or character in "._-" else "-" for character in ref)[-80:]
