"""Rows that hold their beginning together: each answers as it would with a beginning of its own."""

from __future__ import annotations

import random

import pytest
from fakes_models import loaded_llama

from plugins import lm_caches
from plugins.lm_pace import Pace
from plugins.lm_prefill import Prefill, Prompt
from plugins.lm_prefixes import Prefixes
from plugins.lm_rows import Row, Rows

pytestmark = pytest.mark.models

_CHANCE = random.Random(5)
BEGINNING = [_CHANCE.randrange(5, 280) for _ in range(200)]


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory):
    return loaded_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(name="begun", scope="module")
def _begun(model):
    """The sources of a computed beginning, and a plain cache with it."""
    import mlx.core as mx

    from plugins import lm_shared

    assert lm_shared.usable(model)
    cache = lm_caches.fresh(model)
    model(mx.array([BEGINNING]), cache=cache)
    lm_caches.evaluate(cache)
    return lm_shared.sources(cache), cache


def _single(model, begun, ending, *, shared):
    """Return a cache with the beginning and *ending*."""
    import mlx.core as mx

    from plugins import lm_shared

    sources, cache = begun
    own = lm_shared.beginning(sources, len(BEGINNING)) if shared else lm_caches.copied(cache)
    if ending:
        model(mx.array([ending]), cache=own)
    return own


def _batch(model, begun, endings, *, shared):
    return lm_caches.merged([_single(model, begun, ending, shared=shared) for ending in endings])


def _logits(model, cache, tokens):
    import mlx.core as mx

    return model(mx.array([[token] for token in tokens]), cache=cache)[:, -1]


def _close(one, other):
    import mlx.core as mx

    return mx.max(mx.abs(one - other)).item() < 1e-4


ENDINGS = [[9, 8, 7], [6], [], [5, 4, 3, 2, 1, 9]]


def test_every_row_sees_the_beginning_and_only_its_own_end(model, begun):
    """Of mixed lengths, over several steps: the logits are those of rows that hold everything themselves."""
    ours, theirs = (_batch(model, begun, ENDINGS, shared=shared) for shared in (True, False))
    assert all(type(layer).__name__ == "BatchSharedKVCache" for layer in ours)
    for tokens in ([11, 12, 13, 14], [21, 22, 23, 24], [31, 32, 33, 34]):
        assert _close(_logits(model, ours, tokens), _logits(model, theirs, tokens))


def test_nothing_of_the_beginning_is_copied(model, begun):
    """A row more costs what is behind the beginning, however long that is."""
    one, many = (_batch(model, begun, [[9, 8, 7]] * rows, shared=True) for rows in (2, 6))
    each = (lm_caches.size(many) - lm_caches.size(one)) / 4
    assert each == lm_caches.size(begun[1]) / begun[1][0].keys.shape[2] * 3


def test_rows_join_and_leave(model, begun):
    """With another part of the beginning in common, with none, and back to a row alone: the logits stay the same."""
    from plugins import lm_shared

    def steps(*, shared):
        found = []
        batch = _batch(model, begun, ENDINGS, shared=shared)
        found.append(_logits(model, batch, [11, 12, 13, 14]))
        if shared:
            shorter = lm_shared.beginning(begun[0], 150)
        else:
            shorter = lm_caches.copied(begun[1])
            lm_caches.trim(shorter, 50)
        batch = lm_caches.extended(batch, lm_caches.merged([shorter]))
        found.append(_logits(model, batch, [1, 2, 3, 4, 5]))
        batch = lm_caches.filtered(batch, [4, 1, 3])
        found.append(_logits(model, batch, [7, 8, 9]))
        stranger = lm_caches.fresh(model)
        _logits(model, stranger, [77])
        batch = lm_caches.extended(batch, lm_caches.merged([stranger]))
        found.append(_logits(model, batch, [7, 8, 9, 10]))
        return found

    pairs = list(zip(steps(shared=True), steps(shared=False), strict=True))
    assert [_close(one, other) for one, other in pairs] == [True] * 4


def test_a_row_is_taken_out_whole(model, begun):
    """What is extracted is a cache like any other: it can be written to, cut below the beginning, and copied."""
    batch = _batch(model, begun, ENDINGS, shared=True)
    _logits(model, batch, [11, 12, 13, 14])
    row = lm_caches.extracted(batch, 0)
    plain = _single(model, begun, [9, 8, 7, 11], shared=False)
    assert _close(_logits(model, lm_caches.copied(row), [5]), _logits(model, lm_caches.copied(plain), [5]))
    for cache in (row, plain):
        lm_caches.trim(cache, 20)
    assert row[0].tied == row[0].offset == 184
    assert _close(_logits(model, row, [5]), _logits(model, plain, [5]))
    assert row[0].tied == 184


def test_what_is_kept_refers_to_nobody(model, begun):
    """An answer that is kept for the next turn counts with all its bytes, and holds on to no other entry's."""
    batch = _batch(model, begun, ENDINGS, shared=True)
    row = lm_caches.extracted(batch, 0)
    assert lm_caches.size(row) < lm_caches.size(begun[1]) / 10
    prefixes = Prefixes(10**8)
    prefixes.keep([*BEGINNING, 9, 8, 7], row)
    assert prefixes.size > lm_caches.size(begun[1]) / 2
    found, length = prefixes.find([*BEGINNING, 9, 8, 7, 1])
    assert (length, lm_caches.source(found)) == (203, None)


def test_the_memory_for_scores_is_bounded(model, begun, monkeypatch):
    """Rows are taken in turn where all at once would take too much, and nothing changes."""
    from plugins import lm_shared

    whole = _logits(model, _batch(model, begun, ENDINGS, shared=True), [1, 2, 3, 4])
    monkeypatch.setattr(lm_shared, "_SCORES", 1)
    assert _close(_logits(model, _batch(model, begun, ENDINGS, shared=True), [1, 2, 3, 4]), whole)


def test_short_beginnings_and_long_ends_are_not_shared(model, begun):
    """There one fused multiplication over everything is quicker."""
    from plugins import lm_shared

    short = lm_caches.merged([lm_shared.beginning(begun[0], lm_shared.WORTH - 1) for _ in range(2)])
    assert not hasattr(short[0], "source")
    long = _batch(model, begun, [[1] * 900, [2]], shared=True)
    assert not hasattr(long[0], "source")


def test_models_that_go_another_way_are_found_out(model):
    """A model whose attention does not come here, or whose caches are others, gets copies as before."""
    import mlx.core as mx

    from plugins import lm_shared

    class Blind:
        """Looks at its caches by itself."""

        layers = model.layers

        def __call__(self, tokens, cache):
            for layer in cache:
                layer.update_and_fetch(*mx.zeros((2, tokens.shape[0], 2, tokens.shape[1], 16)))
            return mx.zeros((*tokens.shape, 8))

    class Rotating(Blind):
        """Has caches of another kind."""

        def make_cache(self):
            from mlx_lm.models.cache import RotatingKVCache

            return [RotatingKVCache(max_size=64)]

    assert not lm_shared.usable(Blind())
    assert not lm_shared.usable(Rotating())


def test_quantised_attention_stays_mlx_lms_own(model):
    """Whoever has a quantised cache gets what mlx-lm computes for it."""
    import mlx.core as mx
    from mlx_lm.models.base import quantized_scaled_dot_product_attention

    from plugins import lm_shared

    lm_shared.usable(model)
    queries, keys = mx.random.normal((1, 2, 3, 64)), mx.random.normal((1, 2, 5, 64))
    few = mx.quantize(keys, group_size=32, bits=8)
    got = quantized_scaled_dot_product_attention(queries, few, few, scale=1.0, mask=None, group_size=32, bits=8)
    want = mx.fast.scaled_dot_product_attention(queries, keys, keys, scale=1.0)
    assert mx.max(mx.abs(got - want)).item() < 0.1


@pytest.mark.parametrize(("even", "wave"), [(False, 99), (True, 4), (False, 1)])
def test_prompts_that_begin_alike_are_answered_as_alone(model, even, wave):
    """Through prefill and rows, all at once or one after the other: token for token what copies give."""
    prompts = [BEGINNING + [random.Random(at).randrange(5, 280) for _ in range(1 + at * 7 % 23)] for at in range(8)]

    def answers(*, shared):
        prefixes = Prefixes(10**8, shares=lambda: shared)
        for prompt in prompts:
            prefixes.see(prompt)
        rows, told, kinds = Rows(model, slack=0.3), {}, set()
        prefill = Prefill(model, prefixes=prefixes, pace=Pace(512), even=even)
        left = list(enumerate(prompts))
        while left or len(prefill) or len(rows):
            for number, prompt in left[:wave]:
                prefill.add(Prompt(number, prompt))
            left = left[wave:]
            while prefill.unready:
                prefill.advance(others=False)
            if ready := prefill.ready():
                made = [Row(owner=prompt.owner, cached=prompt.tokens[:-1]) for prompt in ready]
                rows.join(made, [prompt.cache for prompt in ready], [prompt.tokens[-1] for prompt in ready])
            for _ in range(4):
                for drawn in rows.step() if len(rows) else ():
                    told.setdefault(drawn.row.owner, []).append(drawn.token)
                    if len(told[drawn.row.owner]) == 8 + drawn.row.owner % 3:
                        rows.leave([drawn.row])
                kinds |= {type(layer).__name__ for layer in rows.cache}
        return {owner: tokens[: 8 + owner % 3] for owner, tokens in told.items()}, kinds

    (ours, shared), (theirs, copied) = answers(shared=True), answers(shared=False)
    assert ours == theirs
    assert "BatchSharedKVCache" in shared
    assert "BatchSharedKVCache" not in copied


def test_a_lone_prompt_has_a_plain_cache_of_its_own(model):
    """Whether the model can share is not even tried, which takes time; the next one finds what was kept."""
    asked = []
    prefixes = Prefixes(10**8, shares=lambda: bool(asked.append(1)) or True)
    prefill = Prefill(model, prefixes=prefixes, pace=Pace(512))
    kinds = []
    for number, ending in enumerate(([7], [8, 9])):
        prefixes.see(BEGINNING + ending)
        prefill.add(Prompt(number, BEGINNING + ending))
        while prefill.unready:
            prefill.advance(others=False)
        (ready,) = prefill.ready()
        kinds.append((type(ready.cache[0]).__name__, ready.found, len(asked)))
    assert kinds == [("KVCache", 0, 0), ("TiedKVCache", len(BEGINNING), 1)]


class Watched(Pace):
    """Hears behind how many tokens each piece lies, when it is chosen and when it has been computed."""

    def __init__(self):
        super().__init__(64)
        self.asked, self.told = [], []

    def piece(self, *, others, behind=0):
        self.asked.append(behind)
        return super().piece(others=others, behind=behind)

    def computed(self, tokens, seconds, *, behind=0):
        self.told.append(behind)
        super().computed(tokens, seconds, behind=behind)


def test_the_pace_hears_how_deep_a_piece_lies(model):
    """As it is chosen and as it is computed; what was found of a prompt lies before its first piece."""
    pace, prefixes = Watched(), Prefixes(10**8)
    prefill = Prefill(model, prefixes=prefixes, pace=pace)
    tokens = [random.Random(at).randrange(5, 280) for at in range(201)]
    for number, prompt in enumerate((tokens, [*tokens, *tokens])):
        prefixes.see(prompt)
        prefill.add(Prompt(number, prompt))
        while prefill.unready:
            prefill.advance(others=False)
        prefill.ready()
    assert pace.asked == pace.told
    assert pace.told[:5] == [0, 64, 128, 192, 200]
