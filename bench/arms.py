"""The same work done by mlxd's session and by mlx-lm's library, on one model in one process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mlx.core as mx
from machine import path_to_ours
from weights import CONTEXT, SIZES, byte_tokenizer, random_model, settings

path_to_ours()

from plugins.estimate import kv_bytes_per_token  # noqa: E402 - the checkout has to be found first
from plugins.lm_request import Limits  # noqa: E402
from plugins.lm_session import LmSession  # noqa: E402

#: A request: ``tokens``, ``max_tokens``, and what a session takes besides.
Work = Sequence[dict[str, Any]]
#: Answers that are worked on at the same time, here and there.
ROWS = 64


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
    """Both of them."""

    def __init__(self, size: str) -> None:
        self.model = random_model(size)
        self.vocabulary = SIZES[size]["vocab_size"]
        self.tokenizer = byte_tokenizer(self.vocabulary)
        element = {"float32": 4}.get(SIZES[size]["dtype"], 2)
        #: Of the caches: what a session weighs decoding rows apart by.
        self.token_bytes = kv_bytes_per_token(settings(size), element)

    def tokens(self, count: int, seed: int) -> list[int]:
        """Return *count* tokens at random, without the one that ends a text."""
        chance = random.Random(seed)
        return [chance.randrange(self.vocabulary - 1) for _ in range(count)]

    def request(self, tokens: Iterable[int], **more: Any) -> dict[str, Any]:
        """Return what a session takes for a prompt of *tokens*."""
        return {"prompt": " ".join(map(str, tokens)), "raw": True, **more}

    def session(self, **kwargs: Any) -> LmSession:
        """Return a session on the model."""
        limits = Limits(context=CONTEXT, vocabulary=self.vocabulary)
        kwargs = {"limits": limits, "batch": ROWS, "token_bytes": self.token_bytes, **kwargs}
        return LmSession(self.model, Numbers(self.tokenizer), **kwargs)

    def answers(self, work: Work, **kwargs: Any) -> list[dict[str, Any]]:
        """Answer *work* with a session; return its results, in the order of *work*."""
        session = self.session(**kwargs)
        for number, one in enumerate(work):
            more = {key: value for key, value in one.items() if key != "tokens"}
            session.submit(str(number), self.request(one["tokens"], **more))
        found: dict[str, dict[str, Any]] = {}
        while session.busy:
            for name, kind, data in session.step():
                if kind == "error":
                    raise SystemExit(f"The session failed: {data}")
                if kind == "done":
                    found[name] = dict(data)
        session.close()
        return [found[str(number)] for number in range(len(work))]

    def ours(self, work: Work, **kwargs: Any) -> int:
        """Answer *work* with a session; return the number of tokens drawn."""
        return sum(int(one["completion_tokens"]) for one in self.answers(work, **kwargs))

    def theirs(self, work: Work) -> int:
        """Answer *work* with BatchGenerator, with streamed text as the session makes it."""
        from mlx_lm.generate import BatchGenerator
        from mlx_lm.sample_utils import make_sampler

        generator = BatchGenerator(self.model, stop_tokens=[[self.vocabulary - 1]], completion_batch_size=ROWS)
        samplers = [
            make_sampler(temp=one.get("temperature", 0.0), top_p=one.get("top_p", 0.0), top_k=one.get("top_k", 0))
            for one in work
        ]
        uids = generator.insert(
            [one["tokens"] for one in work],
            max_tokens=[one["max_tokens"] for one in work],
            samplers=samplers if any("temperature" in one for one in work) else None,
        )
        pieces = {uid: self.tokenizer.detokenizer for uid in uids}  # noqa: C420 - each access makes another
        count, left = 0, len(work)
        while left:
            for one in generator.next()[1]:
                pieces[one.uid].add_token(one.token)
                _ = pieces[one.uid].last_segment
                count += one.finish_reason != "stop"
                left -= one.finish_reason is not None
        generator.close()
        return count

    def alone(self, work: Work) -> list[str]:
        """Answer *work* one by one with stream_generate."""
        from mlx_lm import stream_generate

        return [
            "".join(
                got.text
                for got in stream_generate(self.model, self.tokenizer, one["tokens"], max_tokens=one["max_tokens"])
            )
            for one in work
        ]

    def streamed(self, work: Work) -> int:
        """Do what `alone` does; return the number of tokens: no answer ends before its last one."""
        self.alone(work)
        return sum(int(one["max_tokens"]) for one in work)


def rate(work: Callable[[], int]) -> float:
    """Return tokens a second."""
    mx.clear_cache()
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)
