"""Attacks by plugins: one that raises anything anywhere, and one that never returns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from fakes_tasks import job

from plugins import manager as managers
from plugins.manager import PluginManager
from torture.row import Control
from torture.security_attack import Attack

_BEGINNING = """
import threading
import pluggy
hookimpl = pluggy.HookimplMarker("mlxd")

class Unspeakable(BaseException):
    def __str__(self):
        raise RuntimeError("and again")
    __repr__ = __str__
"""
_PLACES = (
    "{0}",
    "@hookimpl\ndef mlxd_register_tasks(register):\n    {0}\n",
    "@hookimpl\ndef mlxd_register_runtimes(register):\n    {0}\n",
    "@hookimpl\ndef mlxd_job_finished(job):\n    {0}\n",
)
_RAISED = ("raise Unspeakable", "raise KeyboardInterrupt", "raise GeneratorExit", "raise SystemExit(3)",
           "raise MemoryError", "raise RecursionError", "raise ValueError('a\\nb' * 1000)")  # fmt: skip
_STUCK = "threading.Event().wait(60)"
#: Patience with the plugins of the attack, seconds.
_PATIENCE = 0.1


def wrong_plugins(folder: Path) -> Attack:
    """Load a plugin that goes wrong in each hook in each way; the built-in tasks have to be there afterwards."""
    with _told_in(folder / "log.txt"):
        broken = [one for number, source in enumerate(_sources()) for one in _loaded(folder / str(number), source)]
    with _told_in(folder / "log.txt"), patch.object(managers, "bounded", lambda call, seconds, *, name: call()):
        betrayed = [
            one for number, source in enumerate(_sources(_RAISED)) for one in _loaded(folder / f"c{number}", source)
        ]
    return Attack(
        name="plugins that raise or block in every hook",
        tries=len(_PLACES) * (len(_RAISED) + 1),
        broken=broken,
        control=Control(
            name="plugins called directly", caught=bool(betrayed), evidence="; ".join(betrayed[:2]) or "none"
        ),
        notes=["a plugin has the daemon's rights: one that ends the process, or blocks in a check of parameters, may"],
    )


@contextmanager
def _told_in(file: Path) -> Iterator[None]:
    """Keep what is said of wrong plugins in *file*: a terminal full of tracebacks hides the one that counts."""
    handler = logging.FileHandler(file)
    log = logging.getLogger(managers.__name__)
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = True
        log.removeHandler(handler)
        handler.close()


def _sources(wrongs: tuple[str, ...] = (*_RAISED, _STUCK)) -> Iterator[str]:
    return (_BEGINNING + place.format(wrong) for place in _PLACES for wrong in wrongs)


def _loaded(folder: Path, source: str) -> list[str]:
    """Return what came through: an exception, or built-ins that are missing."""
    folder.mkdir(mode=0o700)
    (folder / "wrong.py").write_text(source)
    (folder / "wrong.py").chmod(0o600)
    manager = PluginManager(files=folder, load_s=_PATIENCE, hear_s=_PATIENCE)
    try:
        manager.load()
        manager.job_finished(job("generate"))
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return [f"{type(error).__name__} came through"]
    return [] if {"generate", "batch", "transcribe"} <= set(manager.tasks) else ["built-in tasks are missing"]
