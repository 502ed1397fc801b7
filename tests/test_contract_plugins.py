"""What the plugin contract promises is written down, with its true signature, and tested by name."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from fakes_tasks import FakeContext

import plugins.hookspecs
import plugins.runtime
import plugins.task
from plugins.manager import PluginManager
from plugins.shapes import runtime_fault, stranger_fault

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "plugins.md"


def signatures(module: object) -> dict[str, str]:
    """Return each function and Protocol method of *module* with its signature, as the parser prints it."""
    tree = ast.parse(Path(str(getattr(module, "__file__", ""))).read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = signature(node)
        elif isinstance(node, ast.ClassDef) and node.name != "Estimate":
            found |= {
                f"{node.name}.{method.name}": signature(method)
                for method in node.body
                if isinstance(method, ast.FunctionDef) and not is_plain_property(node.name, method)
            }
    return found


def is_plain_property(owner: str, method: ast.FunctionDef) -> bool:
    """Properties of the context are documented in prose; a session's `busy` is code that a plugin writes."""
    return owner == "TaskContext" and any(isinstance(one, ast.Name) for one in method.decorator_list)


def signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return squeezed(f"def {node.name}({ast.unparse(node.args)}){returns}:")


def squeezed(text: str) -> str:
    """Drop white space: how a line is broken is no part of a signature."""
    return re.sub(r"\s+", "", text).replace("''", '""').replace(",)", ")")


HOOKS = signatures(plugins.hookspecs)
SHAPES = signatures(plugins.task) | signatures(plugins.runtime)


def documentation() -> str:
    return squeezed("\n".join(re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)))


def test_there_are_three_hooks() -> None:
    """The contract stays small; who adds a hook comes by here, and documents and tests it."""
    assert sorted(HOOKS) == ["mlxd_job_finished", "mlxd_register_runtimes", "mlxd_register_tasks"]


@pytest.mark.parametrize("name", sorted(HOOKS | SHAPES))
def test_it_is_documented_with_its_true_signature(name: str) -> None:
    """docs/plugins.md shows every hook and every method of the Protocols exactly as the code has it."""
    assert (HOOKS | SHAPES)[name] in documentation()


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_has_a_section_and_a_test_of_its_name(name: str) -> None:
    """A heading in the documentation, and a test function called test_<hook>... that calls it for real."""
    assert f"### `{name}`" in DOCS.read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in HERE.rglob("test_*.py"))
    assert re.search(rf"^def test_{name}\w*\(", tests, re.MULTILINE)


def test_every_attribute_of_the_context_is_documented() -> None:
    """What a task gets is listed, not only its methods."""
    tree = ast.parse(Path(plugins.task.__file__).read_text(encoding="utf-8"))
    context = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TaskContext")
    names = [
        node.target.id for node in context.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    names += [
        node.name
        for node in context.body
        if isinstance(node, ast.FunctionDef) and is_plain_property("TaskContext", node)
    ]
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in names if f"`ctx.{name}`" not in text] == []


def test_the_tasks_that_ship_are_documented_and_well_shaped() -> None:
    """Each has its section, and obeys the same checks as a stranger's."""
    manager = PluginManager()
    manager.load()
    text = DOCS.read_text(encoding="utf-8")
    shipped = {"generate", "transcribe", "batch", "pipeline", "memo"}
    assert shipped <= set(manager.tasks)
    assert [name for name in shipped if f"### `{name}`" not in text] == []
    assert [stranger_fault(task) for task in manager.tasks.values()] == [None] * len(manager.tasks)
    assert [runtime_fault(runtime) for runtime in manager.runtimes.values()] == [None] * len(manager.runtimes)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_plugin_works_as_printed(tmp_path: Path) -> None:
    """What a newcomer copies into a file loads, runs and writes."""
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o700)
    (folder / "shout.py").write_text(blocks("python")[0])
    (folder / "shout.py").chmod(0o600)
    manager = PluginManager(files=folder, builtins=())
    manager.load()
    assert [info.problem for info in manager.status()] == [None]
    ctx = FakeContext(tmp_path / "out", task="shout")
    assert manager.task("shout").run(ctx, manager.parse("shout", {"text": "hello"})) == {"text": "HELLO"}
    assert (tmp_path / "out" / "shout.txt").read_text() == "HELLO\n"


def test_the_sample_pipeline_is_accepted() -> None:
    """The JSON in the documentation passes the checks of every step."""
    manager = PluginManager()
    manager.load()
    assert manager.validate("pipeline", json.loads(blocks("json")[0]))["file"] == "/home/me/memo.flac"
