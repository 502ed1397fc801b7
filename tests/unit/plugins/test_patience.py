"""Somebody else's code may raise anything, and may never return."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fakes_tasks import job

from plugins.manager import PluginManager
from plugins.patience import Stuck, bounded, said

HOOKS = """
import pluggy
from pydantic import BaseModel
hookimpl = pluggy.HookimplMarker("mlxd")

class Params(BaseModel):
    pass

class Task:
    name, summary, params = "late", "Comes late.", Params

    def run(self, ctx, params):
        return {}

class Unspeakable(BaseException):
    def __str__(self):
        raise RuntimeError("and again")
    __repr__ = __str__
"""

#: Where a plugin can go wrong -> what it does there; ``{wrong}`` is the wrong thing.
PLACES = {
    "import": "{wrong}",
    "tasks": "@hookimpl\ndef mlxd_register_tasks(register):\n    {wrong}\n    register(Task())\n",
    "runtimes": "@hookimpl\ndef mlxd_register_runtimes(register):\n    {wrong}\n",
    "finished": "@hookimpl\ndef mlxd_job_finished(job):\n    {wrong}\n",
}
RAISED = ["raise Unspeakable", "raise KeyboardInterrupt", "raise GeneratorExit", "raise SystemExit(3)",
          "raise MemoryError", "exec('def f(): f()') or f()", "raise ValueError('a\\nb' * 1000)"]  # fmt: skip


def manager_with(folder: Path, source: str) -> PluginManager:
    folder.chmod(0o700)
    (folder / "wrong.py").write_text(HOOKS + source)
    (folder / "wrong.py").chmod(0o600)
    manager = PluginManager(files=folder, load_s=0.2, hear_s=0.2)
    manager.load()
    return manager


@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("wrong", RAISED)
def test_whatever_a_plugin_raises_it_raises_alone(tmp_path: Path, place: str, wrong: str) -> None:
    """In every hook, ends of the program and errors that cannot even be shown: the built-ins stay, a line says why."""
    manager = manager_with(tmp_path, PLACES[place].format(wrong=wrong))
    manager.job_finished(job("generate"))
    assert {"generate", "batch"} <= set(manager.tasks)
    (info,) = [one for one in manager.status() if one.name == "wrong"]
    if place != "finished":
        assert info.problem
        assert "\n" not in info.problem
        assert len(info.problem) < 700
        assert info.tasks == ()


@pytest.mark.parametrize("place", list(PLACES))
def test_a_plugin_that_never_returns_is_left_behind(tmp_path: Path, place: str) -> None:
    """In every hook: the others go on after a while, and what it does when it wakes up after all counts for nothing."""
    wait = "import threading\n{0}threading.wake = threading.Event(); threading.wake.wait(30)"
    indent = "" if place == "import" else "    "
    manager = manager_with(tmp_path, PLACES[place].format(wrong=wait.format(indent)))
    manager.job_finished(job("generate"))
    manager.job_finished(job("generate"))  # it is not asked again: this returns at once
    assert {"generate", "batch"} <= set(manager.tasks)
    (info,) = [one for one in manager.status() if one.name == "wrong"]
    assert "did not return within 0.2 s" in str(info.problem)
    before = threading.enumerate()
    threading.wake.set()  # type: ignore[attr-defined]
    for thread in before:
        if "wrong" in thread.name:
            thread.join(5)
    assert "late" not in manager.tasks
    assert info.tasks == ()


def test_a_call_is_bounded() -> None:
    """A result comes back, an error is raised here, and patience ends."""
    assert bounded(lambda: 7, 5, name="x") == 7
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, 5, name="x")
    with pytest.raises(Stuck, match=r"within 0\.01 s"):
        bounded(threading.Event().wait, 0.01, name="x")


def test_an_errors_text_is_one_short_line() -> None:
    """Line ends, length, and errors that fail at being shown."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert said(ValueError("a\n b")) == "a b"
    assert len(said(ValueError("x" * 10_000))) == 500
    assert said(Odd()) == "(an error that cannot be shown)"
