"""How the kill row measures."""

from __future__ import annotations

from torture.killing import recovery
from torture.launchsim import Exit
from torture.withheld import lengths


def ended(at: float) -> Exit:
    """Return a life that a kill ended at *at*."""
    return Exit(status=-9, pid=1, at=at, lived_s=1.0, by_kill_after_timeout=False, leftovers=0)


def test_recovery_counts_from_the_last_kill(tmp_path):
    """An interrupted job waits from the kill to its next claim; one killed twice meanwhile, from the second kill."""
    log = tmp_path / "executions.log"
    log.write_text(
        "begin a 1 10 1.0\nbegin b 1 10 1.1\nend b 1 10 1.2\nbegin c 1 10 1.9\n"
        "begin a 2 12 4.5\nend a 2 12 4.6\nbegin c 2 11 2.75\nbegin c 3 12 4.25\n"
    )
    found = recovery(log, [0.5, 2.5, 4.0], [ended(2.0), ended(3.0)])
    assert lengths(found.from_kill) == [1.5, 0.75, 1.25]
    assert lengths(found.from_start) == [0.5, 0.25, 0.25]


def test_a_retry_without_a_kill_is_no_recovery(tmp_path):
    """What began again while the daemon lived was not interrupted by us."""
    log = tmp_path / "executions.log"
    log.write_text("begin a 1 10 3.0\nbegin a 2 10 3.5\n")
    assert recovery(log, [0.0, 2.5], [ended(2.0)]).from_kill == []
