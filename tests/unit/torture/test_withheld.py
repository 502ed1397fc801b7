"""What the host withheld: read from the kernel's figures, and counted only where it is sure to belong."""

import pytest
from torture.withheld import Withheld, lengths, stolen_s

STAT = "cpu  10 20 30 40 50 60 70 {steal} 0 0\ncpu0 5 10 15 20 25 30 35 1 0 0\ncpu1 5 10 15 20 25 30 35 1 0 0\nintr 5\n"


def test_the_kernels_figure_is_a_mean_of_the_processors(tmp_path, monkeypatch):
    """500 ticks of a hundredth, of two processors, are 2.5 s."""
    monkeypatch.setattr("torture.withheld.os.sysconf", lambda name: 100)
    stat = tmp_path / "stat"
    stat.write_text(STAT.format(steal=500))
    assert stolen_s(stat) == 2.5


def test_nothing_is_withheld_where_nobody_counts_it(tmp_path):
    """No such file (a Mac), and a kernel without the figure."""
    assert stolen_s(tmp_path / "none") == 0.0
    (tmp_path / "old").write_text("cpu  10 20 30 40\ncpu0 10 20 30 40\n")
    assert stolen_s(tmp_path / "old") == 0.0


@pytest.fixture(name="withheld")
def _withheld():
    """Looks at 0, 1, 2 and 3 s; between 1 and 2 the machine stood still for 0.75 s."""
    seconds, times = iter([7.0, 7.0, 7.75, 7.75]), iter([0.0, 1.0, 2.0, 3.0])
    noted = Withheld(read=lambda: next(seconds), clock=lambda: next(times))
    for _ in range(4):
        noted.look()
    return noted


@pytest.mark.parametrize(
    ("since", "until", "seconds"),
    [(0.0, 3.0, 0.75), (0.5, 2.5, 0.75), (1.0, 2.0, 0.75), (1.1, 2.9, 0.0), (2.0, 3.0, 0.0), (1.2, 1.3, 0.0)],
)
def test_only_what_lies_within_is_taken_off(withheld, since, until, seconds):
    """Between two looks it cannot be told when it was withheld, so nothing is taken off there."""
    assert withheld.between(since, until) == seconds
    assert withheld.share == 0.25


def test_it_looks_by_itself():
    """As a context manager it notes what is withheld meanwhile, and no more than there was time."""
    with Withheld(read=iter(range(0, 10**6, 1000)).__next__) as noted:
        pass
    assert noted.share == 1.0


def test_spans_have_a_length_and_a_part_of_the_machines_own(withheld):
    """Three seconds in which it stood still for 0.75, and one in which it did not."""
    spans = [(0.0, 3.0), (2.0, 3.0)]
    assert lengths(spans) == [3.0, 1.0]
    assert withheld.own(spans) == [2.25, 1.0]
