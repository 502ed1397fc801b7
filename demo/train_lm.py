"""Train mlxd-demo-lm, the tiny chat model that mlxd carries for its demo.

    python demo/train_lm.py --out plugins/demo_models/lm

All data is made here from the grammar in ``memos.py``; nothing is downloaded. Fixed seeds and
``--steps`` give the same data in the same order each time; ``--minutes`` stops by the clock.
On Linux CPUs an optimised BLAS makes this some ten times faster (preload OpenBLAS's libblas).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import instructions
import mlx.core as mx
import numpy as np
from mlx import nn, optimizers
from mlx.utils import tree_flatten, tree_map
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.pool import Pool

SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCABULARY = 1280
LENGTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "intermediate_size": 448,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
}
PROMPT_WEIGHT = 0.02  # the prompt is mostly chance: a little of its loss helps, more of it hurts


@dataclass(frozen=True)
class Batch:
    """Token ids of some chats and how much each token counts in the loss."""

    tokens: np.ndarray
    weights: np.ndarray


def train_tokenizer(seed: int, samples: int = 30_000) -> Tokenizer:
    """Byte-level BPE over the grammar's own text: whole words where they are common, bytes else."""
    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (message["content"] for _ in range(samples) for message in instructions.example(rng, 6).messages)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Write the tokenizer as transformers reads it."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"],
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def encode(tokenizer: Tokenizer, example: instructions.Example) -> tuple[list[int], list[float]]:
    """Give a chat's tokens and their weights: what the assistant says is what it learns."""
    tokens: list[int] = []
    weights: list[float] = []
    for message in example.messages:
        body = tokenizer.encode(message["content"]).ids
        tokens += [tokenizer.token_to_id(f"<|{message['role']}|>"), *body, SPECIAL.index("<|end|>")]
        weight = 1.0 if message["role"] == "assistant" else PROMPT_WEIGHT
        weights += [0.0, *[weight] * len(body), weight if weight == 1.0 else 0.0]
    return tokens, weights


def make_batches(task: tuple[str, int, int, int, int]) -> list[Batch]:
    """Make some batches of like lengths, in few shapes (each new shape costs a compilation)."""
    tokenizer_json, seed, size, longest, batch_tokens = task
    tokenizer = Tokenizer.from_str(tokenizer_json)
    rng = random.Random(seed)
    chats = [encode(tokenizer, instructions.example(rng, longest)) for _ in range(size)]
    chats = sorted((c for c in chats if len(c[0]) <= LENGTHS[-1]), key=lambda c: len(c[0]))
    batches = []
    while chats:
        length = next(n for n in LENGTHS if n >= len(chats[-1][0]))
        rows = max(1, batch_tokens // length)
        if len(chats) < rows:
            break  # the few shortest are left over
        batches.append(_batch(chats[-rows:], rows, length))
        del chats[-rows:]
    rng.shuffle(batches)
    return batches


def _batch(chats: list[tuple[list[int], list[float]]], rows: int, length: int) -> Batch:
    tokens = np.zeros((rows, length), np.int32)
    weights = np.zeros((rows, length), np.float32)
    for row, (ids, counts) in enumerate(chats):
        tokens[row, : len(ids)] = ids
        weights[row, : len(ids)] = counts
    return Batch(tokens, weights)


class Feed:
    """Batches without end, made ahead by other processes, in an order fixed by the seed."""

    def __init__(self, tokenizer: Tokenizer, args: argparse.Namespace, clock: Clock) -> None:
        """Start the processes that make the data."""
        self._json = tokenizer.to_str()
        self._args = args
        self._clock = clock
        self._count = 0
        # spawned, not forked: a process that has used MLX must not fork
        self._pool: Pool | None = get_context("spawn").Pool(args.workers) if args.workers > 0 else None

    def _task(self) -> tuple[str, int, int, int, int]:
        self._count += 1
        seed = self._args.seed * 1_000_003 + self._count
        longest = longest_paragraph(1.0 if self._args.start else self._clock.done())
        tokens = self._args.batch_tokens
        return (self._json, seed, max(512, tokens // 8), longest, tokens)

    def __iter__(self) -> Iterator[Batch]:
        """Give batches for ever."""
        if self._pool is None:
            while True:
                yield from make_batches(self._task())
        waiting = deque(self._pool.apply_async(make_batches, (self._task(),)) for _ in range(2 * self._args.workers))
        while True:
            batches = waiting.popleft().get()
            waiting.append(self._pool.apply_async(make_batches, (self._task(),)))
            yield from batches

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.terminate()


def longest_paragraph(done: float) -> int:
    """Begin with short paragraphs and reach the longest after a third of the training."""
    return 2 + round(38 * min(1.0, done / 0.35) ** 2)


class Clock:
    """How much of the training is done, by steps or by time."""

    def __init__(self, steps: int | None, minutes: float) -> None:
        """Count steps when a number of steps is given, else minutes."""
        self._steps = steps
        self._seconds = minutes * 60
        self._start = time.monotonic()
        self.step = 0

    def seconds(self) -> float:
        """Give the time since the start."""
        return time.monotonic() - self._start

    def done(self) -> float:
        """Give the part of the training that is done, 0 to 1."""
        if self._steps is not None:
            return min(1.0, self.step / self._steps)
        return min(1.0, self.seconds() / self._seconds)


def learning_rate(peak: float, step: int, done: float) -> float:
    """Warm up over 200 steps, then fall along a cosine to nearly nothing."""
    return peak * min(1.0, (step + 1) / 200) * (0.005 + 0.995 * (1 + math.cos(math.pi * done)) / 2)


def build(vocabulary: int) -> nn.Module:
    """Make the untrained model."""
    from mlx_lm.models.llama import Model, ModelArgs

    model = Model(ModelArgs.from_dict({**CONFIG, "vocab_size": vocabulary}))
    # small embeddings: tied to the output, they would start with logits far too large
    model.update(tree_map(lambda p: mx.random.normal(p.shape) * 0.02 if p.ndim > 1 else p, model.parameters()))
    mx.eval(model.parameters())
    return model


def loss_of(model: nn.Module, tokens: mx.array, weights: mx.array) -> mx.array:
    """Weighted cross entropy of each next token."""
    logits = model(tokens[:, :-1]).astype(mx.float32)
    losses = nn.losses.cross_entropy(logits, tokens[:, 1:])
    weights = weights[:, 1:]
    return (losses * weights).sum() / weights.sum()


def make_optimizer(peak: float) -> optimizers.Optimizer:
    """Give AdamW with settings that suit a short training of a small model."""
    return optimizers.AdamW(learning_rate=peak, betas=[0.9, 0.98], weight_decay=0.01)


def train(model: nn.Module, feed: Feed, clock: Clock, args: argparse.Namespace) -> None:
    """Train until the clock says so, saving and measuring now and then."""
    optimizer = make_optimizer(args.lr)
    state = [model.state, optimizer.state]
    gradient = nn.value_and_grad(model, loss_of)

    def step(tokens: mx.array, weights: mx.array) -> mx.array:
        loss, grads = gradient(model, tokens, weights)
        grads, _ = optimizers.clip_grad_norm(grads, 1.0)
        optimizer.update(model, grads)
        return loss

    # on a CPU each of the many shapes would call the C++ compiler, longer than it saves
    if mx.default_device().type == mx.DeviceType.gpu and not args.no_compile:
        step = mx.compile(step, inputs=state, outputs=state)
    recent: list[mx.array] = []
    tokens_seen, next_eval = 0, args.eval_every
    for batch in feed:
        done = clock.done()
        if done >= 1:
            break
        optimizer.learning_rate = learning_rate(args.lr, clock.step, done)
        loss = step(mx.array(batch.tokens), mx.array(batch.weights))
        mx.eval(state, loss)
        recent.append(loss)
        clock.step += 1
        tokens_seen += batch.tokens.size
        if clock.step % args.report == 0:
            report(recent, clock, tokens_seen)
            save_model(model, args.out, mx.float32)
            recent.clear()
        if done >= next_eval:
            next_eval += args.eval_every
            measure(model, args)
    print(f"trained {clock.step} steps, {tokens_seen} tokens, {clock.seconds():.0f} s", flush=True)


def report(recent: list[mx.array], clock: Clock, tokens_seen: int) -> None:
    """Print where the training stands."""
    mean = sum(loss.item() for loss in recent) / len(recent)
    rate = tokens_seen / clock.seconds()
    print(
        f"step {clock.step} {100 * clock.done():.1f} % loss {mean:.4f} {rate:.0f} tokens/s, "
        f"{mx.get_active_memory() / 2**30:.1f} + {mx.get_cache_memory() / 2**30:.1f} GB",
        flush=True,
    )


def measure(model: nn.Module, args: argparse.Namespace) -> None:
    """Save what there is and print its exact match on a few held-out examples."""
    import eval_lm

    save_model(model, args.out, mx.float32)
    few = ["--limit", str(args.eval_limit), "--alone", "0"]
    eval_lm.main(["--model", str(args.out), *few])


def save_model(model: nn.Module, out: Path, dtype: mx.Dtype) -> None:
    """Write weights and configuration as mlx-lm reads them."""
    weights = {k: v.astype(dtype) for k, v in tree_flatten(model.parameters())}
    mx.save_safetensors(str(out / "model.safetensors"), weights, {"format": "mlx"})
    end = SPECIAL.index("<|end|>")
    config = {
        **CONFIG,
        "vocab_size": model.model.embed_tokens.weight.shape[0],
        "eos_token_id": end,
        "pad_token_id": SPECIAL.index("<|pad|>"),
        "torch_dtype": str(dtype).rpartition(".")[2],
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"eos_token_id": end, "pad_token_id": 0, "do_sample": False}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("plugins/demo_models/lm"))
    parser.add_argument("--start", type=Path, help="go on from the model in this folder")
    parser.add_argument("--minutes", type=float, default=50, help="how long to train")
    parser.add_argument("--steps", type=int, help="how many steps to train, instead of --minutes")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that make data")
    parser.add_argument("--report", type=int, default=50, help="save and print the loss each so many steps")
    parser.add_argument("--eval-every", type=float, default=0.1, help="part of the training")
    parser.add_argument("--eval-limit", type=int, default=60)
    parser.add_argument("--dtype", default="float16", choices=["float16", "float32", "bfloat16"])
    parser.add_argument("--no-compile", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train the model and write its folder."""
    args = parse(argv)
    mx.random.seed(args.seed)
    if mx.default_device().type == mx.DeviceType.gpu:
        mx.set_cache_limit(8 * 2**30)  # else batches of many shapes fill it with unused buffers
    if args.start is None:
        tokenizer = train_tokenizer(args.seed)
    else:
        tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
    save_tokenizer(tokenizer, args.out)
    model = build(-(-tokenizer.get_vocab_size() // 64) * 64)
    if args.start is not None:
        model.load_weights(str(args.start / "model.safetensors"))
        model.update(tree_map(lambda p: p.astype(mx.float32), model.parameters()))
    print(f"{sum(p.size for _, p in tree_flatten(model.parameters()))} weights", flush=True)
    clock = Clock(args.steps, args.minutes)
    feed = Feed(tokenizer, args, clock)
    try:
        train(model, feed, clock, args)
    finally:
        feed.close()
    save_model(model, args.out, getattr(mx, args.dtype))


if __name__ == "__main__":
    main()
