"""The policy: which models stay, who waits, who is evicted."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.models.residency import (
    NOBODY,
    PATIENCE_S,
    Ahead,
    Claim,
    Decision,
    Phase,
    Request,
    Resident,
    Verdict,
    deadline,
    decide,
    expired,
    line_up,
    overflow,
)
from jobs.model import Lane


def request(key="new", need=60, *, lane=Lane.NORMAL, seq=0, since=0.0):
    return Request(key=key, lane=lane, seq=seq, since=since, need=need)


def resident(key, memory=60, *, phase=Phase.READY, **more):
    return Resident(key=key, memory=memory, phase=phase, **more)


def test_case_1_a_ready_model_serves():
    """A resident model serves at once, also while others use it."""
    found = decide(request("a"), [resident("a", leases=3)], 100)
    assert (found.verdict, found.case) == (Verdict.SERVE, 1)


def test_case_2_a_loading_model_is_waited_for():
    """A second request for a cold model waits for the first one's load."""
    found = decide(request("a"), [resident("a", phase=Phase.LOADING)], 100)
    assert (found.verdict, found.case) == (Verdict.WAIT, 2)


def test_case_3_what_is_leaving_is_waited_for():
    """A model on its way out, one whose place is promised, and room that is about to come are all waited for."""
    assert decide(request("a"), [resident("a", phase=Phase.UNLOADING)], 100).case == 3
    assert decide(request("a"), [resident("a")], 100, Ahead(promised=frozenset({"a"}), need=60)).case == 3
    found = decide(request("new"), [resident("a", phase=Phase.UNLOADING)], 100)
    assert (found.verdict, found.case) == (Verdict.WAIT, 3)


def test_case_4_what_can_never_fit_is_refused_with_numbers():
    """More than the budget less the pinned models is refused, however idle the others are."""
    found = decide(request(need=60), [resident("a", 50, pinned=True), resident("b", 10)], 100)
    assert (found.verdict, found.case, found.available) == (Verdict.REFUSE, 4, 50)


def test_case_5_room_is_used():
    """With room enough the model is loaded beside the others."""
    assert decide(request(need=40), [resident("a", 60)], 100).verdict is Verdict.LOAD


def test_case_6_the_least_recently_used_idle_models_go():
    """Just enough idle models are evicted, the longest unused first; pinned and used ones stay."""
    residents = [
        resident("young", 30, last_used=9),
        resident("old", 30, last_used=1),
        resident("pinned", 10, pinned=True, last_used=0),
        resident("used", 30, leases=1, last_used=0),
    ]
    found = decide(request(need=25), residents, 100)
    assert (found.verdict, found.case, found.victims) == (Verdict.EVICT, 6, ("old",))
    assert decide(request(need=55), residents, 100).victims == ("old", "young")


def test_case_7_leases_are_waited_for_and_their_places_promised():
    """When only models in use could make room, the request waits and their places are promised to it."""
    found = decide(request(), [resident("a", leases=1)], 100)
    assert (found.verdict, found.case, found.victims) == (Verdict.WAIT, 7, ("a",))

    ahead = Ahead().behind(request(), found)
    assert decide(request("a", seq=1), [resident("a", leases=1)], 100, ahead).verdict is Verdict.WAIT


def test_free_room_that_the_head_of_the_line_does_not_need_is_used():
    """Behind a request that waits for a lease, a small model that does not get in its way is loaded."""
    residents = [resident("a", 60, leases=1)]
    head = request("big", need=60)
    ahead = Ahead().behind(head, decide(head, residents, 100))

    assert decide(request("small", need=20, seq=1), residents, 100, ahead).verdict is Verdict.LOAD
    assert decide(request("medium", need=41, seq=1), residents, 100, ahead).verdict is Verdict.WAIT


def test_a_running_job_goes_before_the_queued_ones_of_its_lane():
    """However long these have waited: it holds a worker, which may be the one that they would need."""
    old = Request(key="a", lane=Lane.BATCH, seq=0, since=0.0, need=60, claim=Claim.DUE)
    running = request("b", lane=Lane.BATCH, seq=9, since=1000.0)
    other = Request(key="c", lane=Lane.NORMAL, seq=0, since=0.0, need=60, claim=Claim.DUE)
    assert line_up([old, running], 1001.0) == [running, old]
    assert line_up([old, other, running], 1001.0) == [other, running, old]
    assert line_up([old, request("b", lane=Lane.NORMAL, since=1000.0)], 1001.0)[0] is old


def test_room_that_several_wait_for_counts_once():
    """Two jobs for one model need its bytes once, one for another model adds its own."""
    wait = Decision(verdict=Verdict.WAIT, case=7)
    first = NOBODY.behind(request("a"), wait)
    assert decide(request("a", seq=1), [], 100, first).case == 3
    second = first.behind(request("a", seq=1), Decision(verdict=Verdict.WAIT, case=3))
    assert (first.need, second.need) == (60, 60)
    assert second.behind(request("b"), wait).need == 120


def test_the_line_is_fair():
    """Lanes go first, arrival decides within a lane, and long waiting lifts a request."""
    line = [
        request("batch", lane=Lane.BATCH, seq=0, since=0),
        request("late", lane=Lane.NORMAL, seq=2, since=20),
        request("early", lane=Lane.NORMAL, seq=1, since=20),
        request("person", lane=Lane.INTERACTIVE, seq=3, since=20),
    ]
    assert [one.key for one in line_up(line, PATIENCE_S - 1)] == ["person", "early", "late", "batch"]
    assert [one.key for one in line_up(line, PATIENCE_S + 1)] == ["person", "batch", "early", "late"]


def test_keep_alive_ends_only_for_idle_models():
    """Idle models go when their time is over; used, pinned, loading and keep-for-ever models do not."""
    residents = [
        resident("over", last_used=0, keep_alive=10),
        resident("at-once", last_used=20, keep_alive=0),
        resident("not-yet", last_used=15, keep_alive=10),
        resident("used", last_used=0, keep_alive=10, leases=1),
        resident("pinned", last_used=0, keep_alive=10, pinned=True),
        resident("for-ever", last_used=0, keep_alive=None),
        resident("loading", last_used=0, keep_alive=0, phase=Phase.LOADING),
    ]
    assert expired(residents, 20) == ("over", "at-once")
    assert [deadline(one) for one in residents] == [10, 20, 25, None, None, None, None]


def test_overflow_evicts_idle_models_only():
    """Runners that took more than was estimated push idle models out, nothing that is used."""
    assert overflow([resident("a", 60, last_used=1), resident("b", 60, last_used=2)], 100) == ("a",)
    assert overflow([resident("a", 60, leases=1), resident("b", 60, pinned=True)], 100) == ()
    assert overflow([resident("a", 60)], 100) == ()


_residents = st.lists(
    st.builds(
        Resident,
        key=st.sampled_from("abcdef"),
        phase=st.sampled_from(Phase),
        leases=st.integers(0, 2),
        pinned=st.booleans(),
        last_used=st.floats(0, 100),
        memory=st.integers(0, 80),
    ),
    unique_by=lambda one: one.key,
    max_size=6,
)


@given(_residents, st.integers(1, 120), st.sampled_from("abcdefg"))
def test_no_decision_ever_hurts_a_user_or_the_budget(residents, need, key):
    """Evicted models are idle and unpinned, a load never exceeds the budget, and a decision is always taken."""
    found = decide(request(key, need=need), residents, 100)
    by_key = {one.key: one for one in residents}

    if found.verdict is Verdict.EVICT:
        assert all(by_key[one].idle and not by_key[one].pinned for one in found.victims)
    if found.verdict is Verdict.LOAD:
        assert sum(one.memory for one in residents) + need <= 100
