"""How the budget is shared out among the runners."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.models.shares import Claimant, in_the_way, shares


def claimant(key, memory, **more):
    return Claimant(key=key, memory=memory, **more)


def memories(*claimants, budget=100, reserved=0):
    return {key: share.memory for key, share in shares(claimants, budget, reserved).items()}


def test_one_model_may_have_the_whole_budget():
    """Alone it grows as far as the budget goes."""
    assert memories(claimant("a", 30)) == {"a": 100}


def test_what_is_free_is_for_those_in_use():
    """An idle model keeps what it occupies; the working ones divide the rest; one that loads has its need put by."""
    found = memories(claimant("a", 20, in_use=True), claimant("b", 10, in_use=True), claimant("c", 30))
    assert found == {"a": 40, "b": 30, "c": 30}
    assert memories(claimant("a", 20, in_use=True), claimant("b", 50, ready=False)) == {"a": 50}
    assert memories(claimant("a", 20, in_use=True), reserved=70) == {"a": 30}


def test_whoever_stands_still_comes_first():
    """What is wanted is given before the rest is divided, and the answer says to which wish it belongs."""
    a, b = claimant("a", 20, in_use=True, wants=55), claimant("b", 30, in_use=True)
    found = shares([a, b], 100)
    assert (found["a"].memory, found["b"].memory) == (62, 37)
    assert (found["a"].answers, found["b"].answers) == (55, 0)


def test_a_share_says_what_could_be_had_at_most():
    """Pinned models stand in the way for ever, others only until they are unloaded."""
    found = shares([claimant("a", 20, wants=90), claimant("b", 30), claimant("p", 15, pinned=True)], 100)
    assert found["a"].most == 85
    leaving = shares([claimant("a", 20, wants=90), claimant("b", 30, ready=False, leaving=True)], 100)
    assert leaving["a"].coming


def test_what_was_too_much_once_is_not_given_again():
    """A learned ceiling bounds the share, not what could be had at most."""
    found = shares([claimant("a", 20, ceiling=45)], 100)["a"]
    assert (found.memory, found.most) == (45, 100)


def test_idle_models_make_way_for_one_that_stands_still():
    """The least recently used go first, and only as many as are needed, and only if that helps."""
    a = claimant("a", 20, in_use=True, wants=70)
    old, new = claimant("old", 30, spare=True, last_used=1), claimant("new", 30, spare=True, last_used=2)
    assert in_the_way([a, new, old], 100) == ("old",)
    assert in_the_way([a, new], 100) == ()
    assert in_the_way([claimant("a", 20, wants=200), old, new], 100) == (), "not even that would be enough"
    gone = claimant("old", 30, ready=False, leaving=True, last_used=1)
    assert in_the_way([a, new, gone], 100) == (), "it is on its way"


claimants = st.lists(
    st.builds(
        Claimant,
        key=st.uuids().map(str),
        memory=st.integers(0, 60),
        ready=st.booleans(),
        in_use=st.booleans(),
        spare=st.booleans(),
        wants=st.integers(0, 200),
        last_used=st.floats(0, 9),
    ),
    max_size=6,
    unique_by=lambda one: one.key,
)


@given(claimants, st.integers(0, 100))
def test_together_they_never_exceed_the_budget(found, reserved):
    """Unless what is occupied does already; and nobody gets less than it occupies."""
    given_out = shares(found, 100, reserved)
    occupied = sum(one.memory for one in found)
    total = sum(given_out[one.key].memory if one.key in given_out else one.memory for one in found)
    assert total <= max(100 - reserved, occupied)
    assert all(given_out[one.key].memory >= one.memory for one in found if one.ready)
