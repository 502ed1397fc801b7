"""Which requests go aboard a runner, and which wait."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daemon.models.admission import Admission, Ticket
from daemon.models.calls import EngineCall
from daemon.models.residency import PATIENCE_S
from jobs.model import Lane


def ticket(name: str, **more: Any) -> Ticket:
    call = EngineCall(name, on_event=None, send_cancel=lambda _: None)
    return Ticket(
        **{"call": call, "request": {}, "lane": Lane.NORMAL, "alone": False, "holder": name, "since": 0.0} | more
    )


def names(tickets: list[Ticket]) -> list[str]:
    return [one.call.id for one in tickets]


def test_requests_go_aboard_at_once() -> None:
    """Without a suspect nobody waits, however many there are."""
    admission = Admission()
    assert [names(admission.enter(ticket(name), 0.0)) for name in "abc"] == [["a"], ["b"], ["c"]]
    assert set(admission.aboard) == {"a", "b", "c"}


def test_a_suspect_waits_until_it_is_alone_and_the_others_wait_for_it() -> None:
    """It goes when the last one aboard has ended; whoever came after it goes, all together, when it has ended."""
    admission = Admission()
    admission.enter(ticket("before"), 0.0)
    assert admission.enter(ticket("suspect", alone=True), 1.0) == []
    assert admission.enter(ticket("after"), 2.0) == [], "or a stream of others would starve it"
    assert admission.enter(ticket("later"), 3.0) == []
    assert names(admission.leave("before", 4.0)) == ["suspect"]
    assert names(admission.leave("suspect", 5.0)) == ["after", "later"]


def test_two_suspects_are_never_together() -> None:
    """One at a time, in order of arrival."""
    admission = Admission()
    assert names(admission.enter(ticket("a", alone=True), 0.0)) == ["a"]
    assert admission.enter(ticket("b", alone=True), 0.0) == []
    assert names(admission.leave("a", 0.0)) == ["b"]


def test_a_person_overtakes_a_suspect_of_a_lower_lane_but_not_for_ever() -> None:
    """An interactive request goes aboard while a suspect waits for its turn, until that one has waited long."""
    admission = Admission()
    admission.enter(ticket("running"), 0.0)
    admission.enter(ticket("suspect", alone=True), 0.0)
    assert names(admission.enter(ticket("person", lane=Lane.INTERACTIVE), 1.0)) == ["person"]
    late = ticket("another", lane=Lane.INTERACTIVE, since=PATIENCE_S)
    assert admission.enter(late, PATIENCE_S) == []
    admission.leave("running", PATIENCE_S)
    assert names(admission.leave("person", PATIENCE_S)) == ["suspect"]


def test_whoever_gives_up_waiting_holds_nobody_up() -> None:
    """A suspect that is cancelled in the line lets those behind it go; an unknown id changes nothing."""
    admission = Admission()
    admission.enter(ticket("running"), 0.0)
    admission.enter(ticket("suspect", alone=True), 0.0)
    admission.enter(ticket("after"), 0.0)
    assert names(admission.leave("suspect", 0.0)) == ["after"]
    assert admission.leave("unknown", 0.0) == []


def test_the_end_tells_who_was_aboard() -> None:
    """What was aboard and what waited are told apart."""
    admission = Admission()
    admission.enter(ticket("running"), 0.0)
    admission.enter(ticket("suspect", alone=True), 0.0)
    aboard, waiting = admission.clear()
    assert (names(aboard), names(waiting)) == (["running"], ["suspect"])
    assert admission.clear() == ([], [])


_lanes = st.sampled_from(list(Lane))


@given(st.lists(st.one_of(st.tuples(st.just("enter"), _lanes, st.booleans()), st.integers(0, 20)), max_size=60))
def test_a_suspect_is_always_alone_and_everybody_gets_aboard(steps: list[Any]) -> None:
    """Whatever comes and goes: two are never aboard with a suspect, and when all have ended nobody waits."""
    admission, now, suspects, entered = Admission(), 0.0, set(), 0
    for step in steps:
        now += 1.0
        if isinstance(step, tuple):
            name, entered = str(entered), entered + 1
            suspects |= {name} if step[2] else set()
            admission.enter(ticket(name, lane=step[1], alone=step[2], since=now), now)
        elif admission.aboard:
            admission.leave(sorted(admission.aboard)[step % len(admission.aboard)], now)
        assert len(admission.aboard) == 1 or not suspects & set(admission.aboard)
    while admission.aboard:
        admission.leave(next(iter(admission.aboard)), now)
    assert admission.clear() == ([], [])
