"""Measure mlxd-demo-lm: exact match on memos it was never trained on.

    python demo/eval_lm.py --model plugins/demo_models/lm

Half the examples are made of held-out sentences, half of held-out combinations of slots (see
``memos.split``). An answer counts only if every character is right. ``--limit`` shortens it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import instructions
import mlx.core as mx
from instructions import Example
from mlx.utils import tree_map
from mlx_lm import batch_generate, generate, load

PARTS = ("sentence", "combination")
CYCLE = (
    *("list", "question", "json", "list", "summary", "question", "title", "list", "json"),
    *("question", "translate", "list", "upper", "question", "summary", "list", "json", "title"),
)
SHORT, LONGEST = 12, 40
# none of these is trained on: such questions must get the one honest answer and an end
STRANGERS = (
    *("What is the capital of Australia?", "Tell me a riddle.", "Write a song about the rain."),
    *("Who won the world cup in 1998?", "Explain black holes to a child.", "Hola, que tal?"),
    *("How do I bake bread?", "Write a regular expression for dates.", "Recommend a movie."),
    *("What is the population of Berlin?", "Give me three names for a dog.", "qwertz uiop"),
    *("How many legs does a spider have?", "Write an email to my professor.", "Why do we dream?"),
    *("What is 17 times 23?", "import numpy as np", "Describe the taste of honey."),
    *("Which is faster, a horse or a bicycle?", "Should I buy a house?", "List prime numbers."),
    *("Can you draw a picture?", "What does HTTP stand for?", "Plan a trip to Italy."),
)
ENDS_WITHIN = 100


def examples(part: str, limit: int) -> list[Example]:
    """Make the examples of one part: every task, one in eight with a long text."""
    rng = random.Random(f"eval {part}")
    made = []
    for number in range(limit):
        task = CYCLE[number % len(CYCLE)]
        most = instructions.TASKS[task][1]
        size = rng.randint(13, most) if number % 8 == 0 and most > SHORT else None
        made.append(instructions.example(rng, SHORT, part, task, size))
    return made


def pipeline_examples(part: str, each: int) -> list[Example]:
    """Make the sample pipeline's own prompt for 1 to 12 sentences."""
    rng = random.Random(f"pipeline {part}")
    return [instructions.pipeline_example(rng, size, part) for size in range(1, SHORT + 1) for _ in range(each)]


def load_model(path: Path, dtype: str) -> tuple[Any, Any]:
    """Open the model; on a CPU float32 is the fast type."""
    model, tokenizer = load(str(path))
    if dtype != "saved":
        wanted = getattr(mx, dtype)
        model.update(tree_map(lambda p: p.astype(wanted), model.parameters()))
        mx.eval(model.parameters())
    return model, tokenizer


def prompt_of(tokenizer: Any, example: Example) -> list[int]:
    """Give the tokens of a chat up to the answer to be given."""
    ids = tokenizer.apply_chat_template(list(example.messages[:-1]), add_generation_prompt=True)
    return list(ids)


def answers(model: Any, tokenizer: Any, made: list[Example], batch: int) -> list[str]:
    """Answer all examples, many at once, those of like length together."""
    prompts = [prompt_of(tokenizer, example) for example in made]
    room = [len(tokenizer.encode(e.answer, add_special_tokens=False)) + 16 for e in made]
    order = sorted(range(len(made)), key=lambda i: len(prompts[i]) + room[i])
    said = [""] * len(made)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        texts = batch_generate(
            model,
            tokenizer,
            [prompts[i] for i in chosen],
            max_tokens=[room[i] for i in chosen],
            completion_batch_size=batch,
            prefill_batch_size=min(batch, 16),
        ).texts
        for i, text in zip(chosen, texts, strict=True):
            said[i] = text
    return said


def groups(part: str, example: Example) -> list[str]:
    """Name the lines of the table that an example counts in."""
    names = [f"{part}: all", f"{part}: {example.task}"]
    names += [f"{part}: several turns"] if example.turns > 1 else []
    names += [f"{part}: long text"] if example.sentences > SHORT else []
    names += [f"{part}: in upper case"] if example.upper else []
    names += [f"{part}: system prompt"] if example.system else []
    return names


def score(part: str, made: list[Example], said: list[str], *, show: int) -> dict[str, list[int]]:
    """Count right answers and all answers by group; print the first wrong ones."""
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for example, text in zip(made, said, strict=True):
        right = text == example.answer
        for name in groups(part, example):
            table[name][0] += right
            table[name][1] += 1
        if not right and show > 0:
            show -= 1
            print(f"-- wrong ({part}, {example.task})\n{example.messages[-2]['content']}")
            print(f"   wanted {example.answer!r}\n   got    {text!r}")
    return table


def strangers(model: Any, tokenizer: Any) -> tuple[int, int, int]:
    """Ask what is outside the model's world: how many honest answers, how many ends, of all."""
    asked = [[{"role": "user", "content": text}] for text in STRANGERS]
    prompts = [list(tokenizer.apply_chat_template(a, add_generation_prompt=True)) for a in asked]
    done = batch_generate(model, tokenizer, prompts, max_tokens=ENDS_WITHIN, return_token_ids=True)
    honest = sum(text in {instructions.ABOUT, instructions.GREETING} for text in done.texts)
    ended = sum(len(ids) < ENDS_WITHIN for ids in done.token_ids or [])
    return honest, ended, len(asked)


def alone(model: Any, tokenizer: Any, made: list[Example], said: list[str]) -> int:
    """Answer some examples one by one; count those that differ from the batch."""
    return sum(
        generate(model, tokenizer, prompt_of(tokenizer, example), max_tokens=len(text) + 16) != text
        for example, text in zip(made, said, strict=True)
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=Path("plugins/demo_models/lm"))
    parser.add_argument("--limit", type=int, default=500, help="examples of each part")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="float32", help="float32, float16, bfloat16 or saved")
    parser.add_argument("--alone", type=int, default=20, help="compare so many with one by one")
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers")
    parser.add_argument("--at-least", type=float, default=0.0, help="fail below this per cent")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Print the table; fail when a total is too low."""
    args = parse(argv)
    model, tokenizer = load_model(args.model, args.dtype)
    start, worst = time.monotonic(), 100.0
    for part in PARTS:
        made = examples(part, args.limit)
        piped = pipeline_examples(part, max(1, args.limit // 50))
        said = answers(model, tokenizer, [*made, *piped], args.batch)
        table = score(part, made, said[: len(made)], show=args.show)
        right = score(part, piped, said[len(made) :], show=args.show)
        table[f"{part}: sample pipeline"] = right[f"{part}: all"]
        seen = {m.text for e in (*made, *piped) for m in e.memos if instructions.is_part(m, part)}
        print(f"{part}: {len(seen)} different held-out sentences")
        for name, (hits, total) in table.items():
            print(f"  {name:<30} {hits:>4} / {total:<4} {100 * hits / total:6.2f} %")
        worst = min(worst, 100 * table[f"{part}: all"][0] / len(made))
        few = min(args.alone, len(made))
        if few:
            other = alone(model, tokenizer, made[:few], said[:few])
            print(f"  differ alone and in a batch: {other} of {few}")
    honest, ended, total = strangers(model, tokenizer)
    print(f"outside its world: {honest} of {total} honest, {ended} ended in {ENDS_WITHIN} tokens")
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    return 1 if worst < args.at_least else 0


if __name__ == "__main__":
    sys.exit(main())
