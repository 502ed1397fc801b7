"""A Quick Action and a Shortcut, as Automator and Shortcuts would run them, against a daemon with the demo models."""

from __future__ import annotations

import importlib.resources
import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes_acceptance import PATIENCE, SpawnedDaemon

pytestmark = [pytest.mark.models, pytest.mark.timeout(180)]

SAMPLES = Path(str(importlib.resources.files("plugins") / "demo_models" / "samples"))


def run_bare(shell: str, script: str, *names: str, text: str = "", folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run *script* with nothing but a PATH: neither HOME nor LANG."""
    return subprocess.run(
        ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", shell, "-c", script, "-", *names],
        input=text.encode(),
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        cwd=folder,
    )


def quick_action(bundle: Path) -> tuple[str, str]:
    """Return shell and command of an installed bundle."""
    document = plistlib.loads((bundle / "Contents" / "document.wflow").read_bytes())
    parameters = document["actions"][0]["action"]["ActionParameters"]
    return parameters["shell"], parameters["COMMAND_STRING"]


def shortcut(file: Path) -> str:
    """Return the script of an unsigned shortcut."""
    (action,) = plistlib.loads(file.read_bytes())["WFWorkflowActions"]
    return str(action["WFWorkflowActionParameters"]["Script"])


def test_what_is_installed_transcribes_and_summarises(shared: SpawnedDaemon, tmp_path: Path) -> None:
    """The Quick Action puts the transcript beside an unkindly named file; Service and Shortcut give the summary.

    Each by the very command in the installed file, under env -i.
    """
    place = tmp_path / "Services"
    shared.ok("shortcuts", "install", "--dest", str(place))
    shared.ok("shortcuts", "install", "summarise", "transcribe", "--as", "shortcut", "--dest", str(place))
    name = '-it\'s a "m\u00fcmo" $(touch hit)\U0001f399.flac'
    shutil.copy(SAMPLES / "memo.flac", tmp_path / name)
    memo = (SAMPLES / "memo.txt").read_text()

    done = run_bare(*quick_action(place / "Transcribe with mlxd.workflow"), name, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().split() == memo.split()
    assert done.stdout.endswith(b"list.\n")
    assert (tmp_path / name).with_suffix(".txt").read_text().split() == memo.split()
    assert not (tmp_path / "hit").exists()

    done = run_bare(*quick_action(place / "Summarise with mlxd.workflow"), text=memo, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    summary = done.stdout.decode()
    assert "heating" in summary
    assert summary == summary.strip()
    assert summary != memo.strip()

    shell = shutil.which("zsh") or "/bin/sh"
    scripts = [shortcut(place / f"{title} with mlxd.shortcut") for title in ("Summarise", "Transcribe")]
    assert run_bare(shell, scripts[0], text=memo, folder=tmp_path).stdout.decode() == summary
    assert run_bare(shell, scripts[1], name, folder=tmp_path).stdout.decode().split() == memo.split()
    shared.ok("shortcuts", "remove")
    assert list(place.iterdir()) == []
