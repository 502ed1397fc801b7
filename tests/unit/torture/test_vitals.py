"""The vital signs of a process, and the line through them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torture.stub_log import first, read
from torture.vitals import look, slope


def test_a_slope_is_that_of_the_best_line() -> None:
    """Points on a line give its slope, noise around it about the same, and a single point none."""
    assert slope([(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]) == pytest.approx(2.0)
    assert slope([(0.0, 1.0), (1.0, -1.0), (2.0, 1.0), (3.0, -1.0)]) == pytest.approx(-0.4)
    assert slope([(3.0, 7.0)]) == slope([(3.0, 7.0), (3.0, 9.0)]) == 0.0


def test_living_and_dead_children_are_told_apart() -> None:
    """A child that has ended and that nobody has waited for is a zombie, not a child."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        before = look(os.getpid())
        child.communicate(b"\n")
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        after = look(os.getpid())
    assert (before.children - after.children, after.zombies - before.zombies) == (1, 1)
    assert before.rss_mb > 1
    assert before.fds > 0


def test_the_log_of_executions_is_read_by_key(tmp_path: Path) -> None:
    """Lines come back in order under the decoded key; the first one beyond a fence is found."""
    log = tmp_path / "executions.log"
    assert not read(log)
    log.write_text("begin a%20b 1 10 1.5\nbegin x 1 10 1.6\nbegin a%20b 2 10 2.5\nstep a%20b 2 10 2.6 0\n")
    lines = read(log)["a b"]
    assert [(line.what, line.fence) for line in lines] == [("begin", 1), ("begin", 2), ("step", 2)]
    assert (first(lines, "begin"), first(lines, "begin", after=1), first(lines, "end")) == (1.5, 2.5, None)
