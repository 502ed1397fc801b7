"""What is remembered of models' memory."""

import pytest

from daemon.models.learned import FORGIVEN, Learned
from daemon.models.sizes import corrected
from plugins.estimate import PROCESS
from plugins.runtime import Estimate

HOUR = 3600.0


def test_it_is_there_after_a_restart(tmp_path):
    """Base, factor and ceiling are read back from the file."""
    path = tmp_path / "learned.json"
    first = Learned(path, now=lambda: 1000.0)
    first.see("a", "v1")
    first.loaded("a", 500)
    first.takes("a", 1.5)
    first.died("a", 1000)
    again = Learned(path, now=lambda: 1000.0).of("a")
    assert (again.base, again.factor, again.ceiling, again.deaths) == (500, 1.5, 750, 1)


def test_changed_files_are_another_model(tmp_path):
    """Another version of the folder is learned anew; the same one is not."""
    learned = Learned(tmp_path / "l", now=lambda: 0.0)
    learned.see("a", "v1")
    learned.loaded("a", 500)
    learned.see("a", "v1")
    assert learned.of("a").base == 500
    learned.see("a", "v2")
    assert learned.of("a").base is None


def test_a_ceiling_is_slowly_tried_higher_again():
    """It grows by a tenth each hour, and is forgotten after two days; a clock set back changes nothing."""
    now = [0.0]
    learned = Learned(now=lambda: now[0])
    learned.too_much("a", 1000)
    seen = []
    for hours in (0, 1, 10, 49, -5):
        now[0] = hours * HOUR
        seen.append(learned.of("a").ceiling)
    assert seen == [1000, 1100, 2593, None, 1000]


def test_deaths_are_forgiven_a_few_times():
    """Shared deaths for lack of memory cost nothing at first; a runner that ends in peace wipes the slate."""
    learned = Learned()
    for _ in range(FORGIVEN):
        assert learned.forgiving("a")
        learned.died("a", 100)
    assert not learned.forgiving("a")
    learned.ended_well("a")
    assert learned.forgiving("a")


@pytest.mark.parametrize("content", ["", "[]", '{"a": {"base": -1}}', '{"a": 3}', "\x00"])
def test_a_spoilt_file_is_begun_anew(tmp_path, content):
    """Nothing is known then, and nothing fails."""
    path = tmp_path / "learned.json"
    path.write_text(content)
    learned = Learned(path)
    assert learned.of("a").base is None
    learned.loaded("a", 5)
    assert Learned(path).of("a").base == 5


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path):
    """What was learned counts until the end of the process."""
    learned = Learned(tmp_path / "nowhere" / "learned.json")
    learned.loaded("a", 5)
    assert learned.of("a").base == 5


def test_an_estimate_is_corrected_within_bounds():
    """What the weights took is taken from what was seen; a wild number never more than doubles the estimate."""
    need = Estimate(weights=1000, overhead=PROCESS + 300)
    assert corrected(need, PROCESS + 1200) == PROCESS + 1500
    assert corrected(need, PROCESS + 800) == PROCESS + 1100
    far = corrected(need, 3 * need.total)
    assert far == 3 * need.total, "what was seen is no guess"
    assert corrected(Estimate(1, 1), 50) == 50
