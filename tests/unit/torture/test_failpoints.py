"""What the row "failpoints" makes of a home's log, and how it judges times."""

from pathlib import Path

import pytest
from torture.checker import Verdict
from torture.rows.failpoints import Seen, _outcome, reclaimed
from torture.withheld import Withheld


def test_only_what_a_death_cut_off_counts_as_claimed_again(tmp_path: Path) -> None:
    """From a death to the first claim, and to each; one that ended, or began anew in the same life, does not count."""
    log = tmp_path / "executions.log"
    lines = ["begin a 1 9 1.0", "begin b 1 9 1.1", "end b 1 9 1.2", "begin c 1 9 1.3", "begin c 2 9 1.4"]
    log.write_text("\n".join([*lines, "begin a 2 10 6.5", "begin b 2 10 6.6", "begin c 3 10 7.0"]) + "\n")

    assert reclaimed(log, [2.0, 6.0]) == ([(6.0, 6.5)], [0.5, 1.0])


@pytest.mark.parametrize(("took_s", "held"), [(4.0, True), (8.0, False)])
def test_time_that_the_host_withheld_is_told_and_excuses_nothing(took_s: float, held: bool) -> None:
    """5 s to the next claim are promised, also where all but one of them were the host's."""
    seconds, times = iter([0.0, 0.0, took_s - 1.0, took_s - 1.0]), iter([99.0, 101.0, 103.0, 109.0])
    noted = Withheld(read=lambda: next(seconds), clock=lambda: next(times))
    for _ in range(4):
        noted.look()
    spans = [(100.0, 100.0 + took_s)]
    home = Seen(deaths=1, unheard=0, hit={"job.done"}, verdict=Verdict(), recoveries=spans, each=[], demo=0)

    found = _outcome([home], [], noted, 0.99)

    slow = [f"Work went on {took_s:.1f} s after a death (99% of the times)."]
    assert found.broken == ([] if held else slow)
    assert found.recoveries == [took_s]
    assert found.measured["own_recovery_worst_s"] == 1.0
