"""The configuration: TOML in, one frozen value out; every mistake is told at once.

``docs/config.md`` explains every key to people; a test keeps the two together.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from daemon.config.errors import explain
from daemon.config.folders import FolderConfig, Switch, expand, inbox, listed
from daemon.config.http import HttpConfig
from daemon.config.lanes import Lanes
from daemon.config.notify import NotifyConfig
from daemon.config.schedules import ScheduleConfig
from daemon.config.shortcuts import ShortcutConfig
from daemon.config.units import Budget, KeepAlive, Percentage, Seconds, Size, budget_bytes, keep_alive, physical_memory
from daemon.paths import Home
from jobs import toml
from jobs.errors import ConfigError
from jobs.model import Frozen, Lane

#: Environment variables that overrule the file, and the key each one stands for.
OVERRIDES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"MLXD_LOG_LEVEL": ("log", "level"), "MLXD_MEMORY_BUDGET": ("memory", "budget")}
)

_WORKERS: Final = MappingProxyType({Lane.INTERACTIVE: 8, Lane.NORMAL: 8, Lane.BATCH: 4})
_OVERTAKEN: Final = MappingProxyType({Lane.INTERACTIVE: 5.0, Lane.NORMAL: 60.0, Lane.BATCH: 600.0})


Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
Count = Annotated[int, Field(strict=True, ge=1)]


class MemoryConfig(Frozen):
    """``[memory]``: how much of the machine the models may have."""

    #: For all resident models together: a share of the physical memory ("60%") or a size ("12GB").
    budget: Budget = "60%"
    #: Share of the budget above which caches are trimmed and the batch lane begins nothing new.
    warn: Percentage = "100%"
    #: Share of the budget above which idle models are unloaded and the batch lane's jobs step aside.
    critical: Percentage = "115%"
    #: Whether macOS is told to keep models' memory from being paged out. Has ended in kernel panics.
    wired: Switch = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.marks(100)[0] > self.marks(100)[1]:
            raise ValueError(f"warn ({self.warn}) must not be above critical ({self.critical})")
        return self

    def marks(self, total: int | None = None) -> tuple[int, int]:
        """Return the bytes at `warn` and at `critical`, as `budget_bytes` does."""
        budget = self.budget_bytes(total)
        return int(budget * float(self.warn[:-1]) / 100), int(budget * float(self.critical[:-1]) / 100)

    def budget_bytes(self, total: int | None = None) -> int:
        """Return the budget in bytes on a machine with *total* bytes of memory (default: this one)."""
        return budget_bytes(self.budget, total=physical_memory() if total is None else total)


class ModelConfig(Frozen):
    """``[models.<alias>]``: a name of your own for a model, and how long it stays."""

    #: A model reference: a folder, a Hugging Face id with an optional ``@revision``, ``demo:lm`` or ``demo:whisper``.
    path: str = Field(min_length=1)
    #: The runtime that serves it; None: the one the task asks for.
    runtime: str | None = None
    #: Load it at start and keep it.
    pin: Switch = False
    #: Seconds it stays after its last use; -1 for ever. Default: ``defaults.keep_alive``.
    keep_alive: KeepAlive = 300.0
    #: Passed to the runtime as they are.
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("path", mode="after")
    @classmethod
    def _local(cls, value: str, info: ValidationInfo) -> str:
        """Make what is clearly a path absolute; ``org/name`` is left alone."""
        return os.path.normpath(expand(value, info)) if value.startswith(("~", "./", "../", "/")) else value


class DefaultsConfig(Frozen):
    """``[defaults]``: the model of each runtime for jobs that name none. Other runtimes' names are keys too."""

    __pydantic_extra__: dict[str, str]
    model_config = ConfigDict(frozen=True, extra="allow")

    #: Model reference or alias for language models.
    lm: str = "demo:lm"
    #: Model reference or alias for speech recognition.
    whisper: str = "demo:whisper"
    #: Seconds an unused model stays in memory; -1 for ever, 0 unloads at once.
    keep_alive: KeepAlive = 300.0

    def refs(self) -> dict[str, str]:
        """Return runtime -> default model reference, those of unknown runtimes too."""
        return {"lm": self.lm, "whisper": self.whisper, **self.__pydantic_extra__}


class QueueConfig(Frozen):
    """``[queue]``: how many jobs at once, how many in all."""

    #: Worker threads of each lane.
    workers: dict[Lane, Count] = Field(default_factory=lambda: dict(_WORKERS))
    #: Unfinished jobs that are accepted before submitters are told to come back later.
    limit: Count = 10_000
    #: What they are told to wait.
    retry_after_s: Seconds = 5.0
    #: Seconds after its end until a job may be forgotten.
    keep: Seconds = 90 * 86_400.0
    #: Latest jobs that are kept however old they are.
    keep_jobs: Count = 1000
    #: How long a job is overtaken, at most, by others of its lane whose model is resident, so that models are not
    #: swapped job by job; 0: never.
    overtaken_s: dict[Lane, Seconds] = Field(default_factory=lambda: dict(_OVERTAKEN))

    @field_validator("workers", "overtaken_s", mode="before")
    @classmethod
    def _others_stay(cls, value: Any, info: ValidationInfo) -> Any:
        """Keep the default of every lane that is not named."""
        defaults: Mapping[Lane, float] = _WORKERS if info.field_name == "workers" else _OVERTAKEN
        named = {lane.value: number for lane, number in defaults.items()}
        return {**named, **value} if isinstance(value, Mapping) else value


class RunnerConfig(Frozen):
    """``[runner]``: the processes that hold the models."""

    #: Longest time a model may take to load.
    start_timeout_s: Seconds = 300.0
    #: Longest silence of a runner that has work, before it is taken for hung and ended.
    silence_timeout_s: Seconds = 300.0
    #: Runner deaths after which a job is quarantined.
    max_crashes: Count = 3
    #: Loads in a row whose runner died, after which a model is set aside: its jobs wait, and are not blamed for it.
    max_load_deaths: Count = 3
    #: For how long.
    load_rest_s: Seconds = 600.0
    #: Whether a runner without a model is kept ready while models come and go: the next one loads a second sooner.
    spare: Switch = True
    #: Environment variables for runners.
    env: dict[str, str] = Field(default_factory=dict)
    #: Most bytes of beginnings of prompts on the disk, of all models together; 0 keeps none.
    prefix_cache: Size = 4_000_000_000


def _all_or_none(value: Any) -> Any:
    return {"all": True, "none": False}.get(value, value) if isinstance(value, str) else value


class PluginsConfig(Frozen):
    """``[plugins]``: whose code is loaded."""

    #: Installed plugins: "all", "none", or a list of entry-point names.
    entry_points: Annotated[Annotated[bool, Field(strict=True)] | tuple[str, ...], BeforeValidator(_all_or_none)] = True
    #: Plugins that are not loaded, built-in ones too.
    disabled: Names = ()
    #: Settings of each plugin, by its name.
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)


class LogConfig(Frozen):
    """``[log]``: what is written down."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    #: Size at which a log file is put aside.
    max_bytes: Size = 10_000_000
    #: How many files put aside are kept.
    keep: Annotated[int, Field(strict=True, ge=0)] = 3


class WatchConfig(Frozen):
    """``[watch]``: what all watched folders have in common."""

    #: Time between two full looks at every folder: the safety net below the events.
    rescan_seconds: Annotated[Seconds, Field(ge=1)] = 60.0


class OutputsConfig(Frozen):
    """``[outputs]``: what goes with the files that jobs write."""

    #: Whether outputs in watched folders and in folders that a submitter named get a ``.mlxd.json`` beside them.
    provenance: Switch = True
    #: Whose jobs take the recorded result of the same work: those of watched folders, everybody's, nobody's.
    reuse: Literal["folders", "always", "never"] = "folders"


class Config(Frozen):
    """Everything that can be set."""

    memory: MemoryConfig = MemoryConfig()
    #: Alias -> model. A string is short for a table with that ``path``.
    models: dict[str, ModelConfig] = Field(default_factory=dict)
    defaults: DefaultsConfig = DefaultsConfig()
    #: Task name -> parameters used unless the submitter says otherwise.
    tasks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    #: The watched folders. Default: the inbox.
    folders: tuple[FolderConfig, ...] = ()
    watch: WatchConfig = WatchConfig()
    #: Jobs that come at their time.
    schedules: tuple[ScheduleConfig, ...] = ()
    outputs: OutputsConfig = OutputsConfig()
    queue: QueueConfig = QueueConfig()
    #: Lane -> under which conditions its jobs run. Lanes that are not named have none.
    lanes: Lanes = Field(default_factory=dict)
    #: Who hears of a job's end.
    notify: tuple[NotifyConfig, ...] = ()
    runner: RunnerConfig = RunnerConfig()
    plugins: PluginsConfig = PluginsConfig()
    #: Name -> menu entry that `mlxd shortcuts install` knows besides the built-in ones.
    shortcuts: dict[str, ShortcutConfig] = Field(default_factory=dict)
    #: How long running jobs may go on after the daemon was told to stop.
    drain_seconds: Seconds = 30.0
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="before")
    @classmethod
    def _models(cls, raw: Any) -> Any:
        """Turn ``alias = "reference"`` into a table, and give each model the default keep-alive."""
        models = raw.get("models") if isinstance(raw, Mapping) else None
        if not isinstance(models, Mapping):
            return raw
        defaults = raw.get("defaults")
        common = {"keep_alive": defaults["keep_alive"]} if _keeps(defaults) else {}
        return {**raw, "models": {alias: _model_table(model, common) for alias, model in models.items()}}

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        paths = [folder.path for folder in self.folders]
        if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
            raise ValueError(f"each folder once, but these come twice: {', '.join(twice)}")
        entries = [entry.name for entry in self.notify]
        if twice := sorted({name for name in entries if entries.count(name) > 1}):
            raise ValueError(f"a name of its own for each [[notify]], but these come twice: {', '.join(twice)}")
        names = [schedule.name for schedule in self.schedules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each schedule's name once, but these come twice: {', '.join(twice)}")
        return self


def _model_table(model: Any, common: Mapping[str, Any]) -> Any:
    if isinstance(model, str):
        return {**common, "path": model}
    return {**common, **model} if isinstance(model, Mapping) else model


def _keeps(defaults: Any) -> bool:
    """Tell whether *defaults* has a keep-alive that is not itself a mistake (told once, not once per model)."""
    if not isinstance(defaults, Mapping) or "keep_alive" not in defaults:
        return False
    try:
        keep_alive(defaults["keep_alive"])
    except ValueError:
        return False
    return True


def load(path: Path, *, home: Home, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration in the file *path*; a missing file means the defaults.

    Raises:
        ConfigError: the file cannot be read or is wrong; names the file and for every mistake the key, what it got
            and what it wanted. ``facts["problems"]`` has the same for programs.

    """
    raw = with_overrides(read(path), environ)
    context = {"base": path.absolute().parent, "user": environ.get("HOME")}
    try:
        config = Config.model_validate(raw, context=context)
    except ValidationError as error:
        raise explain(error, file=path, raw=raw, model=Config, names=_override_names(environ)) from None
    return config if "folders" in raw else config.model_copy(update={"folders": (inbox(home.inbox),)})


def read(path: Path) -> dict[str, Any]:
    """Return the TOML in the file *path* as it stands, empty if there is no file.

    Raises:
        ConfigError: it cannot be read, or is no TOML; names the line.

    """
    try:
        return toml.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})", file=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", file=str(path)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", file=str(path)) from None


def with_overrides(raw: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return *raw* with what the environment overrules."""
    changed = dict(raw)
    for variable, (table, key) in OVERRIDES.items():
        inner = changed.get(table, {})
        if environ.get(variable) and isinstance(inner, Mapping):
            changed[table] = {**inner, key: environ[variable].lower() if key == "level" else environ[variable]}
    return changed


def _override_names(environ: Mapping[str, str]) -> dict[str, str]:
    return {".".join(key): variable for variable, key in OVERRIDES.items() if environ.get(variable)}
