"""The hub: live events from workers to followers."""

import asyncio
import threading
import time

from daemon.events import Event, Hub
from jobs.model import Job, State, new_job_id

NOW = "2026-01-02T03:04:05Z"


def make_job(state: State) -> Job:
    return Job.model_validate({"task": "generate", "id": new_job_id(), "seq": 1, "created_at": NOW, "state": state})


def drain(subscription):
    events = []
    while (event := subscription.get(0)) is not None:
        events.append(event)
    return events


def test_a_follower_hears_its_job_and_nothing_else():
    """A subscription to one job gets that job's events in order; one to everything gets all."""
    hub = Hub()
    with hub.subscribe("a") as one, hub.subscribe() as everything:
        hub.publish("a", "token", {"text": "x"})
        hub.publish("b", "token", {"text": "y"})
        hub.publish("a", "progress", {"done": 1})
        assert [event.kind for event in drain(one)] == ["token", "progress"]
        assert [event.job_id for event in drain(everything)] == ["a", "b", "a"]


def test_closing_forgets_the_follower():
    """The hub keeps nothing of a follower that went away, and events pushed to it vanish."""
    hub = Hub()
    subscription = hub.subscribe("a")
    assert hub.followers() == 1
    subscription.close()
    subscription.close()
    assert hub.followers() == 0
    assert subscription.push(Event("a", "token", {}))
    assert subscription.get(0) is None


def test_a_slow_follower_loses_tokens_but_never_a_state():
    """When it overflows the oldest passing events go, a notice says how many, and states stay."""
    hub = Hub(capacity=4)
    subscription = hub.subscribe("a")
    hub.publish("a", "state", {"state": "running"})
    for n in range(10):
        hub.publish("a", "token", {"n": n})
    hub.publish("a", "state", {"state": "succeeded"})
    events = drain(subscription)
    assert events[0] == Event("a", "lagged", {"dropped": 8})
    assert [event.data.get("state") for event in events if event.kind == "state"] == ["running", "succeeded"]
    assert [event.data["n"] for event in events if event.kind == "token"] == [8, 9]
    subscription.close()


def test_a_follower_that_never_reads_is_cut_off():
    """States are not dropped, so who leaves ten times the capacity unread is ended instead of eating memory."""
    hub = Hub(capacity=2)
    subscription = hub.subscribe()
    for n in range(30):
        hub.publish(str(n), "state", {"state": "queued"})
    assert subscription.closed
    assert hub.followers() == 0
    assert len(drain(subscription)) == 21


def test_publishing_never_waits_for_a_follower():
    """Ten thousand events to a follower that reads nothing take no longer than a moment."""
    hub = Hub(capacity=100)
    with hub.subscribe("a") as idle:
        start = time.monotonic()
        for n in range(10_000):
            hub.publish("a", "token", {"text": "x", "n": n})
        assert time.monotonic() - start < 5
        assert len(drain(idle)) == 101


def test_late_followers_hear_what_was_said():
    """Tokens so far come joined, segments as they were, progress once; another attempt starts afresh."""
    hub = Hub()
    for n, piece in enumerate("abc"):
        hub.publish("a", "token", {"text": piece, "n": n + 1})
    hub.publish("a", "segment", {"text": "s"})
    hub.publish("a", "progress", {"done": 1})
    hub.publish("a", "progress", {"done": 2})
    hub.publish("a", "state", {"state": "running"})
    hub.publish("a", "token", {"text": "d", "n": 4})
    with hub.subscribe("a") as late:
        assert [(event.kind, dict(event.data)) for event in drain(late)] == [
            ("token", {"text": "abc", "n": 3}),
            ("segment", {"text": "s"}),
            ("token", {"text": "d", "n": 4}),
            ("progress", {"done": 2}),
        ]
    with hub.subscribe("a", replay=False) as later:
        assert drain(later) == []
    hub.publish("a", "state", {"state": "queued"})
    with hub.subscribe("a") as after:
        assert drain(after) == []


def test_thoughts_and_probabilities_are_joined_too():
    """Who comes late hears a thought and an answer as one event each, with every token's probability."""
    hub = Hub()
    for n, piece in enumerate("abcd"):
        kind = "reasoning" if n < 2 else "token"
        hub.publish("a", kind, {"text": piece, "n": n + 1, "logprobs": [{"token": n}]})
    hub.publish("a", "tool_call", {"index": 0})
    with hub.subscribe("a") as late:
        assert [(event.kind, dict(event.data)) for event in drain(late)] == [
            ("reasoning", {"text": "ab", "n": 2, "logprobs": [{"token": 0}, {"token": 1}]}),
            ("token", {"text": "cd", "n": 4, "logprobs": [{"token": 2}, {"token": 3}]}),
            ("tool_call", {"index": 0}),
        ]


def test_tokens_of_different_streams_are_not_joined():
    """A batch's items keep apart in the replay."""
    hub = Hub()
    hub.publish("a", "token", {"text": "x", "item": 1})
    hub.publish("a", "token", {"text": "y", "item": 2})
    with hub.subscribe("a") as late:
        assert [event.data["text"] for event in drain(late)] == ["x", "y"]


def test_what_is_kept_is_bounded(monkeypatch):
    """A chatty attempt keeps its newest events and says that others are gone; old jobs are forgotten."""
    monkeypatch.setattr("daemon.events._KEPT_EVENTS", 3)
    monkeypatch.setattr("daemon.events._KEPT_CHARACTERS", 4)
    monkeypatch.setattr("daemon.events._KEPT_JOBS", 2)
    hub = Hub()
    for n in range(5):
        hub.publish("a", "segment", {"n": n})
    for _ in range(6):
        hub.publish("b", "token", {"text": "x"})
    with hub.subscribe("a") as late:
        assert [event.data.get("n", event.kind) for event in drain(late)] == ["lagged", 2, 3, 4]
    with hub.subscribe("b") as late:
        assert [dict(event.data) for event in drain(late)] == [{"dropped": 2}, {"text": "xxxx"}]
    hub.publish("c", "segment", {})
    with hub.subscribe("a") as late:
        assert drain(late) == []


def test_events_cross_from_threads_into_an_event_loop():
    """An async follower wakes up when a thread publishes, gets everything in order, and ends at close."""
    hub = Hub()

    async def follow():
        with hub.subscribe("a") as events:
            worker = threading.Thread(target=work)
            worker.start()
            kinds = [event.data["n"] async for event in events]
            worker.join()
        return kinds

    def work():
        for n in range(200):
            hub.publish("a", "token", {"n": n})
        hub.close()

    assert asyncio.run(follow()) == list(range(200))


def test_an_async_wait_can_time_out_without_losing_anything():
    """After a timeout the next event still arrives."""

    async def follow():
        hub = Hub()
        with hub.subscribe("a") as events:
            assert await events.aget(0) is None
            assert not events.closed
            hub.publish("a", "token", {"n": 1})
            return await events.aget(5)

    event = asyncio.run(follow())
    assert event is not None
    assert event.data == {"n": 1}


def test_a_follower_whose_loop_ended_disturbs_nobody():
    """Publishing to a subscription whose event loop is gone is harmless."""
    hub = Hub()
    loop = asyncio.new_event_loop()
    subscription = hub.subscribe("a")

    async def give_up():
        task = asyncio.ensure_future(subscription.aget())
        await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(give_up())
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    hub.publish("a", "token", {})
    assert len(drain(subscription)) == 1
    subscription.close()


def test_a_closed_hub_ends_everybody_at_once():
    """Close ends those who follow and those who come later."""
    hub = Hub()
    with hub.subscribe("a") as before:
        hub.publish("a", "token", {"n": 1})
        hub.close()
        assert [event.data["n"] for event in before] == [1]
    with hub.subscribe("a") as after:
        assert after.closed
        assert after.get() is None


def test_waiting_ends_when_the_job_is_settled():
    """wait_terminal returns the finished job, woken by its state event alone."""
    hub = Hub()
    running, done = make_job(State.RUNNING), make_job(State.SUCCEEDED)
    answers = [running, done]

    def read(job_id):
        job = answers.pop(0)
        if job is running:
            hub.publish(job_id, "token", {"text": "x"})
            hub.publish(job_id, "state", {"state": "succeeded"})
        return job

    assert hub.wait_terminal("a", read, timeout=30) is done
    assert hub.followers() == 0


def test_waiting_gives_up_after_the_timeout():
    """wait_terminal returns the unfinished job when time is up, and a blocked one at once."""
    hub = Hub()
    running, blocked = make_job(State.RUNNING), make_job(State.BLOCKED)
    assert hub.wait_terminal("a", lambda _: running, timeout=0) is running
    assert hub.wait_terminal("a", lambda _: blocked) is blocked


def test_a_change_is_shown_to_who_listens_and_costs_nothing_otherwise():
    """What a job looks like is worked out for followers of it or of everything only; an ended attempt is forgotten."""
    hub, shown = Hub(), []

    def show(job):
        shown.append(job.id)
        return {"state": job.state}

    job, running = make_job(State.QUEUED), make_job(State.RUNNING)
    hub.publish(job.id, "token", {"text": "x"})
    hub.publish(running.id, "token", {"text": "y"})
    hub.changed(job, show)
    hub.changed(running, show)
    assert shown == []
    with hub.subscribe(job.id) as one, hub.subscribe(running.id) as other, hub.subscribe("else"):
        assert [drain(one), [event.kind for event in drain(other)]] == [[], ["token"]]
        hub.changed(job, show)
        assert drain(one) == [Event(job.id, "state", {"state": State.QUEUED})]
    with hub.subscribe() as everything:
        hub.changed(job, show)
        assert [event.kind for event in drain(everything)] == ["state"]
    assert shown == [job.id, job.id]
