"""What `mlxd shortcuts` installs: the actions there are, and the files that each becomes on this machine."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from pydantic import ValidationError

from daemon.config.shortcuts import ShortcutConfig
from daemon.installation import describe, user_folder
from daemon.paths import Home
from jobs.errors import InvalidRequest, ServiceError
from launchd import embedded, folder_action, shortcut, workflow
from launchd.contract import Run, ServiceFailure, run_command
from launchd.embedded import Action, Gives, Takes
from launchd.files import private_folder
from launchd.receipts import Condition, Receipt, Receipts, fingerprint, install, remove

#: Which environment variables say where the home is; the launcher sets them as they were at the installation.
_CARRIED: Final = ("MLXD_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
_SUMMARY: Final = "Summarise this:\n{text}"

#: The actions that come with mlxd.
BUILT_IN: Final[Mapping[str, Action]] = MappingProxyType(
    {
        "transcribe": Action(
            title="Transcribe with mlxd",
            task="transcribe",
            takes=Takes.FILES,
            beside=True,
            types=("public.audio", "public.movie"),
        ),
        "summarise": Action(
            title="Summarise with mlxd",
            task="generate",
            takes=Takes.TEXT,
            gives=Gives.REPLACE,
            params={"template": _SUMMARY},
        ),
        "copy-summary": Action(
            title="Copy summary with mlxd",
            task="generate",
            takes=Takes.TEXT,
            gives=Gives.COPY,
            params={"template": _SUMMARY},
        ),
        "prompts": Action(title="Run prompts with mlxd", task="batch", takes=Takes.FOLDER, beside=True),
    }
)


class Kind(StrEnum):
    """As what an action is installed."""

    QUICK_ACTION = "quick-action"
    SHORTCUT = "shortcut"
    FOLDER_ACTION = "folder-action"


_LAUNCHER: Final = "launcher"
_PROTECTED: Final = ("Desktop", "Documents", "Downloads")
_SUFFIX: Final = {Kind.QUICK_ACTION: ".workflow", Kind.SHORTCUT: ".shortcut", Kind.FOLDER_ACTION: ".workflow"}


class Outcome(NamedTuple):
    """What was done with one action."""

    receipt: Receipt
    #: What the person has to know or do, in sentences.
    notes: tuple[str, ...] = ()


def actions(configured: Mapping[str, ShortcutConfig]) -> dict[str, Action]:
    """Return every action by its name; a configured one takes the place of a built-in one of the same name.

    Raises:
        InvalidRequest: a configured title cannot be a file name.

    """
    return {**BUILT_IN, **{name: _configured(name, each) for name, each in configured.items()}}


def of_task(task: str, *, title: str | None = None, takes: str = "files") -> Action:
    """Return an action for any *task*, with its parameters as they are. Raises as `actions` does."""
    try:
        return _configured(task, ShortcutConfig.model_validate({"task": task, "title": title, "input": takes}))
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequest(f"The {first['loc'][0]} {first['input']!r} does not do: {first['msg']}.") from error


def _configured(name: str, each: ShortcutConfig) -> Action:
    takes = Takes(each.input)
    try:
        return Action(
            title=each.title or f"{name.replace('-', ' ').replace('_', ' ').capitalize()} with mlxd",
            task=each.task,
            takes=takes,
            gives=Gives(each.result),
            params=each.params,
            beside=takes is not Takes.TEXT if each.beside is None else each.beside,
        )
    except ValueError as error:
        raise InvalidRequest(f"shortcuts.{name}: {error}.") from error


class Shelf:
    """The installed actions of one home. *run* and *platform* are the ways out.

    With *destination* everything lies in that folder and the system is told nothing: to look at it, or for another Mac.
    Its methods raise `ServiceError`.
    """

    def __init__(
        self,
        home: Home,
        *,
        destination: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        platform: str = sys.platform,
        run: Run = run_command,
    ) -> None:
        self._home = home
        self._environ = environ
        self._run = run
        self._destination = destination
        self._library = user_folder(environ) / "Library"
        self._protected = [user_folder(environ) / name for name in _PROTECTED]
        self._mac = platform == "darwin"
        #: The launcher that all of them call.
        self.launcher = home.state / embedded.LAUNCHER_NAME
        self._receipts = Receipts(home.state / "shortcuts.json")

    def install(
        self, chosen: Mapping[str, Action], kind: Kind, *, force: bool = False, folder: Path | None = None
    ) -> list[Outcome]:
        """Install *chosen* as *kind*, in place of earlier copies; *folder* is what a folder action is bound to."""
        if not self._mac and self._destination is None:
            raise ServiceError(
                "Quick Actions, Shortcuts and Folder Actions belong to macOS. To look at what would be installed "
                "there, name a folder: --dest DIR. `mlxd run-task`, which they call, works everywhere."
            )
        try:
            self._write_launcher(force=force)
            done = [self._install(name, action, kind, force=force, folder=folder) for name, action in chosen.items()]
        except ServiceFailure as error:
            raise ServiceError(str(error), code=error.code) from error
        if kind is Kind.QUICK_ACTION:
            self._tell_system()
        return [one._replace(notes=(*one.notes, *self._warnings())) for one in done]

    def installed(self) -> list[tuple[Receipt, Condition]]:
        """Return what was installed, and what became of it."""
        try:
            return [(one, one.condition()) for one in self._receipts.all()]
        except ServiceFailure as error:
            raise ServiceError(str(error)) from error

    def remove(self, names: Sequence[str], *, force: bool = False) -> tuple[list[Receipt], list[str]]:
        """Remove what is installed under *names* (none: everything); return what went, and why the rest stays."""
        try:
            known = self._receipts.all()
        except ServiceFailure as error:
            raise ServiceError(str(error)) from error
        if unknown := sorted(set(names) - {one.name for one in known}):
            raise ServiceError(f"{unknown[0]!r} is not installed. What is: mlxd shortcuts list")
        gone, refused = [], []
        for one in known:
            if one.kind != _LAUNCHER and (not names or one.name in names):
                try:
                    self._remove(one, force=force)
                    gone.append(one)
                except ServiceFailure as error:
                    refused.append(str(error))
        gone += self._remove_launcher(force=force)
        if gone:
            self._tell_system()
        return gone, refused

    def _warnings(self) -> list[str]:
        """Say what macOS will not let a background program run: its own protection, which asks nobody."""
        parts = {Path(describe(self._home, environ=self._environ).program[0]), self.launcher}
        hidden = [part for part in sorted(parts) if any(part.is_relative_to(one) for one in self._protected)]
        return [
            f"{part} lies in a folder that macOS protects, so Shortcuts may not run it. Install mlxd elsewhere, or set "
            "MLXD_HOME to a folder outside Desktop, Documents and Downloads."
            for part in hidden
            if self._mac
        ]

    def _tell_system(self) -> None:
        if self._mac and self._destination is None:
            workflow.update_services(self._run)

    def _write_launcher(self, *, force: bool) -> None:
        spec = describe(self._home, environ=self._environ)
        names = {name: value for name in _CARRIED if (value := self._environ.get(name))}
        names |= {name: spec.environment[name] for name in ("MLXD_HOME",) if name in spec.environment}
        text = embedded.launcher_text(_isolated(spec.program), names)
        private_folder(self._home.state, uid=os.getuid())
        # No `force` needed for what an earlier version of mlxd wrote; a person's own program is left alone.
        known = self._receipts.at(self.launcher)
        files = install(self.launcher, {"": text.encode()}, known=known, force=force)
        self._receipts.add(Receipt(name=_LAUNCHER, kind=_LAUNCHER, title="", path=self.launcher, files=files))

    def _place(self, action: Action, kind: Kind) -> Path:
        if self._destination is not None:
            folder = self._destination
        elif kind is Kind.QUICK_ACTION:
            folder = self._library / "Services"
        elif kind is Kind.FOLDER_ACTION:
            folder = user_folder(self._environ).joinpath(*folder_action.FOLDER)
        else:
            folder = self._home.state / "shortcuts"
        return folder / f"{action.title}{_SUFFIX[kind]}"

    def _install(self, name: str, action: Action, kind: Kind, *, force: bool, folder: Path | None) -> Outcome:
        path = self._place(action, kind)
        if kind is Kind.SHORTCUT:
            return self._install_shortcut(name, action, path, force=force)
        form = workflow.SERVICE if kind is Kind.QUICK_ACTION else workflow.FOLDER_ACTION
        content = workflow.bundle(action, self.launcher, kind=form)
        files = install(path, content, known=self._receipts.at(path), force=force)
        bound = str(folder) if kind is Kind.FOLDER_ACTION and folder and self._destination is None else ""
        receipt = Receipt(name=name, kind=kind, title=action.title, path=path, files=files, bound=bound)
        self._receipts.add(receipt)
        if bound:
            folder_action.bind(Path(bound), path, run=self._run)
        return Outcome(receipt)

    def _install_shortcut(self, name: str, action: Action, path: Path, *, force: bool) -> Outcome:
        files = install(path, {"": shortcut.render(action, self.launcher)}, known=self._receipts.at(path), force=force)
        file = shlex.quote(str(path))
        told = f"It is not signed. On a Mac: {shortcut.SHORTCUTS} sign --mode anyone --input {file} --output FILE"
        if self._mac:
            told = f"Signed for {self._sign(path)}."
            files = fingerprint(path)
        receipt = Receipt(name=name, kind=Kind.SHORTCUT, title=action.title, path=path, files=files)
        self._receipts.add(receipt)
        if not self._mac or self._destination is not None:
            return Outcome(receipt, (told,))
        shortcut.open_for_import(path, run=self._run)
        return Outcome(receipt, (told, "Click 'Add Shortcut' in the window that has opened.", shortcut.ALLOW))

    def _sign(self, path: Path) -> str:
        signed = path.with_name(f"{path.stem} (signed).shortcut")
        try:
            mode = shortcut.sign(path, signed, run=self._run)
            signed.replace(path)
        finally:
            signed.unlink(missing_ok=True)
        return mode

    def _remove(self, receipt: Receipt, *, force: bool) -> None:
        stays = receipt.condition() is Condition.CHANGED and not force
        if receipt.bound and self._mac and not stays:
            folder_action.unbind(Path(receipt.bound), receipt.path, run=self._run)
        remove(receipt, force=force)
        self._receipts.drop(receipt)

    def _remove_launcher(self, *, force: bool) -> list[Receipt]:
        """Remove the launcher when nothing is left that calls it."""
        left = self._receipts.all()
        if any(one.kind != _LAUNCHER for one in left):
            return []
        for one in left:
            remove(one, force=force)
            self._receipts.drop(one)
        return left


def _isolated(program: tuple[str, ...]) -> tuple[str, ...]:
    """Have a bare interpreter, which ignores PYTHONUTF8 when it is isolated, speak UTF-8 too."""
    return (program[0], "-X", "utf8", *program[1:]) if len(program) > 1 else program
