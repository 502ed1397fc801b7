"""The benchmark measures: each part ends in a figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "run.py"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_parts_without_models_measure(tmp_path: Path) -> None:
    """Submission, start-up, idleness and latency come out as numbers in the table and in the file."""
    parts = ["submit", "start", "idle", "latency"]
    done = subprocess.run(
        [
            sys.executable,
            BENCH,
            "--rounds",
            "1",
            "--jobs",
            "10",
            "--idle",
            "1",
            "--results",
            tmp_path,
            "--only",
            *parts,
        ],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.json")
    rows = {row["what"]: row for row in json.loads(file.read_text())}
    assert rows["submit, no wait: mlxd / python -I -c pass"]["ratio"]["median"] > 0  # how far is not a test's to judge
    assert rows["start-up: spawn to first good health"]["median"] > 0
    assert rows["idle: resident memory, no model"]["megabytes"] > 10
    assert 0 < rows["enqueue to start, idle daemon"]["p50"] <= rows["enqueue to start, idle daemon"]["p99"]
    assert all(what in done.stdout for what in rows)
