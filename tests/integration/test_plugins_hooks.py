"""Every hook, called for real in a plugin that imports nothing of mlxd: a single file in a plugin folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes_tasks import FakeContext, job

from plugins.manager import PluginManager

EVERYTHING = """
import pluggy
from pydantic import BaseModel

hookimpl = pluggy.HookimplMarker("mlxd")
heard = []


class Params(BaseModel):
    text: str


class Echo:
    name = "echo"
    summary = "Say it again"
    params = Params

    def run(self, ctx, params):
        ctx.output("echo.txt", params.text)
        return {"text": params.text}


class Nothing:
    name = "nothing"
    summary = "Holds nothing"

    def estimate(self, model, options):
        return (0, 0)

    def load(self, model, options):
        return None


@hookimpl
def mlxd_register_tasks(register):
    register(Echo())


@hookimpl
def mlxd_register_runtimes(register):
    register(Nothing())


@hookimpl
def mlxd_job_finished(job):
    heard.append(job.id)
"""


@pytest.fixture
def manager(tmp_path: Path) -> PluginManager:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o700)
    (folder / "everything.py").write_text(EVERYTHING)
    (folder / "everything.py").chmod(0o600)
    manager = PluginManager(files=folder)
    manager.load()
    return manager


def test_mlxd_register_tasks(manager: PluginManager, tmp_path: Path) -> None:
    """A task that was registered is found by name, its parameters are checked, it runs and writes."""
    ctx = FakeContext(tmp_path / "out", task="echo", plugins=manager)
    result = manager.task("echo").run(ctx, manager.parse("echo", {"text": "a"}))
    assert result == {"text": "a"}
    assert (tmp_path / "out" / "echo.txt").read_text() == "a"


def test_mlxd_register_tasks_makes_a_step(manager: PluginManager, tmp_path: Path) -> None:
    """A stranger's task is a pipeline's step like any other."""
    ctx = FakeContext(tmp_path / "out", task="pipeline", plugins=manager)
    params = {"text": "a", "steps": [{"task": "generate"}, {"task": "echo", "params": {"text": "<{text}>"}}]}
    assert manager.task("pipeline").run(ctx, manager.parse("pipeline", params))["text"] == "<A>"


def test_mlxd_register_runtimes(manager: PluginManager) -> None:
    """A runtime that was registered is found by name."""
    assert manager.runtimes["nothing"].summary == "Holds nothing"


def test_mlxd_job_finished(manager: PluginManager) -> None:
    """The hook gets the finished job."""
    manager.job_finished(job("echo"))
    heard = vars(__import__("sys").modules["mlxd_plugin_everything"])["heard"]
    assert heard == [job("echo").id]
