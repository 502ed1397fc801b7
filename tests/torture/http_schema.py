"""schemathesis against the schema that the application serves: every check, every phase, stateful ones too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from torture.http_raw import PATIENCE

TESTS = Path(__file__).parents[1]

# What a schema cannot say (which tasks, models and folders there are, that an end follows its beginning) is answered
# with 422; that is the one setting that differs from schemathesis' own.
_SETTINGS = """\
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429"]
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "503", "507"]
"""
#: Operations that end the daemon or never end themselves; they have tests of their own.
APART = ("/v1/shutdown", "/v1/events")


class Explored(NamedTuple):
    """What schemathesis saw."""

    #: Requests that it made up.
    cases: int
    #: Operations that it called, and that the schema has.
    operations: tuple[int, int]
    #: A line for each kind of failure and operation.
    failures: list[str]


def explore(
    url: str,
    folder: Path,
    *,
    seconds: float | None,
    seed: int,
    patience: float = PATIENCE,
    only: Collection[str] = (),
) -> Explored:
    """Call every operation (or *only* those paths) of the schema at *url*; *folder* is for its files.

    For *seconds* in every phase; None: a few examples each, without the phase that goes through every boundary.

    Raises:
        RuntimeError: schemathesis did not run; what it said is the message.

    """
    (folder / "settings.toml").write_text(_SETTINGS)
    (folder / "openapi.json").write_bytes(_schema(url))
    paths = [f"--include-path={path}" for path in only] or [f"--exclude-path={path}" for path in APART]
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "settings.toml"), "run"]
    budget = ["--phases=fuzzing,stateful", "--max-examples=2"] if seconds is None else [f"--max-time={round(seconds)}"]
    options = [
        str(folder / "openapi.json"), "--url", url, "--checks=all", *paths, *budget,
        f"--seed={seed}", f"--max-response-time={patience}", f"--request-timeout={2 * patience}", "--no-shrink",
        "--continue-on-failure", "--suppress-health-check=all", "--report=json",
        f"--report-json-path={folder / 'report.json'}",
    ]  # fmt: skip
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "torture.http_hooks", "PYTHONPATH": str(TESTS), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=(seconds or 0) + 300,
        check=False,
    )
    try:
        report = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"schemathesis ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
        ) from error
    (folder / "schemathesis.txt").write_text(done.stdout)
    failures = [f"{one['title']}: {', '.join(one['operations'])}" for one in report["failures"]]
    failures += [f"schemathesis could not go on: {one}" for one in report["errors"]]
    found = report["operations"]
    return Explored(report["test_cases"]["generated"], (found["tested"], found["total"]), failures)


def _schema(url: str) -> bytes:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=PATIENCE) as answer:  # noqa: S310 - our own relay
        content: bytes = answer.read()
    return content
