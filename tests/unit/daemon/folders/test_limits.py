"""Limits of size and age, and what results are called."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from fakes_folders import Bench
from pydantic import ValidationError

from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.rules import choose, new_job, patience, why_not

KB = RuleConfig(task="t", name="kb", min_size="1kB", max_size="2kB")


@pytest.mark.parametrize(("size", "taken"), [(999, False), (1000, True), (2000, True), (2001, False)])
def test_a_rule_has_sizes(size: int, taken: bool) -> None:
    """Both ends are included; who does not fit goes on to the next rule."""
    rest = RuleConfig(task="t", name="rest")
    assert choose([KB, rest], "a", size=size, age=0) is (KB if taken else rest)
    assert (why_not(KB, "a", size=size, age=0) is None) is taken


def test_too_young_waits_and_too_old_does_not() -> None:
    """How long it is until a rule would take the file: the soonest of all, never one that its size forbids."""
    rules = [
        RuleConfig(task="t", min_age=100, max_age=200),
        RuleConfig(task="t", min_age=50, max_size=5),
        RuleConfig(task="t", min_age=10, match="*.other"),
    ]
    assert patience(rules, "a", size=9, age=30) == 70
    assert patience(rules, "a", size=5, age=30) == 20
    assert patience(rules, "a", size=9, age=300) is None
    assert choose(rules, "a", size=9, age=150) is rules[0]
    assert "too old" in str(why_not(rules[0], "a", size=9, age=300))
    assert "too young" in str(why_not(rules[0], "a", size=9, age=3))


@pytest.mark.parametrize("limits", [{"min_size": 2, "max_size": 1}, {"min_age": "1h", "max_age": "1m"}])
def test_limits_that_nothing_fits_are_a_mistake(limits: dict[str, Any]) -> None:
    """A rule that can take no file is refused."""
    with pytest.raises(ValidationError, match="takes nothing"):
        RuleConfig(task="t", **limits)


def test_a_young_file_is_taken_when_it_is_old_enough(tmp_path: Path) -> None:
    """Without another scan: the patrol's next turn is due then; scans in between change nothing."""
    wall = time.time()
    bench = Bench(FolderConfig(path=tmp_path, task="t", min_age=40, settle_seconds=1), wall=lambda: wall)
    (tmp_path / "a").write_text("x")
    os.utime(tmp_path / "a", (wall - 10, wall - 10))
    assert bench.scan() == []
    assert bench.patrol.next_deadline() == pytest.approx(bench.clock.now + 30)
    wall += 20
    assert bench.scan(20) == []
    assert bench.patrol.next_deadline() == pytest.approx(bench.clock.now + 10)
    assert bench.patrol.status().waiting == 1
    wall += 10.1
    assert bench.turn(10.1) == ["a"]


@pytest.mark.parametrize(
    ("template", "stem"),
    [
        ("", "a.b"),
        ("{date}/{stem}", "2026-03-01/a.b"),
        ("{date} {time} {folder} {stem}", "2026-03-01 12-30-05 sub a.b"),
        ("{rule}/{task}: {name}", "r_s/t_ a.b.wav"),
        ("../../{stem}/..", "a.b"),
        ("/etc/{stem}", "etc/a.b"),
        (".{stem}", "a.b"),
        ("...", "a.b"),
    ],
)
def test_results_are_named_safely(template: str, stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are made by the template alone, never by what is filled in; nothing leads up, out or into hiding."""
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    rule = RuleConfig(task="t", name="r/s", stem=template)
    changed = 1772364605.9  # 2026-03-01 11:30:05 UTC
    made = new_job(FolderConfig(path=Path("/in")), rule, Path("/in/sub/a.b.wav"), changed=changed)
    monkeypatch.undo()
    time.tzset()
    assert made.placement.stem == stem
