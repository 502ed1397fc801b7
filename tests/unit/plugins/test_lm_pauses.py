"""What a pause costs: nothing is computed again, and what was computed stays where it is."""

from __future__ import annotations

import pytest
from fakes_models import drain, tiny_llama

from jobs.model import Lane
from plugins import lm_caches, mlx_process
from plugins.lm import LmRuntime
from plugins.lm_session import LmSession

pytestmark = pytest.mark.models

BATCH = 3
PROMPTS = ["the cat", "the dog sat on the log", "a mat", "the mat and the log", "cat", "the dog and the cat sat"]


class Counting:
    """A model that notes the shape of what it computes, (rows, tokens), under the lane whose turn it is."""

    def __init__(self, model) -> None:
        self._model = model
        self.lane = None
        self.calls: list[tuple[Lane, tuple[int, int]]] = []

    def __call__(self, tokens, **more):
        self.calls.append((self.lane, tuple(tokens.shape)))
        return self._model(tokens, **more)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def of(self, lane: Lane) -> list[tuple[int, int]]:
        return [shape for whose, shape in self.calls if whose is lane]


@pytest.fixture(name="session")
def _session(tmp_path):
    mlx_process.prepare()
    loaded = LmRuntime().load(tiny_llama(tmp_path), {})
    counting = Counting(loaded._model)
    session = LmSession(counting, loaded._tokenizer, limits=loaded._limits, batch=BATCH, prefix_bytes=0)
    turn = session._turns.next

    def noted(lanes):
        counting.lane = turn(lanes)
        return counting.lane

    session._turns.next = noted
    yield session
    session.close()
    loaded.close()


def submit_batch(session) -> None:
    for number, prompt in enumerate(PROMPTS):
        session.submit(f"b{number}", {"prompt": prompt, "max_tokens": 20 + 5 * number, "lane": "batch"})


def batch_rows(session):
    return [row for group in session._groups if group.lane is Lane.BATCH for row in group.rows.rows]


def _cohorts(session):
    return [cohort for group in session._groups if group.lane is Lane.BATCH for cohort in group.rows.cohorts]


def batch_bytes(session) -> int:
    return sum(lm_caches.size(cohort.cache) for cohort in _cohorts(session))


def test_pausing_and_resuming_computes_nothing_again(session):
    """The batch's every step and every token of its prompts are the same, in number and order, as without pauses."""
    submit_batch(session)
    undisturbed = {name: told[-1][1]["text"] for name, told in drain(session).items()}
    counting = session._model
    calls, told, person, steps = counting.of(Lane.BATCH), {}, 0, 0
    counting.calls.clear()

    submit_batch(session)
    while session.busy:
        if steps % 7 == 3 and person < 12:
            session.submit(f"p{person}", {"prompt": "the dog", "max_tokens": 9, "lane": "interactive"})
            person += 1
        for name, kind, data in session.step():
            told.setdefault(name, []).append((kind, data))
        steps += 1
    assert counting.of(Lane.BATCH) == calls
    assert sum(rows * tokens for rows, tokens in calls) > 0
    assert len(counting.of(Lane.INTERACTIVE)) > 12
    assert {name: told[name][-1][1]["text"] for name in undisturbed} == undisturbed


def test_who_is_paused_keeps_his_cache_and_nothing_more(session):
    """With the rows' limit reached, those in the batch are paused with their caches; the others have not begun."""
    submit_batch(session)
    while len(batch_rows(session)) < BATCH:
        list(session.step())
    for _ in range(4):
        list(session.step())
    rows, size = batch_rows(session), batch_bytes(session)
    computed = [list(row.cached) for row in rows]
    assert {row.owner.id for row in rows} == {"b4", "b0", "b2"}  # the shortest prompts
    assert size > 0

    session.submit("p", {"prompt": "the dog", "max_tokens": 5, "lane": "interactive"})
    for _ in range(5):
        assert not [name for name, _, _ in session.step() if name.startswith("b")]
    assert batch_rows(session) == rows
    assert [row.cached for row in rows] == computed
    assert batch_bytes(session) == size
    assert sum(len(line) for line in session._lines._lines.values()) == len(PROMPTS) - BATCH
    # The caches hold each token of each row once, padded to the longest row.
    held = [layer.keys.shape for cohort in _cohorts(session) for layer in cohort.cache]
    assert {shape[0] for shape in held} == {BATCH}
    assert all(shape[2] <= max(map(len, computed)) + 256 for shape in held)
    drain(session)
