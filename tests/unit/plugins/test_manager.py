"""The plugin manager: who is loaded, who is left out and why."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import BUILTIN_TASKS, job, loaded
from pydantic import BaseModel, field_validator

from jobs.errors import InvalidParams, UnknownTask
from jobs.model import Job
from plugins import sources
from plugins.hookspecs import hookimpl
from plugins.manager import PluginInfo, PluginManager
from plugins.task import VALIDATE

SHOUT = """
import pluggy
from pydantic import BaseModel

hookimpl = pluggy.HookimplMarker("mlxd")

class Params(BaseModel):
    text: str

class Shout:
    name = "shout"
    summary = "Say it loud"
    params = Params

    def run(self, ctx, params):
        return {"text": params.text.upper()}

@hookimpl
def mlxd_register_tasks(register):
    register(Shout())
"""


class Params(BaseModel):
    text: str = "a"


async def _coroutine(ctx: Any, params: Any) -> dict[str, Any]:
    return {}


class Quiet:
    """A task that does nothing."""

    summary = "Do nothing"
    params: type[BaseModel] = Params

    def __init__(self, name: str = "quiet") -> None:
        self.name = name

    def run(self, ctx: Any, params: Any) -> dict[str, Any]:
        return {}


class Tiny:
    """A runtime that loads nothing."""

    summary = "Nothing"

    def __init__(self, name: str = "tiny") -> None:
        self.name = name

    def estimate(self, model: Path, options: Any) -> Any:
        return None

    def load(self, model: Path, options: Any) -> Any:
        return None


def plugin(tasks: Any = (), runtimes: Any = (), **more: Any) -> types.ModuleType:
    """Return a plugin object that registers *tasks* and *runtimes*."""

    @hookimpl
    def mlxd_register_tasks(register: Callable[[Any], None]) -> None:
        for task in tasks:
            register(task)

    @hookimpl
    def mlxd_register_runtimes(register: Callable[[Any], None]) -> None:
        for runtime in runtimes:
            register(runtime)

    hooks = {"mlxd_register_tasks": mlxd_register_tasks, "mlxd_register_runtimes": mlxd_register_runtimes}
    return _module(**{**hooks, **more})


def _module(**members: Any) -> types.ModuleType:
    module = types.ModuleType("anonymous")
    vars(module).update(members)
    return module


@pytest.fixture
def with_modules(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PluginManager]:
    """Return a function that loads the modules it is given as the built-ins."""

    def load(*modules: Any, **options: Any) -> PluginManager:
        names = [f"mlxd_test_plugin_{number}" for number, _ in enumerate(modules)]
        for name, module in zip(names, modules, strict=True):
            monkeypatch.setitem(sys.modules, name, module)
        manager = PluginManager(builtins=names, **options)
        manager.load()
        return manager

    return load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "plugins"
    path.mkdir(mode=0o700)
    return path


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def problem(manager: PluginManager, name: str) -> str:
    return next(info.problem or "" for info in manager.status() if info.name == name)


def test_the_builtins_offer_the_tasks_that_ship_with_mlxd() -> None:
    """Tasks are plugins like any other: loading the built-in modules registers them all, without a problem."""
    manager = loaded()
    assert set(manager.tasks) == {"generate", "transcribe", "batch", "pipeline", "memo"}
    assert [info.problem for info in manager.status()] == [None] * len(BUILTIN_TASKS)
    assert manager.status()[0] == PluginInfo(
        "generate", "builtin", "plugins.generate", None, ("generate",), (), None, enabled=True
    )


def test_a_plugin_that_raises_at_import_is_reported_and_the_others_load(folder: Path) -> None:
    """An exception, and even sys.exit(), while a file is imported takes out that file only."""
    put(folder, "broken.py", "x = 1\nraise RuntimeError('no luck')\n")
    put(folder, "leaver.py", "import sys\nsys.exit(3)\n")
    put(folder, "shout.py", SHOUT)
    put(folder, "typo.py", "def (:\n")
    manager = loaded(files=folder)
    assert problem(manager, "broken") == "RuntimeError: no luck (broken.py, line 2)"
    assert problem(manager, "leaver").startswith("SystemExit: 3")
    assert problem(manager, "typo").startswith("SyntaxError")
    assert "shout" in manager.tasks
    assert "mlxd_plugin_broken" not in sys.modules


def test_a_plugin_that_raises_in_a_registering_hook_is_taken_out_whole(with_modules: Any) -> None:
    """What it had registered before it raised does not stay behind; the plugin after it is asked all the same."""

    @hookimpl
    def mlxd_register_runtimes(register: Any) -> None:
        raise OSError("no device")

    bad = plugin(tasks=[Quiet("half")], mlxd_register_runtimes=mlxd_register_runtimes)
    manager = with_modules(bad, plugin(tasks=[Quiet()]))
    assert set(manager.tasks) == {"quiet"}
    assert problem(manager, "mlxd_test_plugin_0").startswith("OSError: no device")


def test_a_hook_that_does_not_exist_is_a_problem(with_modules: Any) -> None:
    """A misspelt hook would otherwise be silence: the plugin is refused and the hook is named."""

    @hookimpl
    def mlxd_register_task(register: Any) -> None:
        """Forget the s."""

    manager = with_modules(_module(mlxd_register_task=mlxd_register_task), plugin(tasks=[Quiet()]))
    assert "unknown hook 'mlxd_register_task'" in problem(manager, "mlxd_test_plugin_0")
    assert set(manager.tasks) == {"quiet"}


def test_a_hook_with_a_wrong_argument_is_a_problem(with_modules: Any) -> None:
    """A hook that asks for an argument nobody passes is refused at loading, not at the first call."""

    @hookimpl
    def mlxd_job_finished(jobs: Any) -> None:
        """Misspell the argument."""

    manager = with_modules(_module(mlxd_job_finished=mlxd_job_finished), plugin(tasks=[Quiet()]))
    assert "jobs" in problem(manager, "mlxd_test_plugin_0")
    assert set(manager.tasks) == {"quiet"}


def test_of_two_tasks_with_one_name_the_first_wins(with_modules: Any) -> None:
    """The second one is left out and reported; what else its plugin offers stays."""
    first = Quiet()
    manager = with_modules(plugin(tasks=[first]), plugin(tasks=[Quiet(), Quiet("other")]))
    assert manager.tasks["quiet"] is first
    assert "other" in manager.tasks
    assert "'quiet' is already taken" in problem(manager, "mlxd_test_plugin_1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "two words"}, "name must be"),
        ({"name": None}, "name must be"),
        ({"summary": None}, "summary must be"),
        ({"params": dict}, "params must be a pydantic model class"),
        ({"run": None}, "no method run"),
        ({"run": _coroutine}, "must be an ordinary function"),
    ],
)
def test_a_task_of_the_wrong_shape_is_left_out(with_modules: Any, change: dict[str, Any], said: str) -> None:
    """The problem says what is wrong with it; the plugin's other tasks load."""
    task = Quiet()
    vars(task).update(change)
    manager = with_modules(plugin(tasks=[task, Quiet("fine")]))
    assert set(manager.tasks) == {"fine"}
    assert said in problem(manager, "mlxd_test_plugin_0")


def test_a_plugin_without_hooks_is_a_problem(folder: Path) -> None:
    """A forgotten decorator would otherwise be silence."""
    put(folder, "plain.py", "def mlxd_register_tasks(register): pass\n")
    assert problem(loaded(files=folder), "plain") == "it has no mlxd hook in it"


def test_parameters_without_a_schema_are_refused(folder: Path) -> None:
    """A stranger's field that JSON Schema cannot say would make the list of all tasks fail."""
    put(folder, "shout.py", SHOUT.replace("text: str", "text: str\n    on_done: __import__('typing').Callable"))
    manager = loaded(files=folder)
    assert "shout" not in manager.tasks
    assert "its params have no JSON Schema" in problem(manager, "shout")


def test_a_link_leads_to_a_safe_folder_or_is_refused(folder: Path, tmp_path: Path) -> None:
    """Developers link their plugin into the folder; where the link leads, others must not write either."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (folder / "shout.py").symlink_to(put(elsewhere, "shout.py", SHOUT))
    assert "shout" in loaded(files=folder).tasks
    elsewhere.chmod(0o777)
    assert "elsewhere can be written by others" in problem(loaded(files=folder), "shout")


def test_a_class_instead_of_an_instance_is_left_out(with_modules: Any) -> None:
    """The commonest mistake gets a message of its own."""
    manager = with_modules(plugin(tasks=[Quiet], runtimes=[Tiny]))
    assert problem(manager, "mlxd_test_plugin_0").count("register an instance") == 2


def test_runtimes_are_registered_and_checked(with_modules: Any) -> None:
    """A runtime needs estimate and load; one name is one runtime."""
    lame = Tiny("lame")
    lame.load = None  # type: ignore[assignment,method-assign]
    manager = with_modules(plugin(runtimes=[Tiny(), lame, Tiny()]))
    assert set(manager.runtimes) == {"tiny"}
    assert "no method load" in problem(manager, "mlxd_test_plugin_0")
    assert "already taken" in problem(manager, "mlxd_test_plugin_0")


def test_a_single_file_leaves_nothing_behind(folder: Path) -> None:
    """It is imported under a private name; no compiled file appears, sys.path stays as it was."""
    put(folder, "shout.py", SHOUT)
    before = list(sys.path)
    manager = loaded(files=folder)
    assert sys.path == before
    assert sorted(path.name for path in folder.iterdir()) == ["shout.py"]
    assert type(manager.tasks["shout"]).__module__ == "mlxd_plugin_shout"
    assert manager.validate("shout", {"text": "a"}) == {"text": "a"}


def test_a_folder_that_others_can_write_to_is_refused(folder: Path) -> None:
    """Whoever can write there could run code as this person: nothing in it is imported, and chmod is named."""
    put(folder, "shout.py", SHOUT)
    folder.chmod(0o777)
    manager = loaded(files=folder)
    assert "shout" not in manager.tasks
    assert "can be written by others (mode 0777)" in problem(manager, "shout")
    assert "chmod go-w" in problem(manager, "shout")


def test_a_file_that_others_can_write_to_is_refused(folder: Path) -> None:
    """The same holds for the file itself; its neighbours load."""
    put(folder, "shout.py", SHOUT).chmod(0o620)
    put(folder, "quiet.py", SHOUT.replace('"shout"', '"calm"'))
    manager = loaded(files=folder)
    assert "can be written by others" in problem(manager, "shout")
    assert "calm" in manager.tasks


def test_what_is_no_plugin_file_is_not_looked_at(folder: Path) -> None:
    """Dot files, underscored files and other suffixes are nobody's plugin; a folder called .py is refused."""
    for name in (".hidden.py", "_shared.py", "notes.txt"):
        put(folder, name, "raise RuntimeError")
    (folder / "strange.py").mkdir(mode=0o700)
    (folder / "dangling.py").symlink_to(folder / "nowhere")
    manager = loaded(files=folder, builtins=())
    assert [info.name for info in manager.status()] == ["dangling", "strange"]
    assert "not a regular file" in problem(manager, "strange")
    assert "cannot be read" in problem(manager, "dangling")


def test_a_missing_folder_is_no_problem(tmp_path: Path) -> None:
    """Most people have no plugin folder."""
    assert len(loaded(files=tmp_path / "nowhere").status()) == len(BUILTIN_TASKS)


def test_a_file_cannot_take_the_name_of_a_builtin(folder: Path) -> None:
    """A file generate.py is refused, unless the built-in was switched off: so it can be replaced on purpose."""
    put(folder, "generate.py", SHOUT.replace('"shout"', '"generate"'))
    manager = loaded(files=folder)
    assert type(manager.tasks["generate"]).__module__ == "plugins.generate"
    assert "another plugin is already called 'generate'" in [info.problem for info in manager.status()]


def test_reload_takes_up_new_changed_and_removed_files(folder: Path) -> None:
    """Only files are looked at again; one that did not change keeps its task object."""
    put(folder, "shout.py", SHOUT)
    kept = put(folder, "kept.py", SHOUT.replace('"shout"', '"kept"'))
    manager = loaded(files=folder)
    same, generate = manager.tasks["kept"], manager.tasks["generate"]
    put(folder, "shout.py", SHOUT.replace('"shout"', '"yell"'))
    put(folder, "new.py", SHOUT.replace('"shout"', '"new"'))
    manager.reload()
    assert {"yell", "new", "kept"} <= set(manager.tasks)
    assert "shout" not in manager.tasks
    assert manager.tasks["kept"] is same
    kept.unlink()
    manager.reload()
    assert "kept" not in manager.tasks
    assert manager.tasks["generate"] is generate


def test_reload_repairs_a_broken_file(folder: Path) -> None:
    """A mistake that was corrected is forgotten."""
    path = put(folder, "shout.py", "raise RuntimeError")
    manager = loaded(files=folder)
    assert problem(manager, "shout")
    path.write_text(SHOUT)
    manager.reload()
    assert problem(manager, "shout") == ""
    assert "shout" in manager.tasks


def test_disabled_plugins_are_listed_but_not_loaded(folder: Path) -> None:
    """Being switched off is no problem, and the code is not imported."""
    put(folder, "shout.py", "raise RuntimeError")
    manager = loaded(files=folder, disabled=["shout", "batch"])
    assert [(info.name, info.problem) for info in manager.status() if not info.enabled] == [
        ("batch", None),
        ("shout", None),
    ]
    assert "batch" not in manager.tasks


def test_job_finished_reaches_everybody_though_one_raises(with_modules: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What one plugin raises is logged with its name; those before and after it hear of the job."""
    heard: list[str] = []

    def listener(name: str, error: BaseException | None = None) -> Any:
        @hookimpl
        def mlxd_job_finished(job: Job) -> None:
            heard.append(f"{name} {job.id}")
            if error is not None:
                raise error

        return _module(mlxd_job_finished=mlxd_job_finished)

    manager = with_modules(listener("a"), listener("b", SystemExit(1)), listener("c"))
    finished = job("generate")
    manager.job_finished(finished)
    assert sorted(heard) == [f"a {finished.id}", f"b {finished.id}", f"c {finished.id}"]
    assert "mlxd_test_plugin_1 failed to hear of job" in caplog.text


def test_job_finished_passes_over_broken_plugins(folder: Path) -> None:
    """A plugin that did not load is not called."""
    put(folder, "broken.py", "raise RuntimeError")
    loaded(files=folder).job_finished(job("generate"))


def test_unknown_task_names_the_nearest_and_the_broken_plugins(folder: Path) -> None:
    """The message helps against a slip of the pen and against a plugin that failed to load."""
    put(folder, "broken.py", "raise RuntimeError")
    with pytest.raises(UnknownTask, match=r"'generat'. Did you mean 'generate'\? .*`mlxd plugins`: broken") as caught:
        loaded(files=folder).validate("generat", {})
    assert caught.value.facts["task"] == "generat"


def test_a_task_unlike_any_is_answered_with_those_there_are(folder: Path) -> None:
    """In the sentence itself, for whoever does not read JSON."""
    with pytest.raises(UnknownTask, match=r"'xyzzy'\. There are: batch, .*generate, .*transcribe"):
        loaded(files=folder).validate("xyzzy", {})


def test_wrong_parameters_are_all_named_at_once() -> None:
    """One answer tells every mistake: field, what is wrong, what was given, the nearest right name."""
    with pytest.raises(InvalidParams) as caught:
        loaded().validate("generate", {"prompt": "a", "temprature": 1, "top_p": 7, "max_tokens": "many"})
    message = caught.value.message
    assert "temprature: there is no such parameter; did you mean 'temperature'?" in message
    assert "top_p: input should be less than or equal to 1, got 7" in message
    assert "max_tokens: input should be a valid integer" in message
    assert [one["field"] for one in caught.value.facts["problems"]] == ["max_tokens", "top_p", "temprature"]


def test_a_wrong_value_is_shown_only_in_part() -> None:
    """Prompts stay out of messages, which reach the log: at most 40 characters of a value are repeated."""
    with pytest.raises(InvalidParams) as caught:
        loaded().validate("generate", {"prompt": ["secret " * 100]})
    assert len(caught.value.message) < 150


def test_validated_params_are_json_without_unasked_defaults() -> None:
    """The ledger keeps what was asked, so that defaults set in the configuration still apply."""
    assert loaded().validate("generate", {"file": "/a/b.txt", "max_tokens": "7"}) == {
        "file": "/a/b.txt",
        "max_tokens": 7,
    }


def test_a_missing_parameter_is_said_to_be_needed(with_modules: Any) -> None:
    """Pydantic's "Field required" becomes a sentence."""
    manager = loaded()
    with pytest.raises(InvalidParams, match="transcribe: file: it is needed"):
        manager.validate("transcribe", {})


def test_a_validator_that_breaks_refuses_the_request_only(with_modules: Any) -> None:
    """A plugin's own validator may raise anything: the caller gets InvalidParams, an MlxdError passes through."""

    class Odd(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def _odd(cls, value: str) -> str:
            if value == "missing":
                raise UnknownTask("not here")
            raise ZeroDivisionError

    task = Quiet()
    task.params = Odd
    manager = with_modules(plugin(tasks=[task]))
    with pytest.raises(InvalidParams, match="could not be checked: ZeroDivisionError"):
        manager.validate("quiet", {"text": "a"})
    with pytest.raises(UnknownTask, match="not here"):
        manager.validate("quiet", {"text": "missing"})


def test_a_params_model_can_validate_other_tasks(with_modules: Any) -> None:
    """The validation context carries the manager's validate, for tasks made of tasks."""
    seen: list[Any] = []

    class Curious(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def _look(cls, value: str, info: Any) -> str:
            seen.append(info.context[VALIDATE])
            return value

    task = Quiet()
    task.params = Curious
    manager = with_modules(plugin(tasks=[task]))
    manager.validate("quiet", {"text": "a"})
    assert seen == [manager.validate]


def test_installed_plugins_load_only_when_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """False looks for none; a list loads those named by entry point or distribution; True loads all."""
    found = [
        (sources.Source(name=name, kind="entry-point", origin=dist, load=lambda n=name: plugin([Quiet(n)])), dist)
        for name, dist in [("one", "Dist_One"), ("two", "dist-two")]
    ]
    monkeypatch.setattr(sources, "installed", lambda group: found if group == "mlxd" else [])
    assert loaded(builtins=()).status() == []
    assert set(loaded(builtins=(), entry_points=True).tasks) == {"one", "two"}
    some = loaded(builtins=(), entry_points=["dist-one"])
    assert set(some.tasks) == {"one"}
    assert [(info.name, info.enabled, info.problem) for info in some.status()] == [
        ("one", True, None),
        ("two", False, None),
    ]
    assert set(loaded(builtins=(), entry_points=["two"]).tasks) == {"two"}


def test_the_same_plugin_twice_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two distributions with one entry-point name: the first stays, the second is a problem."""
    found = [
        (sources.Source(name="one", kind="entry-point", origin=dist, load=lambda d=dist: plugin([Quiet(d)])), dist)
        for dist in ("a", "b")
    ]
    monkeypatch.setattr(sources, "installed", lambda group: found)
    manager = loaded(builtins=(), entry_points=True)
    assert set(manager.tasks) == {"a"}
    assert [info.problem for info in manager.status()] == [None, "another plugin is already called 'one'"]


def test_loading_everything_imports_no_engine() -> None:
    """The daemon stays small: with every built-in loaded, neither MLX nor NumPy nor PyAV is in the process."""
    code = (
        "import sys, plugins.manager as m\n"
        "p = m.PluginManager(entry_points=True); p.load()\n"
        "heavy = {'mlx', 'mlx_lm', 'mlx_whisper', 'numpy', 'av', 'transformers', 'torch', 'huggingface_hub', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(sources.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env={**os.environ}
    )
    assert done.stdout.strip() == "[]"
