"""What a language model's runner makes of its share of the memory."""

import pytest
from fakes_models import drain, tiny_llama

from plugins import mlx_process
from plugins.estimate import PROCESS
from plugins.lm import LmRuntime
from plugins.lm_memory import LmMemory, Verdict
from plugins.runtime import Memory, Share

WEIGHTS = 2_000_000
FIXED = PROCESS + WEIGHTS + WEIGHTS // 20


def memory(**more):
    return LmMemory(**{"weights": WEIGHTS, "token_bytes": 1000, "tokens": 500, "most_kept": 3000} | more)


def share(tokens, *, most=10**9, **more):
    """Return a share with room for so many tokens beside the weights."""
    return Share(memory=FIXED + tokens * 1000, most=most, **more)


def test_tokens_follow_from_the_share():
    """What weights and process leave is for the caches, a little of it for beginnings of prompts."""
    kept = []
    one = memory(keep=kept.append)
    assert one.tokens == 500
    one.limit(share(100))
    assert (one.tokens, kept) == (97, [3000])
    one.limit(Share(memory=FIXED - 5, most=10**9))
    assert (one.tokens, kept) == (0, [3000, 0])


def test_a_request_that_fits_begins():
    """As long as no share is known, everything does."""
    one = memory()
    assert one.verdict(10**6) is Verdict.BEGIN
    one.limit(share(100))
    assert one.verdict(100) is Verdict.BEGIN
    assert one.wanted == 0


def test_a_request_that_needs_more_asks_for_it_once_and_waits():
    """It says for how much, waits while room is being made, and begins alone when no more can be had."""
    one = memory()
    one.limit(share(100))
    assert one.verdict(150) is Verdict.WAIT
    assert one.wanted == FIXED + 150_000
    one.limit(share(100, coming=True, answers=one.wanted))
    assert one.verdict(150) is Verdict.WAIT
    one.limit(share(120, answers=FIXED + 150_000))
    assert one.verdict(150) is Verdict.BEGIN, "the others are in use: waiting could be for ever"
    assert one.verdict(151) is Verdict.WAIT, "that was the answer to another question"


def test_a_request_that_can_never_fit_is_refused_with_advice():
    """The sentence has the numbers and says what to do."""
    one = memory()
    one.limit(share(100, most=FIXED + 200_000))
    assert one.verdict(201) is Verdict.REFUSE
    assert "201 tokens" in one.refusal(201)
    assert "memory.budget" in one.refusal(201)


def test_what_a_token_takes_is_learned_from_the_peak():
    """More is believed at once, less slowly, nothing beyond the bounds, and nothing from little."""
    peaks = iter([WEIGHTS + 300_000_000, WEIGHTS + 100_000_000, WEIGHTS + 10**10, WEIGHTS + 10**9])
    one = memory(token_bytes=100_000, peak=lambda: next(peaks))

    def work(held):
        for _ in range(16):
            one.step(lambda: held)
        one.rest()
        return round(one.factor, 2)

    assert [work(held) for held in (1000, 1000, 1000, 10)] == [3.0, 2.8, 4.0, 4.0]
    assert one.reckoned(10) == FIXED + 4_000_000


def test_what_was_learned_before_counts_from_the_start():
    """The first share brings the factor of an earlier life; later ones do not undo what was learned since."""
    one = memory()
    one.limit(share(100, factor=2.0))
    assert one.tokens == 48
    one.factor = 1.0
    one.limit(share(100, factor=2.0))
    assert one.tokens == 97
    other = memory()
    other.limit(share(100, factor=99.0))
    assert other.factor == 4.0


def test_when_memory_ran_out_less_is_tried_until_the_daemon_knows():
    """A share that was sent before the daemon heard of it is cut down; later ones are as the daemon says."""
    one = memory()
    one.limit(share(100))
    one.ran_out(80)
    assert one.tokens == 60
    ceiling = FIXED + 60_000
    assert one.ceiling == ceiling
    one.limit(share(100))
    assert one.tokens == 57
    one.limit(Share(memory=ceiling, most=10**9))
    assert one.ceiling is None
    one.limit(share(100))
    assert one.tokens == 97


# -- a session ---------------------------------------------------------------------------------------------------------


def scarce(monkeypatch, session, rows):
    """Let the device have memory for so many rows at once; return the list of what it refused."""
    kind, refused = type(session._model), []
    compute = kind.__call__

    def call(self, inputs, *args, **more):
        if inputs.shape[0] > rows:
            refused.append(inputs.shape[0])
            raise RuntimeError("[metal::malloc] Unable to allocate 123 bytes.")
        return compute(self, inputs, *args, **more)

    monkeypatch.setattr(kind, "__call__", call)
    return refused


@pytest.fixture(name="tiny", scope="module")
def _tiny(tmp_path_factory):
    mlx_process.prepare()
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(name="session")
def _session(tiny):
    session = LmRuntime().load(tiny, {"batch": 8})
    yield session
    session.close()


def ask(session, count, **more):
    for number in range(count):
        session.submit(str(number), {"prompt": f"the cat {number}", "max_tokens": 12, **more})


def texts(told):
    return {name: events[-1][1].get("text") for name, events in told.items()}


@pytest.mark.models
def test_a_session_lives_with_what_memory_there_is(session, monkeypatch):
    """Memory that runs out in the batch costs nobody an answer: fewer are computed at once, and all say the same."""
    ask(session, 6)
    whole = texts(drain(session))
    refused = scarce(monkeypatch, session, rows=2)
    ask(session, 6)
    told = drain(session)
    assert refused
    assert texts(told) == whole
    assert any("Memory ran out" in note for events in told.values() for note in events[-1][1]["notes"])
    assert session.memory.ceiling is not None


@pytest.mark.models
def test_who_does_not_fit_alone_is_told_what_to_do(session, monkeypatch):
    """With nothing else under way it was this request that was too much, and no other try would help."""
    scarce(monkeypatch, session, rows=0)
    ask(session, 1)
    ((_, kind, data),) = [(name, *event) for name, events in drain(session).items() for event in events]
    assert (kind, data["type"]) == ("error", "out-of-memory")
    assert "max_tokens" in data["message"]


@pytest.mark.models
def test_a_session_stands_still_until_it_has_room(session):
    """It asks, is not busy meanwhile, goes on with the answer, and forgets the wish of a request that is gone."""
    memory: Memory = session.memory
    need = session.memory.reckoned(0)
    memory.limit(Share(memory=need, most=10**12))
    ask(session, 1)
    assert session.busy
    assert list(session.step()) == []
    assert memory.wanted > need
    assert not session.busy
    session.cancel("0")
    assert memory.wanted == 0
    ask(session, 1)
    list(session.step())
    memory.limit(Share(memory=10**12, most=10**12))
    assert texts(drain(session))["0"]


@pytest.mark.models
def test_a_request_beyond_the_machine_ends_with_a_sentence(session):
    """It is refused at once; the others are answered."""
    need = session.memory.reckoned(100)
    session.memory.limit(Share(memory=need, most=need))
    session.submit("big", {"prompt": "the cat", "max_tokens": 200})
    ask(session, 1)
    told = drain(session)
    assert told["big"][-1][1]["type"] == "out-of-memory"
    assert texts(told)["0"]


@pytest.mark.models
def test_a_paused_lane_goes_on_one_at_a_time(session):
    """Beside other work nothing of the lane begins; with nothing else under way one does, so nobody starves."""
    session.memory.pause(["batch"])
    ask(session, 3, lane="batch")
    most = 0
    while session.busy:
        list(session.step())
        most = max(most, sum(len(group.answers) for group in session._groups))
    assert most == 1


@pytest.mark.models
def test_trimming_gives_back_what_is_kept_for_speed(session):
    """Beginnings of prompts are forgotten, and the work goes on."""
    for number in range(2):
        session.submit(str(number), {"prompt": "the cat " * 30 + str(number), "max_tokens": 4})
    drain(session)
    assert session.memory.spare > 0
    session.memory.trim()
    assert session.memory.spare == 0
    ask(session, 1)
    assert texts(drain(session))["0"]
