"""Each area of the benchmark runs, and its table and its file hold every row. How fast it all is no test judges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def measured(script: str, folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run a benchmark and return what it kept and what it printed."""
    kept = folder / f"{script}.json"
    done = subprocess.run(
        [sys.executable, BENCH / script, "--rounds", "1", "--warm", "0", "--json", kept, *arguments],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(kept.read_text()), done.stdout


def reported(file: Path) -> str:
    """Return the Markdown made from *file*."""
    command = [sys.executable, BENCH / "report.py", file]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


def check(kept: dict[str, Any], printed: str, keys: Sequence[str]) -> None:
    """Hold a file against the rows it should have."""
    assert [row["key"] for row in kept["rows"]] == list(keys)
    for row in kept["rows"]:
        figures = [row[name] for name in ("ours", "theirs", "ratio", "value") if name in row]
        assert figures
        assert all(0 <= figure["low"] <= figure["median"] <= figure["high"] for figure in figures), row
        assert row["what"] in printed
        assert row["target"] == "" or row["verdict"] in {"met", "met at the median", "missed"}
    assert {"mlx", "mlx-lm"} <= kept["versions"].keys()
    assert kept["command"]
    assert kept["blas"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_queue_is_measured(tmp_path: Path) -> None:
    """Submissions against a stock queue, time to start, idleness and start-up come out as figures and as a table."""
    arguments = ["--clients", "4", "--each", "3", "--jobs", "5", "--idle", "0.5"]
    kept, printed = measured("queueing.py", tmp_path, *arguments)
    keys = ["submits", "jobs", "start", "rss", "wakeups", "startup", "command"]
    check(kept, printed, [f"queue.{key}" for key in keys if key != "wakeups" or sys.platform == "linux"])
    table = reported(tmp_path / "queueing.py.json")
    assert all(row["what"] in table for row in kept["rows"])
    assert kept["command"] in table


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.timeout(600)
def test_the_daemon_is_measured_against_mlx_lm(tmp_path: Path) -> None:
    """Every row of the way through the daemon comes out, with answers found to be mlx-lm's, token for token."""
    arguments = ["--size", "tiny", "--tokens", "4", "--answer", "2", "--prompt", "8", "--prompts", "4"]
    kept, printed = measured("serving.py", tmp_path, *arguments, "--arrivals", "1", "--pause", "0")
    keys = ["null", "stream", "batch8", "batch64", "first", "command", "folder_server", "folder_loop", "newcomer"]
    check(kept, printed, [f"serving.{key}" for key in keys])
    assert [gate["passed"] for gate in kept["gates"]] == [True]


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.timeout(600)
def test_the_engine_is_measured_against_mlx_lm(tmp_path: Path) -> None:
    """Every row of the engine in one process comes out, behind a gate that compares answers with mlx-lm's."""
    arguments = ["--size", "tiny", "--tokens", "4", "--shared", "40", "--sharing", "4", "--ragged", "6"]
    kept, printed = measured("engine.py", tmp_path, *arguments, "--long", "100", "--arrivals", "2")
    keys = ["null", "stream", "batch8", "batch16", "batch32", "batch64", "ragged", "sampled", "shared", "pause"]
    check(kept, printed, [f"engine.{key}" for key in [*keys, "gap", "newcomer"]])
    assert [gate["passed"] for gate in kept["gates"]] == [True]
