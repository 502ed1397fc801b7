"""Runs one target in a process of its own: under atheris, or with hypothesis' bytes where there is no atheris."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.target import Target

#: Longest input, bytes; longer ones find the same and take longer.
MOST = 4096
#: Seconds after which one input counts as a hang.
HANG = 5
HERE = importlib.util.find_spec("atheris") is not None


class Found(NamedTuple):
    """What came of fuzzing one subject."""

    target: str
    #: Name of the planted bug, "" for the reader as it ships.
    bug: str
    #: How many inputs were tried.
    inputs: int
    #: What went wrong, if anything: the exception's line.
    failure: str
    #: The input that did it.
    culprit: bytes


def forked(target: Target, bug: str, *, seconds: float, seed: int) -> Callable[[], Found]:
    """Start fuzzing *target* (with the planted *bug*, if any) in a fork; the result waits for its end."""
    folder = Path(tempfile.mkdtemp(prefix="mlxd-fuzz-"))
    child = os.fork()
    if child == 0:
        try:
            _run(target, bug, folder, seconds=seconds, seed=seed)
        except BaseException:  # noqa: BLE001 - nothing may get out of a fork
            traceback.print_exc()
        finally:
            os._exit(2)
    return lambda: _result(target, bug, folder, child)


def _run(target: Target, bug: str, folder: Path, *, seconds: float, seed: int) -> None:
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    subject = target.planted[bug] if bug else target.subject
    seeds = folder / "seeds"
    seeds.mkdir()
    for number, data in enumerate(target.seeds()):
        # A planted bug has to be found, not to be shown: seeds that give it away are left out.
        if not bug or _passes(target, subject, data):
            (seeds / str(number)).write_bytes(data)

    def one(data: bytes) -> None:
        try:
            target.check(bytes(data), subject)
        except BaseException:
            (folder / "culprit-found").write_bytes(data)
            raise

    (_atheris if HERE else _mutating)(one, folder, seconds=seconds, seed=seed)


def _passes(target: Target, subject: Any, data: bytes) -> bool:
    try:
        target.check(data, subject)
    except Exception:  # noqa: BLE001 - whatever gives it away
        return False
    return True


def _atheris(one: Callable[[bytes], None], folder: Path, *, seconds: float, seed: int) -> None:
    import atheris

    options = {
        "max_total_time": max(1, round(seconds)),
        "seed": seed,
        "max_len": MOST,
        "timeout": HANG,
        "rss_limit_mb": 2048,
        "artifact_prefix": f"{folder}/culprit-",
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(folder / "seeds")], one)
    atheris.Fuzz()  # ends the process


def _mutating(one: Callable[[bytes], None], folder: Path, *, seconds: float, seed: int) -> None:
    """Try hypothesis' bytes, and the seeds with a few of them put in, until the time is up; end as atheris does."""
    from hypothesis import HealthCheck, given, settings, strategies

    chance, deadline, tries = random.Random(f"{seed}-fuzz"), time.monotonic() + seconds, 0
    seeds = [path.read_bytes() for path in sorted((folder / "seeds").iterdir())] or [b""]

    @settings(max_examples=200, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategies.binary(max_size=64), strategies.integers(0, MOST), strategies.integers(0, 64))
    def attempt(piece: bytes, at: int, gone: int) -> None:
        nonlocal tries
        tries += 1
        base = chance.choice(seeds)
        data = base[: at % (len(base) + 1)] + piece + base[at % (len(base) + 1) + gone :]
        try:
            one(data)
        except BaseException:  # noqa: BLE001 - told to the parent, whatever it is
            _tell(f" === Uncaught Python exception: ===\n{traceback.format_exc().splitlines()[-1]}", tries)
            os._exit(77)

    while time.monotonic() < deadline:
        attempt()
    _tell("", tries)
    os._exit(0)


def _tell(text: str, tries: int) -> None:
    os.write(2, f"{text}\nstat::number_of_executed_units: {tries}\n".encode(errors="replace"))


def _result(target: Target, bug: str, folder: Path, child: int) -> Found:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    log = (folder / "log").read_text(errors="replace")
    counted = re.findall(r"stat::number_of_executed_units: (\d+)", log) or re.findall(r"^#(\d+)\s", log, re.MULTILINE)
    raised = re.search(r"Uncaught Python exception: ===\n([^\n]+)", log)
    failure = ""
    if status != 0:
        failure = raised[1] if raised else f"ended with {status}: {log[-300:]}"
    culprit = next((path.read_bytes() for path in folder.glob("culprit-*")), b"")
    shutil.rmtree(folder)
    return Found(target.name, bug, int(counted[-1]) if counted else 0, failure, culprit)
