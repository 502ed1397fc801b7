"""A tiny model with random weights, and what it says when nobody else is there."""

from __future__ import annotations

import pytest
from fakes_models import loaded_llama


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory):
    return loaded_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(name="alone", scope="module")
def _alone(model):
    """Draw greedily by mlx-lm's own loop."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    def draw(tokens, count):
        return [int(token) for token, _ in generate_step(mx.array(tokens), model, max_tokens=count)]

    return draw
