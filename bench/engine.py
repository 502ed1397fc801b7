"""``python bench/engine.py``: the language-model engine against what mlx-lm offers for the same work, in one process.

The model has random weights (``--size``: small runs anywhere, 8b is Llama-3's shape in bfloat16), so nothing has to be
downloaded; a sampled text of it means nothing, its speed does. Each pair is measured in turn (ours, theirs, theirs,
ours, ...), the first round does not count, and an arm is measured against itself to show the noise.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from plugins import mlx_process
from plugins.lm_request import Limits
from plugins.lm_session import LmSession

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 8192,
        "dtype": "float32",
    },
    "8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "dtype": "bfloat16",
    },
}


def random_model(size: str) -> Any:
    """Return a Llama of the given shape with random weights, evaluated."""
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.models.llama import Model, ModelArgs

    shape = dict(SIZES[size])
    dtype = getattr(mx, shape.pop("dtype"))
    mx.random.seed(0)
    model = Model(
        ModelArgs(
            model_type="llama",
            rms_norm_eps=1e-5,
            rope_theta=500000.0,
            tie_word_embeddings=False,
            max_position_embeddings=131072,
            **shape,
        )
    )
    weights = [
        (name, mx.random.normal(old.shape, dtype=dtype) * 0.02 if old.ndim > 1 else mx.ones(old.shape, dtype=dtype))
        for name, old in tree_flatten(model.parameters())
    ]
    model.update(tree_unflatten(weights))
    mx.eval(model.parameters())
    model.eval()
    return model


def byte_tokenizer(size: int) -> Any:
    """Return a byte-level tokenizer of *size* tokens, as Llama-3's is: bytes, pairs of them, and triples."""
    from itertools import islice, product

    from mlx_lm.tokenizer_utils import load
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [*product(letters, letters), *((a + b, c) for a, b, c in product(letters, letters, letters))]
    pieces = letters + [first + second for first, second in islice(merges, size)]
    words = {piece: number for number, piece in enumerate(pieces[: size - 1])} | {"<|end|>": size - 1}
    used = [(first, second) for first, second in islice(merges, size) if first + second in words]
    tokenizer = Tokenizer(models.BPE(words, used))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = Path(tempfile.mkdtemp(prefix="words-"))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"})
    )
    return load(folder)


class Numbers:
    """A tokenizer whose texts are token ids: both arms then answer the very same prompt."""

    def __init__(self, tokenizer: Any) -> None:
        self._real = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def encode(self, text: str, **_: Any) -> list[int]:
        """Read the ids."""
        return [int(word) for word in text.split()]


class Arms:
    """The same work done by the session and by mlx-lm."""

    def __init__(self, size: str) -> None:
        self.model = random_model(size)
        self.vocabulary = SIZES[size]["vocab_size"]
        self.tokenizer = byte_tokenizer(self.vocabulary)

    def tokens(self, count: int, seed: int) -> list[int]:
        """Return *count* tokens at random."""
        chance = random.Random(seed)
        return [chance.randrange(self.vocabulary - 1) for _ in range(count)]

    def text(self, tokens: Iterable[int]) -> str:
        """Return what `Numbers` reads as *tokens*."""
        return " ".join(map(str, tokens))

    def session(self, **kwargs: Any) -> LmSession:
        """Return a session on the model."""
        limits = Limits(context=131072, vocabulary=self.vocabulary)
        return LmSession(self.model, Numbers(self.tokenizer), limits=limits, batch=64, **kwargs)

    def ours(self, work: list[dict[str, Any]], **kwargs: Any) -> int:
        """Answer *work* with a session; return the number of tokens drawn."""
        session = self.session(**kwargs)
        for number, one in enumerate(work):
            request = {"prompt": self.text(one["tokens"]), "raw": True, **{k: one[k] for k in one if k != "tokens"}}
            session.submit(str(number), request)
        count = 0
        while session.busy:
            for _, kind, data in session.step():
                count += data["completion_tokens"] if kind == "done" else 0
                if kind == "error":
                    raise RuntimeError(data)
        session.close()
        return count

    def theirs(self, work: list[dict[str, Any]]) -> int:
        """Answer *work* with BatchGenerator, with streamed text as the session makes it."""
        from mlx_lm.generate import BatchGenerator
        from mlx_lm.sample_utils import make_sampler

        generator = BatchGenerator(self.model, stop_tokens=[[self.vocabulary - 1]], completion_batch_size=64)
        pieces = {}
        uids = generator.insert(
            [one["tokens"] for one in work],
            max_tokens=[one["max_tokens"] for one in work],
            samplers=[
                make_sampler(temp=one.get("temperature", 0.0), top_p=one.get("top_p", 0.0), top_k=one.get("top_k", 0))
                for one in work
            ]
            if any("temperature" in one for one in work)
            else None,
        )
        for uid in uids:
            pieces[uid] = self.tokenizer.detokenizer
        count, left = 0, len(work)
        while left:
            _, drawn = generator.next()
            for one in drawn:
                pieces[one.uid].add_token(one.token)
                _ = pieces[one.uid].last_segment
                count += one.finish_reason != "stop"
                left -= one.finish_reason is not None
        generator.close()
        return count

    def alone(self, work: list[dict[str, Any]]) -> int:
        """Answer *work* one by one with stream_generate."""
        from mlx_lm import stream_generate

        count = 0
        for one in work:
            for got in stream_generate(self.model, self.tokenizer, one["tokens"], max_tokens=one["max_tokens"]):
                count += got.finish_reason != "stop"
        return count


def rate(work: Callable[[], int]) -> float:
    """Return tokens a second."""
    mx.clear_cache()
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def paired(what: str, ours: Callable[[], int], theirs: Callable[[], int], rounds: int) -> dict[str, Any]:
    """Measure both in turn and return medians, spread and the ratio of each round."""
    mine, yours = [], []
    for number in range(rounds + 1):
        order = [(mine, ours), (yours, theirs)]
        for kept, work in order if number % 2 else order[::-1]:
            kept.append(rate(work))
    ratios = sorted(a / b for a, b in zip(mine[1:], yours[1:], strict=True))
    found = {
        "what": what,
        "ours": statistics.median(mine[1:]),
        "theirs": statistics.median(yours[1:]),
        "ratio": statistics.median(ratios),
        "least": ratios[0],
        "most": ratios[-1],
        "rounds": rounds,
    }
    print(
        f"{what:<58} {found['ours']:9.1f} {found['theirs']:9.1f} tok/s  {found['ratio']:5.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )
    return found


def gaps(arms: Arms, prompt: int, others: int, most: int) -> dict[str, Any]:
    """Return how long the gaps between the tokens of *others* are while a prompt of so many tokens comes in."""
    session = arms.session()
    for number in range(others):
        session.submit(
            f"o{number}",
            {"prompt": arms.text(arms.tokens(64, number)), "raw": True, "max_tokens": most, "lane": "normal"},
        )
    before, during, seen = [], [], {}
    while len(before) < 40 * others:
        now = time.perf_counter()
        for name, kind, _ in session.step():
            if kind == "token":
                now = time.perf_counter()
                if name in seen:
                    before.append(now - seen[name])
                seen[name] = now
    session.submit(
        "long", {"prompt": arms.text(arms.tokens(prompt, 999)), "raw": True, "max_tokens": 2, "lane": "normal"}
    )
    came = False
    while not came:
        for name, kind, _ in session.step():
            now = time.perf_counter()
            came |= name == "long" and kind == "token"
            if kind == "token" and name in seen:
                during.append(now - seen[name])
                seen[name] = now
    session.close()
    before, during = sorted(before), sorted(during)
    found = {
        "what": f"gaps of {others} others during a prompt of {prompt} tokens",
        "usual_median_s": statistics.median(before),
        "during_median_s": statistics.median(during),
        "during_most_s": during[-1],
        "most_by_median_during": during[-1] / statistics.median(during),
        "most_by_usual_median": during[-1] / statistics.median(before),
    }
    print({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}, flush=True)
    return found


def newcomer(arms: Arms, batch: int, arrivals: int) -> dict[str, Any]:
    """Return the time to the first token of interactive newcomers while a full batch lane is being decoded."""
    session = arms.session()
    for number in range(batch):
        session.submit(
            f"b{number}",
            {"prompt": arms.text(arms.tokens(128, number)), "raw": True, "max_tokens": 4000, "lane": "batch"},
        )
    for _ in range(30):
        list(session.step())
    times = []
    for number in range(arrivals):
        began = time.perf_counter()
        session.submit(
            f"p{number}",
            {"prompt": arms.text(arms.tokens(64, 5000 + number)), "raw": True, "max_tokens": 4, "lane": "interactive"},
        )
        first = None
        left = True
        while left:
            for name, kind, _ in session.step():
                if name == f"p{number}":
                    first = first or (kind == "token" and time.perf_counter() - began) or None
                    left &= kind != "done"
        times.append(first or 0.0)
        for _ in range(3):
            list(session.step())
    session.close()
    times.sort()
    found = {
        "what": f"first token of an interactive newcomer beside {batch} batch rows",
        "median_s": statistics.median(times),
        "p99_s": times[min(len(times) - 1, int(0.99 * len(times)))],
        "arrivals": arrivals,
    }
    print({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}, flush=True)
    return found


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=0, help="tokens of an answer (64, or 256 for 8b)")
    parser.add_argument("--shared", type=int, default=2000, help="tokens that prompts share in the prefix row")
    parser.add_argument("--cache", type=float, default=0, help="GB of freed buffers that MLX may keep (mlxd's default)")
    parser.add_argument("--only", default="", help="only pairs whose name contains this")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    asked = parser.parse_args()
    mlx_process.prepare(cache=int(asked.cache * 1e9) or None)
    arms = Arms(asked.size)
    most = asked.tokens or (256 if asked.size == "8b" else 64)
    print(f"{asked.size} on {mx.default_device()}, mlx {version('mlx')}, mlx-lm {version('mlx-lm')}", flush=True)

    def work(rows: int, *, ragged: bool = False, sampled: bool = False, seed: int = 0) -> list[dict[str, Any]]:
        chance = random.Random(seed)
        made = []
        for number in range(rows):
            length = int(min(1000, max(8, chance.lognormvariate(4.5, 0.8)))) if ragged else 128
            limit = int(min(most * 2, max(4, chance.lognormvariate(4.0, 0.7)))) if ragged else most
            one = {"tokens": arms.tokens(length, number), "max_tokens": limit}
            if sampled:
                one |= {"temperature": chance.choice([0.5, 0.7, 0.9, 1.1]), "top_p": chance.choice([0.8, 0.9, 0.95])}
            made.append(one | {"lane": "batch"})
        return made

    rows: list[dict[str, Any]] = []

    def pair(what: str, ours: Callable[[], int], theirs: Callable[[], int], rounds: int = asked.rounds) -> None:
        if asked.only in what:
            rows.append(paired(what, ours, theirs, rounds))

    one = [each | {"lane": "interactive"} for each in work(1)]
    pair("nothing: ours / ours, one stream", lambda: arms.ours(one), lambda: arms.ours(one))
    pair("one stream / stream_generate", lambda: arms.ours(one), lambda: arms.alone(one))
    for count in (8, 64):
        even = work(count)
        pair(
            f"batch of {count} / BatchGenerator",
            lambda even=even: arms.ours(even),
            lambda even=even: arms.theirs(even),
        )
    ragged = work(96, ragged=True)
    pair("ragged, 96 requests / BatchGenerator", lambda: arms.ours(ragged), lambda: arms.theirs(ragged))
    drawn = work(96, ragged=True, sampled=True)
    pair("ragged, sampled each its own way / BatchGenerator", lambda: arms.ours(drawn), lambda: arms.theirs(drawn))
    beginning = arms.tokens(asked.shared, 4242)
    shared = [
        {"tokens": beginning + arms.tokens(20, number), "max_tokens": 32, "lane": "batch"} for number in range(100)
    ]
    pair(
        f"100 prompts sharing {asked.shared} tokens / not shared",
        lambda: arms.ours(shared),
        lambda: arms.ours(shared, prefix_bytes=0),
        max(1, asked.rounds // 3),
    )
    found = {
        "size": asked.size,
        "device": str(mx.default_device()),
        "machine": platform.processor() or platform.machine(),
        "mlx": version("mlx"),
        "mlx_lm": version("mlx-lm"),
        "pairs": rows,
        "gaps": gaps(arms, 8000 if asked.size == "8b" else 2000, 8, 4000),
        "newcomer": newcomer(arms, 64, 100 if asked.size == "8b" else 20),
    }
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
