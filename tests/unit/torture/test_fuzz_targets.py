"""The fuzz targets themselves: the corpus passes, and each oracle knows its planted bug when it sees it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import engine, files, messages, texts

TARGETS = [*messages.TARGETS, *files.TARGETS, *texts.TARGETS]
#: Target -> bytes that show its planted bug.
GIVEAWAYS = {
    "hints": b'{"name":"mlxd.run_job","job_id":"' + b"a" * 65 + b'","v":1}',
    "wire": b"\x03[1]\n",
    "names": b".xt",
    "outputs": b"../../etc/passwd",
    "safetensors": b"\x00\x05{}",
    "config": b"a = [",
    "front-matter": b"---\nfile: /etc/passwd\n---\n",
    "job": b'{"task":"a","placement":{"directory":"notes"}}',
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_the_corpus_passes(target):
    """What was found once stays mended."""
    for data in target.seeds():
        target.check(data, target.subject)
    assert sum(map(len, target.seeds())) < 8000


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_an_oracle_knows_its_planted_bug(target):
    """Bytes that show the bug pass with the reader as it ships, and fail with the bug."""
    data = GIVEAWAYS[target.name]
    target.check(data, target.subject)
    for subject in target.planted.values():
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the oracle says
            target.check(data, subject)


def test_bytes_without_guidance_find_a_bug_too():
    """Where there is no atheris the same targets are tried with hypothesis' bytes."""
    code = (
        "from fuzz import engine, files\n"
        "engine.HERE = False\n"
        "(target,) = [one for one in files.TARGETS if one.name == 'outputs']\n"
        "print(engine.forked(target, 'joined as it came', seconds=10, seed=1)().failure)\n"
        "print(engine.forked(target, '', seconds=0.2, seed=1)())\n"
    )
    tests = Path(engine.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        check=True,
    )
    bug, clean = done.stdout.splitlines()
    assert "Error" in bug
    assert "failure=''" in clean
    assert "inputs=0" not in clean
