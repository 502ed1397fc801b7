"""A dry run: what would become of a watched folder's files, and why. Reads and asks; writes nothing at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.complaints import Complaints
from daemon.folders.expectation import Past, expect
from daemon.folders.finder import Finder
from daemon.folders.identity import Facts, FileChanged, HashingStopped, is_dataless, is_regular
from daemon.folders.ignored import is_ignored_file, is_ignored_folder
from daemon.folders.rules import Placed, Takes, patience, why_not
from daemon.views import FileTest, FolderState, FolderTest, TestVerdict
from jobs.errors import MlxdError
from jobs.model import NewJob


class Asking(NamedTuple):
    """Whom a dry run asks."""

    #: Folder, path, rule, facts -> the job that the file has become. Raises what `Intake.known` does.
    known: Callable[[FolderConfig, Path, RuleConfig, Facts], str | None]
    #: Whether mlxd wrote this file.
    is_output: Callable[[Path], bool]
    takes: Takes
    #: Folder, path, rule, facts -> the job. Raises what `daemon.folders.intake.Intake.prepared` does.
    prepared: Callable[[FolderConfig, Path, RuleConfig, Facts], NewJob]
    #: Raises `MlxdError` if the job would not be accepted.
    validate: Callable[[NewJob], object]
    #: Task -> its past jobs.
    past: Callable[[str], list[Past]]
    #: Job -> (runtime, model reference or None) of every model it needs.
    models: Callable[[NewJob], Iterable[tuple[str, str | None]]]
    #: Model reference and runtime -> name and bytes. Raises `MlxdError`.
    estimate: Callable[[str | None, str], tuple[str, int]]


class Preview:
    """One dry run of one folder; made for each anew."""

    def __init__(
        self,
        folder: FolderConfig,
        *,
        asking: Asking,
        excluded: frozenset[Path],
        finder: Callable[..., Finder] = Finder,
        dataless: Callable[[os.stat_result], bool] = is_dataless,
    ) -> None:
        self._folder = folder
        self._asking = asking
        self._complaints = Complaints()
        # `create` would make the folder: nothing is written here.
        watched = folder.model_copy(update={"create": False})
        self._finder = finder(watched, complaints=self._complaints, excluded=excluded, dataless=dataless)
        self._dataless = dataless
        self._past = cache(asking.past)
        self._estimate = cache(self._estimated)

    def run(self, start: str, *, limit: int, paused: bool) -> FolderTest:
        """Try the file or folder *start*, relative to the watched one ("" for itself); list at most *limit* files."""
        if not self._finder.ready():
            state = FolderState.PAUSED if paused else self._finder.state
            if state is FolderState.WATCHING:
                state = FolderState.BROKEN
            return FolderTest(folder=self._folder.path, state=state, problem=self._complaints.text())
        files: list[FileTest] = []
        more = 0
        for relative, status in self._entries(start):
            if len(files) < limit:
                files.append(self._file(relative, status))
            else:
                more += 1
        return self._summed_up(files, more, paused)

    def _summed_up(self, files: list[FileTest], more: int, paused: bool) -> FolderTest:
        running = [one for one in files if one.verdict is TestVerdict.WOULD_RUN]
        seconds = [one.seconds for one in running]
        models = {name: memory for one in running for name, memory in one.models.items()}
        return FolderTest(
            folder=self._folder.path,
            state=FolderState.PAUSED if paused else self._finder.state,
            problem=self._complaints.text(),
            rules=self._finder.recipes.names,
            files=tuple(files),
            more=more,
            would_run=len(running),
            seconds=None if None in seconds else sum(one for one in seconds if one is not None),
            memory_bytes=None if None in models.values() else sum(one for one in models.values() if one is not None),
        )

    def _entries(self, start: str) -> Iterator[tuple[str, os.stat_result | None]]:
        """Yield every file at or below *start*, and in place of a folder that is not looked into the folder itself."""
        self._finder.enter_above(start)
        path = self._folder.path / start
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            yield start, status
            return
        if start and self._closed(start):
            yield start, None
            return
        self._finder.enter(start)
        for found in sorted(path.iterdir()):
            relative = f"{start}/{found.name}" if start else found.name
            try:
                inner = found.lstat()
                if stat.S_ISDIR(inner.st_mode):
                    yield from self._entries(relative)
                else:
                    yield relative, inner
            except OSError:
                continue  # gone since it was listed, or not ours to look into: the complaints say so

    def _closed(self, relative: str) -> str | None:
        name = relative.rpartition("/")[2]
        if not self._folder.recursive:
            return "folders below are left alone (recursive = false)"
        if is_ignored_folder(name):
            return "folders of this name are never looked into"
        if self._finder.prunes(relative):
            return "it holds results, or is watched by itself"
        above = relative.rpartition("/")[0]
        return self._closed(above) if above else None

    def _file(self, relative: str, status: os.stat_result | None) -> FileTest:
        path = self._folder.path / relative
        above = relative.rpartition("/")[0]
        closed = self._closed(relative if status is None else above) if above or status is None else None
        if why := closed or _unfit(relative, status):
            return FileTest(path=path, verdict=TestVerdict.LEFT_ALONE, why=why)
        assert status is not None  # noqa: S101 - a folder is always closed, see `_entries`
        if self._dataless(status):
            return FileTest(path=path, verdict=TestVerdict.CLOUD_PENDING, why="its content is still in the cloud")
        facts = Facts.of(status)
        rule = self._finder.rule(relative, facts)
        if rule is None:
            return self._without_rule(path, relative, facts)
        try:
            return self._known(path, rule, facts) or self._job(path, rule, facts)
        except (OSError, FileChanged, HashingStopped) as error:
            return FileTest(path=path, verdict=TestVerdict.LEFT_ALONE, why=f"cannot be read now: {error}")

    def _without_rule(self, path: Path, relative: str, facts: Facts) -> FileTest:
        rules, age = self._finder.recipes.standing(relative.rpartition("/")[0]), self._finder.age(facts)
        if rules.problem:
            return FileTest(path=path, verdict=TestVerdict.LEFT_ALONE, why=rules.problem)
        reasons = [(rule.name, why_not(rule, relative, size=facts.size, age=age)) for rule in rules.rules]
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons)
        wait = patience(rules.rules, relative, size=facts.size, age=age)
        if wait is None:
            return FileTest(path=path, verdict=TestVerdict.LEFT_ALONE, why=f"no rule takes it ({why})")
        return FileTest(path=path, verdict=TestVerdict.WAITS, why=why, wait_s=round(wait, 1))

    def _known(self, path: Path, rule: RuleConfig, facts: Facts) -> FileTest | None:
        """Return what was made of the file before, None if it is new."""
        if self._asking.is_output(path):
            return FileTest(path=path, verdict=TestVerdict.LEFT_ALONE, why="mlxd wrote it")
        done = self._asking.known(self._folder, path, rule, facts)
        if done is None:
            return None
        why = f"it was done already, as job {done} (mlxd retry {done} does it again)"
        return FileTest(path=path, verdict=TestVerdict.DONE, rule=rule.name, why=why, job=done)

    def _job(self, path: Path, rule: RuleConfig, facts: Facts) -> FileTest:
        try:
            new = self._asking.prepared(self._folder, path, rule, facts)
            self._asking.validate(new)
        except MlxdError as error:
            return FileTest(
                path=path, verdict=TestVerdict.WOULD_FAIL, rule=rule.name, task=rule.task, why=error.message
            )
        expected = expect(self._past(new.task), facts.size)
        estimates = [self._estimate(ref, runtime) for runtime, ref in self._asking.models(new)]
        models = {name: memory for name, memory, _ in estimates}
        return FileTest(
            path=path,
            verdict=TestVerdict.WOULD_RUN,
            rule=rule.name,
            task=new.task,
            params={key: value for key, value in new.params.items() if key != "file"},
            left_out=self._left_out(rule),
            models=models,
            directory=new.placement.directory,
            stem=new.placement.stem,
            after=new.placement.after,
            seconds=None if expected.seconds is None else round(expected.seconds, 3),
            basis=expected.basis,
            memory_bytes=None if None in models.values() else sum(one for one in models.values() if one is not None),
            why="; ".join(problem for _, _, problem in estimates if problem) or None,
        )

    def _left_out(self, rule: RuleConfig) -> tuple[str, ...]:
        """Return the parameters that sub-folders' names set and the task does not have."""
        names = self._asking.takes(rule.task)
        wishes: Mapping[str, Any] = rule.wishes if isinstance(rule, Placed) else {}
        return () if names is None or "steps" in names else tuple(key for key in wishes if key not in names)

    def _estimated(self, ref: str | None, runtime: str) -> tuple[str, int | None, str | None]:
        try:
            return *self._asking.estimate(ref, runtime), None
        except MlxdError as error:
            return ref or f"the default of {runtime}", None, error.message


def _unfit(relative: str, status: os.stat_result | None) -> str | None:
    """Return why a file is none that any rule could take, None if it may be."""
    name = relative.rpartition("/")[2]
    if is_ignored_file(name):
        return "files of this name are left alone (hidden, unfinished, a backup, a lock, or a report of mlxd)"
    if status is None or not is_regular(status):
        return "it is no ordinary file"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    return None
