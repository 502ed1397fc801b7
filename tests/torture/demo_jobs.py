"""Jobs for the demo models, whose texts are known: a slice of real tokens and real speech among the stub's jobs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from torture.history import read
from torture.load import Mix, Order

SAMPLES: Final = Path(__file__).parents[2] / "plugins" / "demo_models" / "samples"
#: Share of the spoken memo among them; the others are prompts.
_SPOKEN: Final = 0.25
#: What every key of such a job begins with, behind a load's own prefix.
_KEY: Final = "demo-"


def demo_order(number: int, chance: random.Random) -> Order:
    """Return a job for a demo model whose text is known: a prompt of the samples, now and then the spoken memo."""
    return spoken_order(number) if chance.random() < _SPOKEN else prompt_order(number, chance)


def spoken_order(number: int) -> Order:
    """Return a job that has the spoken memo transcribed."""
    words = (SAMPLES / "memo.txt").read_text(encoding="utf-8")
    return _order(number, "transcribe", SAMPLES / "memo.flac", words)


def known_words(sample: str) -> str:
    """Return what the prompt of the samples whose name begins with *sample* has to be answered with."""
    return (SAMPLES / "expected" / f"{sample}.txt").read_text(encoding="utf-8")


def prompt_order(number: int, chance: random.Random) -> Order:
    """Return a job that has one of the samples' prompts answered."""
    prompt = chance.choice(sorted((SAMPLES / "prompts").glob("*")))
    return _order(number, "generate", prompt, known_words(prompt.stem))


def _order(number: int, task: str, file: Path, words: str) -> Order:
    return Order(key=f"{_KEY}{number}", task=task, params={"file": str(file)}, expect={"words": words})


def sprinkled(mix: Mix, share: float, demo: Mix = demo_order) -> Mix:
    """Return *mix* with a *share* of its orders (0 to 1) for the demo models instead, as *demo* makes them."""

    def sprinkled_mix(number: int, chance: random.Random) -> Order:
        return demo(number, chance) if chance.random() < share else mix(number, chance)

    return sprinkled_mix


def demo_jobs(history: Path) -> int:
    """Return how many different jobs for a demo model were acknowledged, by the *history* (`torture.history`)."""
    return len({line["job"] for line in read(history) if line["kind"] == "ack" and _KEY in line["key"]})
