"""Rows, prompts and caches on a real model: whoever else is there, each sequence is what it is alone."""

from __future__ import annotations

import random

import pytest

from plugins import lm_caches
from plugins.lm_pace import Pace
from plugins.lm_prefill import Prefill, Prompt, compute_together
from plugins.lm_prefixes import Prefixes
from plugins.lm_rows import Row, Rows

pytestmark = pytest.mark.models


def _prompts(count, seed=0, most=40):
    chance = random.Random(seed)
    return [[chance.randrange(5, 280) for _ in range(chance.randrange(1, most))] for _ in range(count)]


def _prefill(model, prefixes=None, *, even=False):
    return Prefill(model, prefixes=prefixes or Prefixes(10**8), pace=Pace(64), even=even)


def _ready(model, prompts):
    """Compute *prompts* and return them as rows."""
    prefill = _prefill(model)
    for number, tokens in enumerate(prompts):
        prefill.add(Prompt(number, tokens))
    while prefill.unready:
        prefill.advance(others=False)
    return sorted(prefill.ready(), key=lambda prompt: prompt.owner)


def _join(rows, prompts):
    made = [Row(owner=prompt.owner, cached=prompt.tokens[:-1]) for prompt in prompts]
    rows.join(made, [prompt.cache for prompt in prompts], [prompt.tokens[-1] for prompt in prompts])
    return made


def _draw(rows, steps, told):
    for _ in range(steps):
        for drawn in rows.step():
            told.setdefault(drawn.row.owner, []).append(drawn.token)


@pytest.mark.parametrize("slack", [0.0, 0.5])
def test_rows_that_come_and_go_draw_what_they_would_alone(model, alone, slack):
    """Of different lengths, joining and leaving at different steps, down to one and up again."""
    prompts = _prompts(6)
    ready = _ready(model, prompts)
    rows, told = Rows(model, slack=slack), {}
    first = _join(rows, ready[:3])
    _draw(rows, 5, told)
    rows.leave([first[1]])
    _draw(rows, 2, told)
    later = _join(rows, ready[3:])
    _draw(rows, 4, told)
    rows.leave([first[0], *later])
    assert [row.owner for row in rows.rows] == [2]
    _draw(rows, 3, told)
    rows.leave(rows.rows)
    assert len(rows) == 0
    for owner, tokens in told.items():
        assert tokens == alone(prompts[owner], len(tokens))
    assert {owner: len(tokens) for owner, tokens in told.items()} == {0: 10, 1: 4, 2: 13, 3: 3, 4: 3, 5: 3}


def test_rows_of_one_length_need_no_mask(model, alone):
    """The mask is gone while no row is padded, comes back with a row that is, and the tokens stay the same."""
    prompts = [tokens[:12] for tokens in _prompts(8, most=60) if len(tokens) >= 12][:3]
    assert len(prompts) == 3
    rows, told = Rows(model), {}
    _join(rows, _ready(model, prompts))
    assert rows.cache[0].make_mask(1) is None
    _draw(rows, 3, told)
    extra = _ready(model, [[7, 8, 9]])
    extra[0].owner = 3
    _join(rows, extra)
    assert rows.cache[0].make_mask(1) is not None
    _draw(rows, 3, told)
    for owner, tokens in told.items():
        assert tokens == alone([*prompts, [7, 8, 9]][owner], len(tokens))


def test_the_cache_of_a_row_continues_it(model, alone):
    """What is taken out of a batch, or from a row alone, goes on where it was."""
    prompts = _prompts(3, seed=4)
    rows, told = Rows(model), {}
    made = _join(rows, _ready(model, prompts))
    _draw(rows, 5, told)
    taken = rows.cache_of(made[1])
    cached = list(made[1].cached)
    later = Rows(model)
    row = Row(owner="later", cached=list(cached))
    later.join([row], [taken], [alone(prompts[1], 5)[4]])
    again = {}
    _draw(later, 4, again)
    assert cached == [*prompts[1], *alone(prompts[1], 4)]
    assert again["later"] == alone(prompts[1], 8)[5:]


@pytest.mark.parametrize("even", [False, True])
def test_a_prompt_is_the_same_in_pieces_together_and_after_a_prefix(model, alone, even):
    """However it got into the cache, the answer begins the same; the last token is never computed beforehand."""
    common = _prompts(1, seed=9, most=200)[0] + list(range(5, 105))
    prompts = [common + tokens for tokens in _prompts(5, seed=3)]
    prefixes = Prefixes(10**8)
    for tokens in prompts:
        prefixes.see(tokens)
    prefill = _prefill(model, prefixes, even=even)
    for number, tokens in enumerate(prompts):
        prefill.add(Prompt(number, tokens))
    while prefill.unready:
        prefill.advance(others=True)
    ready = sorted(prefill.ready(), key=lambda prompt: prompt.owner)
    assert [prompt.found >= len(common) for prompt in ready].count(True) == 4
    assert all(prompt.left == 0 and prompt.done == len(prompt.tokens) - 1 for prompt in ready)
    rows, told = Rows(model), {}
    _join(rows, ready)
    _draw(rows, 4, told)
    assert told == {number: alone(tokens, 3) for number, tokens in enumerate(prompts)}


def test_dropped_prompts_are_not_computed(model):
    """What nobody waits for any more costs nothing; an empty prompt is refused."""
    prefill = _prefill(model)
    for number, tokens in enumerate(_prompts(4)):
        prefill.add(Prompt(number, tokens))
    prefill.drop([0, 2])
    while prefill.unready:
        prefill.advance(others=False)
    assert sorted(prompt.owner for prompt in prefill.ready()) == [1, 3]
    assert prefill.advance(others=False) == []
    with pytest.raises(ValueError, match="at least one token"):
        Prompt(0, [])


def test_copies_of_a_cache_grow_apart(model):
    """A copy shares what was there and nothing that comes; sizes are told in bytes."""
    (prompt,) = _ready(model, [list(range(5, 45))])
    copy = lm_caches.copied(prompt.cache)
    more = Prompt(1, [1, 2, 3])
    more.cache = lm_caches.fresh(model)
    compute_together(model, [more])
    lm_caches.trim(copy, 10)
    assert copy[0].offset == 29
    assert prompt.cache[0].offset == 39
    assert lm_caches.size(prompt.cache) > 0
    assert lm_caches.trimmable(copy)
    assert lm_caches.batchable(model) is None
