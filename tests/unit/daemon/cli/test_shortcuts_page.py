"""`docs/shortcuts.md` is true: what it says to paste can be pasted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from daemon.cli.commands.run_task import run_task
from daemon.cli.commands.shortcuts import install
from daemon.shortcuts import BUILT_IN

PAGE = (Path(__file__).parents[4] / "docs" / "shortcuts.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


def options(command: object) -> set[str]:
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts) if name.startswith("--")}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_what_is_to_be_pasted_is_shell(number: int) -> None:
    """A shell reads every example to its end."""
    subprocess.run(["/bin/sh", "-n", "-c", BLOCKS[number]], check=True, timeout=30)


def test_every_option_named_is_one() -> None:
    """And every option of `run-task` is named, but the ones that help names."""
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert named <= options(run_task) | options(install)
    assert options(run_task) - named == {"--lane", "--model", "--wait"} - named


def test_every_action_is_described() -> None:
    """In the table, by its name; and its title where it is installed."""
    for name, action in BUILT_IN.items():
        assert f"| `{name}` |" in PAGE
        assert f"{action.title}.workflow" in PAGE
