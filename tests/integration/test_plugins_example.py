"""The example package in docs/ is what it says: installed for real, found by its entry point, run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import FakeContext

from daemon.models.safety import check_model_folder
from plugins.manager import PluginManager
from plugins.task import OnEvent

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "mlxd-example-plugin"
MODEL = EXAMPLE / "dictionary"


def answers(uv: str) -> bool:
    """Return whether it runs: a version manager's shim may be there and not work."""
    try:
        return subprocess.run([uv, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def installer() -> list[str]:
    """Return a command that installs into a folder: uv, which has the example's build backend in it, or pip."""
    local = EXAMPLE.parents[2] / ".tools" / "uv" / "bin" / "uv"
    for uv in (os.environ.get("UV"), shutil.which("uv"), str(local)):
        if uv and answers(uv):
            return [uv, "pip", "install", "--offline", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--no-input"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the example installed in it, as a package manager does it."""
    if not EXAMPLE.is_dir():
        pytest.skip("the documentation is not here: the tests run against a wheel")
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / EXAMPLE.name
    shutil.copytree(EXAMPLE, source)  # building must not write into the checkout
    done = subprocess.run(
        [*installer(), "--no-deps", "--quiet", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named pip" in done.stderr:
        pytest.skip("neither uv nor pip is here to install the example with")
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def manager(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginManager]:
    monkeypatch.syspath_prepend(str(site))
    manager = PluginManager(entry_points=["mlxd-example-plugin"])
    manager.load()
    yield manager
    for name in [name for name in sys.modules if name.startswith("mlxd_example_plugin")]:
        del sys.modules[name]


def served(manager: PluginManager) -> Any:
    """Return a script that answers requests with the example's runtime, driven as a runner drives it."""
    session = manager.runtimes["dictionary"].load(MODEL, {})

    def script(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        session.submit("r1", {"text": request["text"]})
        while session.busy:
            for _, kind, data in session.step():
                if kind == "done":
                    return dict(data)
                on_event(kind, data)
        raise AssertionError("it never ended")

    return script


def test_the_installed_example_is_found_with_its_version(manager: PluginManager) -> None:
    """By its entry point; status says which distribution it came from and what it offers."""
    info = next(info for info in manager.status() if info.kind == "entry-point" and info.enabled)
    assert (info.name, info.version, info.problem) == ("example", "0.1.0", None)
    assert info.source == "mlxd-example-plugin (mlxd_example_plugin)"
    assert (info.tasks, info.runtimes) == (("wordcount", "wordswap"), ("dictionary",))


def test_its_task_counts_words(manager: PluginManager, tmp_path: Path) -> None:
    """With a file in, a table out, and a text that a pipeline can use."""
    source = tmp_path / "in.txt"
    source.write_text("to be or not to be")
    ctx = FakeContext(tmp_path / "out", task="wordcount", plugins=manager)
    result = manager.task("wordcount").run(ctx, manager.parse("wordcount", {"file": str(source), "top": 1}))
    assert result == {"text": "2\tto\n", "words": 6, "different": 4}
    assert (tmp_path / "out" / "in.words.tsv").read_text() == "2\tto\n"


def test_its_task_asks_its_runtime(manager: PluginManager, tmp_path: Path) -> None:
    """Words come as tokens, the answer as a file; the lease names the model that was asked for."""
    ctx = FakeContext(tmp_path, task="wordswap", lm=served(manager), plugins=manager)
    lease = ctx.models
    ctx.models = lambda ref, *, runtime: lease(ref, runtime={"dictionary": "lm"}[runtime])  # type: ignore[method-assign]
    params = manager.parse("wordswap", {"text": "hello my world", "model": str(MODEL)})
    assert manager.task("wordswap").run(ctx, params)["text"] == "hallo my Welt"
    assert [data["text"] for _, data in ctx.emitted] == ["hallo ", "my ", "Welt "]
    assert ctx.leases == [("lm", str(MODEL))]
    assert (tmp_path / "wordswap.txt").read_text() == "hallo my Welt\n"


def test_its_model_passes_the_daemons_checks(manager: PluginManager) -> None:
    """The folder is a model folder to mlxd, and the estimate has the numbers that the scheduler asks for."""
    check_model_folder(MODEL)
    estimate = manager.runtimes["dictionary"].estimate(MODEL, {})
    assert estimate.total == estimate.weights + estimate.overhead > 0


def test_it_needs_nothing_of_mlxd(site: Path) -> None:
    """With only pluggy and pydantic beside it, the package imports, and brings none of our packages in."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('plugins', 'jobs', 'daemon', 'launchd', 'mlx'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "import mlxd_example_plugin, mlxd_example_plugin.tasks\n"
        "print('fine')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(site)], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr


def test_its_own_tests_pass(site: Path) -> None:
    """What the documentation shows as the way to test a plugin works."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")],
        capture_output=True,
        text=True,
        check=False,
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
