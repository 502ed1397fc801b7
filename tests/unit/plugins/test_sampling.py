"""Draws for many rows at once, against mlx-lm's own samplers."""

from __future__ import annotations

import pytest

from plugins.sampling import Draw, Drawing, Stream

mx = pytest.importorskip("mlx.core")


def _logits(rows: int, size: int = 50, seed: int = 0):
    return mx.random.normal((rows, size), key=mx.random.key(seed)) * 3


def test_greedy_rows_take_the_likeliest():
    """No random numbers are used up."""
    logits = _logits(4)
    assert Drawing([Draw()] * 4, [None] * 4)(logits).tolist() == mx.argmax(logits, axis=-1).tolist()


@pytest.mark.parametrize(
    "draw",
    [Draw(1.0, 0.7), Draw(0.5, 1.0, 5), Draw(1.3, 0.9, 20, 0.05), Draw(1.0, 1.0, 0, 0.2), Draw(2.0), Draw(1, 0.01)],
)
def test_what_may_be_drawn_is_what_mlx_lm_would_draw_from(draw):
    """Beside rows of other parameters, the tokens that are not ruled out are exactly those of mlx-lm's filters."""
    from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

    logits = _logits(3)
    expected = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    if draw.top_p < 1:
        expected = apply_top_p(expected, draw.top_p)
    if draw.min_p > 0:
        expected = apply_min_p(expected, draw.min_p)
    if draw.top_k > 0:
        expected = apply_top_k(expected, draw.top_k)
    others = [Draw(1.0, 0.5, 3, 0.3), draw, Draw(0.7)]
    kept = Drawing(others, [None] * 3)._keep(logits)
    assert mx.isinf(kept[1]).tolist() == mx.isinf(expected[1]).tolist()


def test_the_coldest_temperature_takes_the_likeliest():
    """Its inverse would be no number, and the draw anything."""
    logits = _logits(2)
    assert Drawing([Draw(1e-45), Draw(1e-320)], [None] * 2)(logits).tolist() == mx.argmax(logits, axis=-1).tolist()


def test_each_row_is_drawn_by_its_own_parameters():
    """Over many draws a hot row varies, a row of the top one never does, and a greedy row beside them is right."""
    logits = _logits(3)
    drawing = Drawing([Draw(2.0), Draw(2.0, 1.0, 1), Draw()], [None] * 3)
    drawn = [drawing(logits).tolist() for _ in range(40)]
    best = mx.argmax(logits, axis=-1).tolist()
    assert len({line[0] for line in drawn}) > 5
    assert {line[1] for line in drawn} == {best[1]}
    assert {line[2] for line in drawn} == {best[2]}


def test_a_draw_has_the_probabilities_of_its_temperature():
    """4,000 draws of a row at temperature 0.7 are within 4 % of the softmax, token by token."""
    logits = mx.array([[1.0, 0.5, 0.0, -1.0]])
    drawing = Drawing([Draw(0.7)] * 4000, [None] * 4000)
    drawn = drawing(mx.repeat(logits, 4000, axis=0)).tolist()
    wanted = mx.softmax(logits[0] / 0.7).tolist()
    assert all(abs(drawn.count(token) / 4000 - share) < 0.04 for token, share in enumerate(wanted))


def test_a_seeded_row_draws_the_same_wherever_it_stands():
    """Alone, or as the last of three: the same tokens; another seed, others."""
    logits = _logits(1)
    draw = Draw(3.0)

    def run(seed, before):
        drawing = Drawing([Draw(1.0)] * before + [draw], [None] * before + [Stream(seed)])
        return [
            drawing(mx.concatenate([_logits(before, seed=9), logits]) if before else logits).tolist()[-1]
            for _ in range(9)
        ]

    assert run(5, 0) == run(5, 2)
    assert run(5, 0) != run(6, 0)


def test_a_draw_depends_on_the_seed_and_its_place_alone():
    """A stream that begins at the fourth token draws what another one draws there; neighbours differ."""
    whole = Stream(5)
    keys = [whole.next().tolist() for _ in range(6)]
    later = Stream(5, at=3)
    assert [later.next().tolist() for _ in range(3)] == keys[3:]
    assert len({tuple(key) for key in [*keys, Stream(6).next().tolist(), Stream(51, at=0).next().tolist()]}) == 8
