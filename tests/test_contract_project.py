"""What the repository promises as a whole: what a wheel holds, what a lock leaves out, what README and CI may call."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from daemon.config.model import load
from daemon.paths import find_home
from plugins.manager import PluginManager

ROOT = Path(__file__).parents[1]
PACKAGES = ("daemon", "jobs", "plugins", "launchd")
#: Engines: none of them may be in the daemon process.
ENGINES = ("mlx", "mlx_lm", "mlx_whisper", "transformers", "torch", "numba", "scipy")
#: Not part of the source.
LEFTOVERS = {"__pycache__", ".mypy_cache", ".ruff_cache"}
#: Folders that hold nothing of ours.
FOREIGN = re.compile(r"^(\.(git|venv|tools|dev|.*_cache|hypothesis)|build|dist|htmlcov)$")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def lock() -> dict[str, Any]:
    return tomllib.loads((ROOT / "uv.lock").read_text())


def recipes() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def source_files(package: str) -> list[Path]:
    folder = ROOT / package
    found = (path.relative_to(ROOT) for path in folder.rglob("*") if path.is_file())
    return [path for path in found if not LEFTOVERS & set(path.parts)]


def text_files() -> list[Path]:
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if not FOREIGN.match(name) and name not in LEFTOVERS]
        found += [Path(folder, name) for name in files if Path(name).suffix in {".py", ".md", ".toml", ".yml", ".yaml"}]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_installed_is_what_is_here(package: str) -> None:
    """Every file of the packages is installed, data and type markers too; run against the wheel this is its content."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    installed = Path(str(spec.origin)).parent.parent
    missing = [str(path) for path in source_files(package) if not (installed / path).is_file()]
    assert missing == []
    assert (installed / package / "py.typed").is_file()


def test_the_packages_are_the_four_of_the_design() -> None:
    """Wheel, its checker, the type checker, coverage and the layers name the same four packages."""
    tool = project()["tool"]
    lists = [
        tool["hatch"]["build"]["targets"]["wheel"]["packages"],
        tool["check-wheel-contents"]["toplevel"],
        tool["mypy"]["packages"],
        tool["coverage"]["run"]["source_pkgs"],
        tool["importlinter"]["root_packages"],
    ]
    assert [sorted(each) for each in lists] == [sorted(PACKAGES)] * len(lists)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_begins_with_a_docstring_and_nothing_else(package: str) -> None:
    """So that a stranger's package of the same name, installed over ours, could not break it."""
    lines = (ROOT / package / "__init__.py").read_text().strip()
    assert lines.startswith('"""')
    assert lines.endswith('"""')
    assert lines.count('"""') == 2
    for taken in ("daemon.py", "pidfile.py", "service.py", "plist.py"):
        if package in {"daemon", "launchd"} and (package, taken) != ("daemon", "service.py"):
            assert not (ROOT / package / taken).exists()


def test_the_lock_brings_no_torch_and_no_namesakes() -> None:
    """Whoever wants torch in the lock gets it on no platform; no package that shares our import names is in it."""
    packages = {each["name"]: each for each in lock()["package"]}
    assert not {"python-daemon", "launchd", "jobs", "plugins", "daemon"} & set(packages)
    for package in packages.values():
        wanted = [each for each in package.get("dependencies", []) if each["name"] == "torch"]
        assert [each.get("marker") for each in wanted] in ([], ["sys_platform == 'never'"]), package["name"]


def test_torch_is_not_installed() -> None:
    """What was installed from the lock, and what runs these tests, has no torch."""
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("torch")
    assert importlib.util.find_spec("torch") is None


#: Modules whose classes are derived from an engine's: imported inside functions, where there is a model.
DERIVED = {"plugins.lm_shared"}


def test_the_daemon_never_imports_an_engine(tmp_path: Path) -> None:
    """Importing every module of all four packages brings no MLX into the process, but for those derived from it."""
    modules = sorted(
        ".".join(path.with_suffix("").parts)
        for package in PACKAGES
        for path in source_files(package)
        if path.suffix == ".py" and path.stem not in {"__init__", "__main__"} and "demo_models" not in path.parts
    )
    modules = [name for name in modules if name not in DERIVED]
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {ENGINES!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, check=False, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def code_in(path: Path) -> list[str]:
    """Return the lines of code in a document: those of fenced blocks, and what stands in backticks."""
    text = path.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", prose)]
    return [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()] + inline


def commands_in(path: Path, program: str, *, words: str = "([a-z][a-z-]*)") -> set[Any]:
    return {found for line in code_in(path) for found in re.findall(rf"^{program} {words}\b", line)}


def test_the_readme_names_only_recipes_that_exist() -> None:
    """Every `make something` in the documents is in the Makefile."""
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        assert commands_in(path, "make") <= recipes(), path.name


def test_the_readme_leads_through_both_commands() -> None:
    """A stranger finds the demo, the tests, the install, a folder and a plugin."""
    readme = (ROOT / "README.md").read_text()
    for command in ("make demo", "make test", "uv tool install", "mlxd run", "mlxd submit", "mlxd service install"):
        assert command in readme, command


def test_documents_name_only_commands_that_exist() -> None:
    """Every `mlxd something` in the documents is a command of the program."""
    code = (
        "import click, json\n"
        "from daemon.cli.main import COMMANDS, mlxd\n"
        "made = {name: mlxd.get_command(None, name) for name in COMMANDS}\n"
        "print(json.dumps({name: list(getattr(one, 'commands', [])) for name, one in made.items()}))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    commands = json.loads(done.stdout)
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert commands_in(path, "mlxd") <= set(commands), path.name
        for group, name in commands_in(path, "mlxd", words="([a-z]+) ([a-z]+)"):
            assert not commands[group] or name in commands[group], f"{path.name}: mlxd {group} {name}"


def test_the_readmes_plugin_is_one(tmp_path: Path) -> None:
    """The file that README shows, put into a plugin folder as it stands, offers its task."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "shout.py").write_text(code)
    (tmp_path / "shout.py").chmod(0o600)
    manager = PluginManager(files=tmp_path, entry_points=False)
    manager.load()
    assert manager.validate("shout", {"text": "hello"}) == {"text": "hello"}
    assert [each.problem for each in manager.status() if each.name == "shout"] == [None]


def test_the_readmes_configuration_is_one(tmp_path: Path) -> None:
    """The configuration that README shows is taken as it stands."""
    (text,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    home = find_home({"MLXD_HOME": str(tmp_path)})
    home.config.write_text(text)
    (folder,) = load(home.config, home=home, environ={"HOME": "/Users/ada"}).folders
    assert folder.path == Path("/Users/ada/Meetings")
    assert [rule.task for rule in folder.rules] == ["transcribe"]


def test_links_between_documents_lead_somewhere() -> None:
    """A relative link in a document is a file that exists."""
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_ci_calls_recipes_and_nothing_of_its_own() -> None:
    """The script is executable, runs make alone, and each recipe exists; the workflow runs the script."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    (named,) = re.findall(r"for recipe in ([a-z -]+);", text)
    assert {"check", "test", "torture", "wheel", "demo"} == set(named.split())
    assert set(named.split()) <= recipes()
    assert "run: .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_actions_are_pinned_by_commit() -> None:
    """A tag can be moved to other code, a commit cannot."""
    used = re.findall(r"uses: (\S+)(.*)", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.search(r"# v\d+\.\d+\.\d+", comment), action


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """No document and no source names the folder of this checkout, and no conflict was left unresolved."""
    for path in text_files():
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) + "/" not in text, path
        assert not re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE), path


def test_the_licence_is_complete() -> None:
    """The whole Apache-2.0, and the metadata says so."""
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert project()["project"]["license"] == "Apache-2.0"


def test_the_changelog_has_a_place_for_changes() -> None:
    """Keep a Changelog: an "Unreleased" section on top."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
