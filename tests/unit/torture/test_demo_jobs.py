"""The slice of a campaign that real models do."""

from __future__ import annotations

import random

import pytest
from torture.demo_jobs import demo_jobs, demo_order, prompt_order, spoken_order, sprinkled
from torture.history import History
from torture.load import Order


def test_every_demo_order_has_a_known_text():
    """A prompt or the memo, with the words that have to come out."""
    orders = [demo_order(number, random.Random(number)) for number in range(40)]
    assert {order.task for order in orders} == {"generate", "transcribe"}
    assert all(order.expect["words"].strip() for order in orders)


def test_each_sample_has_its_own_answer():
    """All prompts come up in time, and no answer passes for that of another prompt's file."""
    orders = [prompt_order(number, random.Random(number)) for number in range(200)]
    answers = {order.params["file"]: order.expect["words"] for order in orders}
    assert len(answers) == 12
    assert "Anna" in next(text for file, text in answers.items() if "01-errands" in file)
    assert spoken_order(1).expect["words"] not in answers.values()


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_sprinkling_replaces_the_share_it_was_told(share):
    """The others come from the mix as they are."""
    mix = sprinkled(lambda number, _: Order(key=f"plain-{number}", params={}), share)
    chance = random.Random(1)
    orders = [mix(number, chance) for number in range(1000)]
    real = [order for order in orders if order.key.startswith("demo-")]
    assert abs(len(real) - 1000 * share) <= (0 if share in (0.0, 1.0) else 40)
    assert all(order.task == "stub" for order in orders if order not in real)


def test_jobs_are_counted_once_whatever_their_prefix(tmp_path):
    """One that was asked for twice is one; those that nobody acknowledged are none."""
    history = History(tmp_path / "history.jsonl")
    for job, key in (("a", "demo-1"), ("a", "demo-1"), ("b", "7-demo-2"), ("c", "job-3")):
        history.ack(job, key)
    history.unknown("demo-9")
    history.close()
    assert demo_jobs(history.path) == 2
