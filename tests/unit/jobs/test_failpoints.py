"""Failpoints: nothing unless armed, each where the catalogue says, and the catalogue complete."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import failpoints
from jobs.failpoints import NAMES, VERBS, Failpoints, Point, armed, parse, reach

ROOT = Path(__file__).parents[3]
ROOMS = ("jobs", "plugins", "daemon")


def _program() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_the_program_reaches_what_the_catalogue_names_and_nothing_else() -> None:
    """Each name stands in the program exactly once; each transaction says one of the catalogue's verbs."""
    program = _program()
    steps = re.findall(r'\breach\("([^"]+)"\)', program)
    verbs = set(re.findall(r'(?:\.write|\._db\.run|\.transaction|\._end)\(\s*"([a-z]+)"', program))

    assert sorted(steps) == sorted(name for name in NAMES if not name.startswith("ledger."))
    assert verbs == set(VERBS)
    assert len(NAMES) > 40
    assert all(NAMES.values())


def test_the_page_lists_every_failpoint() -> None:
    """`docs/failpoints.md` names each one, with what the catalogue says of it."""
    page = ROOT / "docs" / "failpoints.md"
    if not page.is_file():
        pytest.skip("the documents are not beside these tests")
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE))
    named = {name: text for name, text in NAMES.items() if not name.startswith("ledger.")}

    assert rows == named | {f"ledger.{verb}": text for verb, text in VERBS.items()}


def test_nothing_is_armed_by_default() -> None:
    """Without the variables `reach` is the function that does nothing, for any name."""
    assert armed({}) is armed({"MLXD_FAILPOINTS": "", "MLXD_FAILPOINTS_ONCE": "/x"}) is failpoints._nothing
    assert reach is failpoints._nothing
    armed({})("no.such.name")


def test_points_are_read() -> None:
    """A name, which time, what happens; the first time unless said otherwise."""
    assert parse("hint.put=kill, job.done@3=EIO") == {"hint.put": Point(1, "kill"), "job.done": Point(3, "EIO")}
    assert parse("ledger.add.commit=stop,") == {"ledger.add.commit": Point(1, "stop")}


@pytest.mark.parametrize(
    "text", ["hint.put", "hint.puts=kill", "hint.put@0=kill", "hint.put=die", "hint.put=ENOSUCH", "hint.put@=kill"]
)
def test_mistakes_are_refused(text: str) -> None:
    """A failpoint that would never fire, or do nothing known, ends the program at its start."""
    with pytest.raises(ValueError, match="MLXD_FAILPOINTS"):
        parse(text)


def test_the_nth_time_fails() -> None:
    """The error comes that time and at no other."""
    points = Failpoints({"hint.put": Point(2, "ENOSPC")})
    points.reach("hint.put")
    points.reach("hint.taken")
    with pytest.raises(OSError, match=r"hint\.put") as caught:
        points.reach("hint.put")
    points.reach("hint.put")

    assert caught.value.errno == errno.ENOSPC


def test_what_fired_once_never_fires_again(tmp_path: Path) -> None:
    """The mark in the folder counts for every process, and tells afterwards what was really hit."""
    for expected in (True, False):
        points = Failpoints({"hint.put": Point(1, "EIO")}, once=tmp_path)
        if expected:
            with pytest.raises(OSError, match=r"hint\.put"):
                points.reach("hint.put")
        else:
            points.reach("hint.put")

    assert [path.name for path in tmp_path.iterdir()] == ["hint.put"]


def test_each_name_is_noted_once_in_a_process(tmp_path: Path) -> None:
    """What was seen is written down at the first visit only."""
    seen = tmp_path / "seen"
    point = armed({"MLXD_FAILPOINTS_SEEN": str(seen)})
    for name in ("hint.put", "hint.taken", "hint.put"):
        point(name)

    assert seen.read_text() == "hint.put\nhint.taken\n"


def test_kill_means_kill(tmp_path: Path) -> None:
    """An armed process ends by SIGKILL exactly there."""
    child = (
        "from jobs.failpoints import reach\nprint('before', flush=True)\nreach('hint.put')\nprint('after', flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", child],
        cwd=ROOT,
        env={"MLXD_FAILPOINTS": "hint.put=kill", "MLXD_FAILPOINTS_ONCE": str(tmp_path)},
        stdout=subprocess.PIPE,
        check=False,
    )

    assert (done.returncode, done.stdout) == (-9, b"before\n")
    assert (tmp_path / "hint.put").exists()
