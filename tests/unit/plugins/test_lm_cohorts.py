"""Who is decoded together: those whose lengths fit each other, and each draws what it would alone."""

from __future__ import annotations

import random
from functools import partial

import pytest

from plugins import lm_caches
from plugins.lm_cohorts import Cohorts, Shape, pass_tokens
from plugins.lm_pace import Pace
from plugins.lm_prefill import Prefill, Prompt
from plugins.lm_prefixes import Prefixes
from plugins.lm_rows import Row, Rows

pytestmark = pytest.mark.models


class Table:
    """Rows with prompts of the lengths that are asked for, and what they have drawn."""

    def __init__(self, model, one_pass):
        self._model, self._chance = model, random.Random(7)
        self.cohorts = Cohorts(partial(Rows, model), one_pass=one_pass)
        self.prompts, self.rows, self.told = [], [], {}

    def join(self, *lengths):
        """Let rows with prompts of *lengths* join, all at once."""
        prefill = Prefill(self._model, prefixes=Prefixes(10**8), pace=Pace(64))
        for length in lengths:
            self.prompts.append([self._chance.randrange(5, 280) for _ in range(length)])
            prefill.add(Prompt(len(self.prompts) - 1, self.prompts[-1]))
        while prefill.unready:
            prefill.advance(others=False)
        ready = sorted(prefill.ready(), key=lambda prompt: prompt.owner)
        made = [Row(owner=prompt.owner, cached=prompt.tokens[:-1], logprobs=1) for prompt in ready]
        self.rows += made
        self.cohorts.join(made, [prompt.cache for prompt in ready], [prompt.tokens[-1] for prompt in ready])

    def leave(self, *owners):
        """Let the rows of *owners* go."""
        self.cohorts.leave([self.rows[owner] for owner in owners])

    def draw(self, steps):
        """Compute *steps*."""
        for _ in range(steps):
            for drawn in self.cohorts.step():
                # What was asked to be told beside a token comes along when its row is moved.
                assert (drawn.token, drawn.logprob) == drawn.top[0]
                self.told.setdefault(drawn.row.owner, []).append(drawn.token)

    @property
    def together(self):
        """Return whose rows are decoded together."""
        return sorted(sorted(row.owner for row in cohort.rows) for cohort in self.cohorts.cohorts)


def test_a_long_row_among_short_ones_is_decoded_apart(model, alone):
    """The short ones are not padded to its length; a second long one joins it; all draw what they would alone."""
    table = Table(model, one_pass=300)
    table.join(4, 9, 6)
    table.draw(3)
    table.join(180)
    assert table.together == [[0, 1, 2], [3]]
    table.draw(3)
    table.join(170, 8)
    assert table.together == [[0, 1, 2, 5], [3, 4]]
    table.draw(4)
    # A row's first step only feeds the end of its prompt.
    assert {owner: len(tokens) for owner, tokens in table.told.items()} == {0: 9, 1: 9, 2: 9, 3: 6, 4: 3, 5: 3}
    assert all(tokens == alone(table.prompts[owner], len(tokens)) for owner, tokens in table.told.items())
    assert table.cohorts.held < 2 * 190 + 4 * 20


def test_rows_that_join_at_once_are_sorted_by_their_lengths(model, alone):
    """In whatever order they come; and they keep their own answers."""
    table = Table(model, one_pass=60)
    table.join(90, 5, 95, 7, 6)
    assert table.together == [[0, 2], [1, 3, 4]]
    table.draw(5)
    assert all(tokens == alone(table.prompts[owner], 4) for owner, tokens in table.told.items())


def test_rows_are_put_together_again_when_a_pass_costs_more(model, alone):
    """Of four short rows three leave: one pass for both lengths costs less now; nobody's answer notices."""
    table = Table(model, one_pass=150)
    table.join(60, 5, 5, 5, 5)
    assert table.together == [[0], [1, 2, 3, 4]]
    table.draw(4)
    table.leave(1, 2)
    assert table.together == [[0], [3, 4]]  # 120 tokens more together: less than a pass, more than half of one
    table.leave(3)
    assert table.together == [[0, 4]]
    table.draw(4)
    for owner in (0, 4):
        assert table.told[owner] == alone(table.prompts[owner], 7)


def test_those_who_have_left_leave_no_cohort_behind(model):
    """A pass for nobody would cost as much as one for somebody; the last one stays, for who comes next."""
    table = Table(model, one_pass=0)
    table.join(5, 50, 100)
    assert len(table.cohorts.cohorts) == 3
    table.leave(1)
    assert table.together == [[0], [2]]
    table.leave(0, 2)
    assert (len(table.cohorts), table.cohorts.step(), len(table.cohorts.cohorts)) == (0, [], 1)


def test_the_cache_of_a_row_is_found_in_its_cohort(model):
    """An answer in a conversation is kept from whatever cohort it was decoded in."""
    table = Table(model, one_pass=10)
    table.join(5, 80)
    table.draw(3)
    for row in table.rows:
        assert table.cohorts.cache_of(row)[0].offset == len(row.cached)
        assert table.cohorts.broken(row) is False


def test_caches_that_do_not_grow_with_their_rows_stay_together(model, monkeypatch):
    """A sliding window or a state is as dear for a long row as for a short one."""
    monkeypatch.setattr(lm_caches, "plain", lambda _: False)
    table = Table(model, one_pass=0)
    table.join(5, 90)
    assert table.together == [[0, 1]]


def test_a_shared_beginning_is_read_once():
    """Fifty rows with 2,000 tokens in common read them once; a stranger among them would make each read its own."""
    source = object()
    sharing = Shape(rows=50, longest=2050, source=source, shared=2000)
    assert sharing.tokens == 2000 + 50 * 50
    assert sharing.dearer(Shape(rows=1, longest=2010, source=source, shared=2000)) == 51 * 50 - 50 * 50 - 2010
    assert sharing.dearer(Shape(rows=1, longest=300)) == 51 * 2050 - 4500 - 300
    assert Shape().with_(sharing) == sharing.with_(Shape()) == sharing


def test_a_pass_costs_the_weights_and_its_start():
    """In tokens of caches that could be read meanwhile; who does not know what a token takes never pays for one."""
    assert pass_tokens(10_000_000, 1000) == (10_000_000 + (32 << 20)) // 1000
    assert pass_tokens(0, 1000) == pass_tokens(10_000_000, 0) == 1 << 60
