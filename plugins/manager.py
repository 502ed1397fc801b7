"""Loads plugins and keeps one that is broken from hurting the others.

1. Built-ins first, then installed packages, then single files: whoever comes first has the name.
2. A plugin that raises while it is imported or in a registering hook, or that has a hook we do not know, is taken out
   as a whole. A task or runtime of the wrong shape, or under a name already taken, is left out alone.
3. Either way the reason stands in `status`, and jobs for what is missing are blocked, not failed.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pluggy
from pydantic import BaseModel, ValidationError

from jobs.errors import InvalidParams, MlxdError, UnknownTask
from jobs.model import Job
from plugins import hookspecs, shapes, sources
from plugins.complaints import complaints
from plugins.patience import Stuck, bounded, said
from plugins.runtime import Runtime
from plugins.sources import Source
from plugins.task import VALIDATE, Task

log = logging.getLogger(__name__)

#: What somebody else's code may throw at us: sys.exit() at import must not end the daemon.
_ANYTHING = (Exception, SystemExit)

#: Seconds that a plugin that is not ours may take to be imported and to register what it has.
LOAD_S: Final = 30.0
#: Seconds that a plugin may take to hear of a job's end; one that takes longer is not told any more.
HEAR_S: Final = 5.0


class PluginInfo(NamedTuple):
    """What became of one plugin."""

    name: str
    #: "builtin", "entry-point" or "file".
    kind: str
    #: Module, distribution or path.
    source: str
    version: str | None
    tasks: tuple[str, ...]
    runtimes: tuple[str, ...]
    #: What is wrong with it, if anything.
    problem: str | None
    #: False: installed but switched off by the configuration; not a problem.
    enabled: bool = True


@dataclass(kw_only=True)
class _Loaded:
    """A source and what came of loading it."""

    source: Source
    enabled: bool = True
    plugin: Any = None
    tasks: dict[str, Task] = field(default_factory=dict)
    runtimes: dict[str, Runtime] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    #: It did not return in time: whatever it still does is not listened to.
    given_up: bool = False
    #: It did not come back from hearing of a job's end.
    deaf: bool = False

    def info(self) -> PluginInfo:
        source, problem = self.source, "; ".join(self.problems) or None
        names = tuple(self.tasks), tuple(self.runtimes)
        return PluginInfo(source.name, source.kind, source.origin, source.version, *names, problem, self.enabled)


class PluginManager:
    """The loaded plugins.

    *files* is the folder of single-file plugins. *entry_points*: True loads every installed plugin, False looks for
    none, a collection names the distributions or entry points to load. *disabled* names plugins of any kind to leave
    out. *builtins* are module names.
    """

    def __init__(
        self,
        *,
        files: Path | None = None,
        entry_points: bool | Collection[str] = False,
        disabled: Collection[str] = (),
        builtins: Collection[str] = sources.BUILTINS,
        load_s: float = LOAD_S,
        hear_s: float = HEAR_S,
    ) -> None:
        self._files = files
        self._load_s = load_s
        self._hear_s = hear_s
        self._entry_points = entry_points
        self._disabled = frozenset(disabled)
        self._builtins = tuple(builtins)
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._loaded: list[_Loaded] = []
        self.tasks: Mapping[str, Task] = MappingProxyType({})
        self.runtimes: Mapping[str, Runtime] = MappingProxyType({})

    def load(self) -> None:
        """Find and load everything; never raises because of a plugin."""
        for source in sources.builtins(self._builtins):
            self._load(source)
        self._load_installed()
        self.reload()

    def reload(self) -> None:
        """Look at the single files again: load new and changed ones, drop those that are gone."""
        found = [] if self._files is None else sources.single_files(self._files)
        for old in [one for one in self._loaded if one.source.kind == "file" and not _unchanged(one.source, found)]:
            self._unregister(old)
            self._loaded.remove(old)
        self._publish()
        kept = {one.source.origin for one in self._loaded}
        for source in found:
            if source.origin not in kept:
                self._load(source)

    def status(self) -> list[PluginInfo]:
        """Return what became of every plugin that was found, in loading order."""
        return [one.info() for one in self._loaded]

    def job_finished(self, job: Job) -> None:
        """Tell every plugin that *job* reached a terminal state; what one raises is logged and stops nobody."""
        for one in tuple(self._loaded):
            if one.deaf or not self._hears(one):
                continue
            hook = self._hook("mlxd_job_finished", one)
            try:
                bounded(partial(hook, job=job), self._hear_s, name=f"plugin-{one.source.name}")
            except Stuck as error:
                one.deaf = True
                one.problems.append(f"mlxd_job_finished: {error}; it is not told of jobs any more")
                self._complain(one, job, error)
            except _ANYTHING as error:
                self._complain(one, job, error)

    def _hears(self, one: _Loaded) -> bool:
        """Tell whether the plugin wants to know of jobs' ends; most do not, and they cost no thread."""
        callers = self._pluggy.get_hookcallers(one.plugin) if one.plugin is not None else None
        return any(caller.name == "mlxd_job_finished" for caller in callers or ())

    def _complain(self, one: _Loaded, job: Job, error: BaseException) -> None:
        context = {"action": "plugin.hook_failed", "plugin": one.source.name, **job.log_context}
        log.warning(
            "Plugin %s failed to hear of job %s: %s",
            one.source.name,
            job.id,
            said(error),
            extra=context,
            exc_info=error,
        )

    def owner(self, task: str) -> str:
        """Return the name of the plugin that offers *task*; empty if none does."""
        return next((one.source.name for one in self._loaded if task in one.tasks), "")

    def task(self, name: str) -> Task:
        """Return the task called *name*.

        Raises:
            UnknownTask: with the nearest names, and the broken plugins that may have offered it.

        """
        try:
            return self.tasks[name]
        except KeyError:
            raise UnknownTask(self._unknown("task", name, self.tasks), task=name, known=sorted(self.tasks)) from None

    def takes(self, task: str) -> frozenset[str] | None:
        """Return the names of the parameters of *task*, None if it is not here or takes any."""
        found = self.tasks.get(task)
        if found is None or found.params.model_config.get("extra") == "allow":
            return None
        return frozenset(found.params.model_fields)

    def parse(self, task: str, params: Mapping[str, Any]) -> BaseModel:
        """Return *params* as the task's own model.

        Raises:
            InvalidParams: with every problem, by field.
            UnknownTask: no loaded plugin offers *task*.

        """
        model = self.task(task).params
        try:
            return model.model_validate(dict(params), context={VALIDATE: self.validate})
        except ValidationError as error:
            problems = complaints(error, model)
            message = f"{task}: " + "; ".join(f"{one['field']}: {one['message']}" for one in problems)
            raise InvalidParams(message, task=task, problems=problems) from error
        except MlxdError:
            raise
        except Exception as error:  # a plugin's own validator may raise anything: this request is refused, no more
            raise InvalidParams(
                f"{task}: its parameters could not be checked: {type(error).__name__}: {said(error)}", task=task
            ) from error

    def validate(self, task: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return *params* validated, as JSON, without the defaults that nobody asked for. Raises as `parse` does."""
        return self.parse(task, params).model_dump(mode="json", exclude_unset=True)

    def _load_installed(self) -> None:
        if self._entry_points is False:
            return
        wanted = None if self._entry_points is True else {_normal(name) for name in self._entry_points}
        for source, distribution in sources.installed(hookspecs.PROJECT):
            named = {_normal(source.name), _normal(distribution)}
            self._load(source, enabled=wanted is None or bool(named & wanted))

    def _load(self, source: Source, *, enabled: bool = True) -> None:
        one = _Loaded(source=source, enabled=enabled and source.name not in self._disabled)
        self._loaded.append(one)
        if not one.enabled:
            return
        try:
            if source.kind == "builtin":
                self._import(one)
            else:
                bounded(partial(self._import, one), self._load_s, name=f"load-{source.name}")
        except _ANYTHING as error:
            one.given_up = True
            self._unregister(one)
            one.problems.append(_sentence(error))
        if one.problems:
            context = {"action": "plugin.broken", "plugin": source.name}
            log.warning("Plugin %s (%s): %s", source.name, source.origin, "; ".join(one.problems), extra=context)
        self._publish()

    def _import(self, one: _Loaded) -> None:
        if one.source.refused:
            raise ImportError(one.source.refused)
        plugin = one.source.load()
        if one.given_up:
            return
        if self._pluggy.has_plugin(one.source.name):
            raise ImportError(f"another plugin is already called {one.source.name!r}")
        one.plugin = plugin
        self._pluggy.register(plugin, name=one.source.name)
        self._pluggy.check_pending()
        if not self._pluggy.get_hookcallers(plugin):
            raise ImportError("it has no mlxd hook in it")
        fault = shapes.task_fault if one.source.kind == "builtin" else shapes.stranger_fault
        self._hook("mlxd_register_tasks", one)(register=_taker(one.tasks, self.tasks, one, fault))
        taker = _taker(one.runtimes, self.runtimes, one, shapes.runtime_fault)
        self._hook("mlxd_register_runtimes", one)(register=taker)

    def _hook(self, name: str, one: _Loaded) -> Callable[..., Any]:
        """Return hook *name* of this plugin alone, so that one that raises does not cut off those after it."""
        others = [plugin for plugin in self._pluggy.get_plugins() if plugin is not one.plugin]
        return self._pluggy.subset_hook_caller(name, remove_plugins=others)

    def _unregister(self, one: _Loaded) -> None:
        if one.plugin is not None and self._pluggy.get_plugin(one.source.name) is one.plugin:
            self._pluggy.unregister(name=one.source.name)
        one.plugin = None
        one.tasks.clear()
        one.runtimes.clear()

    def _publish(self) -> None:
        """Replace the mappings in one step: other threads read them without a lock."""
        self.tasks = MappingProxyType({name: task for one in self._loaded for name, task in one.tasks.items()})
        self.runtimes = MappingProxyType({name: it for one in self._loaded for name, it in one.runtimes.items()})

    def _unknown(self, kind: str, name: str, known: Mapping[str, Any]) -> str:
        message = f"No loaded plugin offers the {kind} {name!r}."
        if near := difflib.get_close_matches(name, known, n=1):
            message += f" Did you mean {near[0]!r}?"
        elif known:
            message += f" There are: {', '.join(sorted(known))}."
        broken = [one.source.name for one in self._loaded if one.problems]
        if broken:
            message += f" These plugins have problems, see `mlxd plugins`: {', '.join(broken)}."
        return message


def _taker(mine: dict[str, Any], taken: Mapping[str, Any], one: _Loaded, fault: Callable[[Any], str | None]) -> Any:
    """Return the *register* function a hook is given."""

    def register(thing: Any) -> None:
        if one.given_up:
            return
        if problem := fault(thing):
            one.problems.append(problem)
        elif thing.name in mine or thing.name in taken:
            one.problems.append(f"the name {thing.name!r} is already taken; the first one stays")
        else:
            mine[thing.name] = thing

    return register


def _unchanged(source: Source, found: Collection[Source]) -> bool:
    return any((now.origin, now.stamp, now.refused) == (source.origin, source.stamp, source.refused) for now in found)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _sentence(error: BaseException) -> str:
    """Say what a plugin raised, and where, in a line."""
    if isinstance(error, ImportError) and error.name is None:
        return said(error)
    where, frame = "", error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is not None and not frame.tb_frame.f_code.co_filename.startswith("<"):
        where = f" ({Path(frame.tb_frame.f_code.co_filename).name}, line {frame.tb_lineno})"
    return f"{type(error).__name__}: {said(error)}{where}"
