"""`python bench/engine.py`: the language-model engine against what mlx-lm offers for the same work, in one process.

The model has random weights (``--size``: small runs anywhere, 8b is Llama-3's shape in bfloat16), so nothing has to be
downloaded; a sampled text of it means nothing, its speed does. Both arms are measured in turn (ours, theirs, theirs,
ours, ...) and the first round does not count.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from contest import Spread, duel, percentile
from machine import preload
from results import Results, arguments
from weights import SIZES

#: What is different for each size: tokens of an answer, newcomers.
DEFAULTS = {"tiny": (8, 4), "small": (64, 20), "8b": (256, 100)}
#: Rows of a batch that is interrupted, the questions that interrupt it, tokens of each one's answer.
INTERRUPTED, QUESTIONS, SHORT = 16, 6, 16
#: Others that decode while a long prompt comes in.
OTHERS = 8


class Engine:
    """The rows."""

    def __init__(self, options: argparse.Namespace, results: Results) -> None:
        from arms import Arms

        self._options = options
        self._results = results
        self._arms = Arms(options.size)
        self._most = options.tokens
        #: Rounds of what takes long.
        self._few = options.few or max(1, min(options.rounds, 3))

    def run(self) -> None:
        """Measure what is wanted, behind a gate."""
        self._gate()
        arms, rounds = self._arms, self._options.rounds
        one = [each | {"lane": "interactive"} for each in self._work(1)]
        self._pair("null", partial(arms.ours, one), partial(arms.ours, one), rounds)
        self._pair("stream", partial(arms.ours, one), partial(arms.streamed, one), rounds)
        for count in (8, 16, 32, 64):
            even = self._work(count)
            few = rounds if count == 8 else self._few  # noqa: PLR2004, RUF100
            self._pair(f"batch{count}", partial(arms.ours, even), partial(arms.theirs, even), few)
        ragged = self._work(self._options.ragged, ragged=True)
        self._pair("ragged", partial(arms.ours, ragged), partial(arms.theirs, ragged), self._few)
        drawn = self._work(self._options.ragged, ragged=True, sampled=True)
        self._pair("sampled", partial(arms.ours, drawn), partial(arms.theirs, drawn), self._few)
        self._shared()
        self._pause()
        self._gaps()
        self._newcomer()

    def _work(self, rows: int, *, ragged: bool = False, sampled: bool = False, seed: int = 0) -> list[dict[str, Any]]:
        """Return requests of the batch lane: equally long, or as uneven as people's are (log-normal)."""
        chance = random.Random(seed)
        made = []
        for number in range(rows):
            length = int(min(1000, max(8, chance.lognormvariate(4.5, 0.8)))) if ragged else 128
            limit = int(min(self._most * 2, max(4, chance.lognormvariate(4.0, 0.7)))) if ragged else self._most
            one = {"tokens": self._arms.tokens(length, number), "max_tokens": limit, "lane": "batch"}
            if sampled:
                one |= {"temperature": chance.choice([0.5, 0.7, 0.9, 1.1]), "top_p": chance.choice([0.8, 0.9, 0.95])}
            made.append(one)
        return made

    def _pair(
        self,
        name: str,
        ours: Callable[[], int],
        theirs: Callable[[], int],
        rounds: int,
        *,
        note: str = "",
        warm: int | None = None,
    ) -> None:
        from arms import rate

        if self._results.wants(f"engine.{name}"):
            warm = self._options.warm if warm is None else warm
            result = duel(partial(rate, ours), partial(rate, theirs), rounds=rounds, warm=warm)
            self._results.duel(f"engine.{name}", result, note=note)

    def _gate(self) -> None:
        """Compare a ragged batch with mlx-lm one by one. In bfloat16 a row's sums depend on the other rows'."""
        work = [one | {"max_tokens": min(32, self._most)} for one in self._work(12, ragged=True, seed=5)]
        ours = self._arms.answers(work)
        short = sum(one["completion_tokens"] != asked["max_tokens"] for one, asked in zip(ours, work, strict=True))
        theirs = self._arms.alone(work)
        same = sum(one["text"] == text for one, text in zip(ours, theirs, strict=True))
        exact = SIZES[self._options.size]["dtype"] == "float32" and self._results.device == "cpu"
        self._results.gate(
            "a ragged batch / stream_generate one by one, greedy",
            passed=not short and (same == len(work) or not exact),
            detail=f"{same} of {len(work)} answers the same, {short} too short",
        )

    def _shared(self) -> None:
        common = self._options.shared
        beginning = self._arms.tokens(common, 4242)
        work = [
            {"tokens": beginning + self._arms.tokens(20, number), "max_tokens": 32, "lane": "batch"}
            for number in range(self._options.sharing)
        ]
        apart = partial(self._arms.ours, work, prefix_bytes=0)
        note = f"{len(work)} prompts, {common} tokens in common"
        warm = 0 if self._results.device == "cpu" else None  # a minute and more, and no kernels to be built
        self._pair("shared", partial(self._arms.ours, work), apart, max(1, self._few - 1), note=note, warm=warm)

    def _pause(self) -> None:
        """Interrupt a batch by questions of the interactive lane; the other way is to do both after one another."""
        batch = self._work(INTERRUPTED, seed=7)
        asked = [
            {"tokens": self._arms.tokens(64, 700 + number), "max_tokens": SHORT, "lane": "interactive"}
            for number in range(QUESTIONS)
        ]

        def apart() -> int:
            return self._arms.ours(batch) + sum(self._arms.ours([one]) for one in asked)

        note = f"{INTERRUPTED} rows paused and resumed {QUESTIONS} times"
        self._pair("pause", lambda: self._interrupted(batch, asked), apart, self._options.rounds, note=note)

    def _interrupted(self, batch: list[dict[str, Any]], asked: list[dict[str, Any]]) -> int:
        session = self._arms.session()
        for number, one in enumerate(batch):
            session.submit(f"b{number}", self._arms.request(one["tokens"], max_tokens=one["max_tokens"], lane="batch"))
        each, count, left, steps = max(2, self._most // (QUESTIONS + 1)), 0, list(enumerate(asked)), 0
        while session.busy or left:
            steps += 1
            if left and (steps % each == 0 or not session.busy):
                number, one = left.pop()
                more = {"max_tokens": one["max_tokens"], "lane": "interactive"}
                session.submit(f"q{number}", self._arms.request(one["tokens"], **more))
            for _, kind, data in session.step():
                count += data["completion_tokens"] if kind == "done" else 0
        session.close()
        return count

    def _gaps(self) -> None:
        """Measure the gaps between the tokens of others while a long prompt comes in; the first time does not count.

        One session for all of them, as a resident model has one for its life: a new one for each would know nothing of
        what pieces cost, while kernels that earlier ones had built are there.
        """
        if not self._results.wants("engine.gap"):
            return
        warm, session = self._options.warm, self._arms.session()
        found = [self._gap(session, number) for number in range(warm + self._few)][warm:]
        session.close()
        ratios = Spread.of([one["most"] / one["during"] for one in found])
        usual = Spread.of([one["usual"] for one in found])
        during, most = (Spread.of([one[name] for one in found]) for name in ("during", "most"))
        note = (
            f"{OTHERS} others, a prompt of {self._options.long} tokens; median {usual.median * 1000:.0f} ms before, "
            f"{during.median * 1000:.0f} ms during it, longest {most.median * 1000:.0f} ms"
        )
        self._results.value("engine.gap", ratios, unit="", rounds=len(found), note=note, readings=found)

    def _gap(self, session: Any, number: int) -> dict[str, float]:
        others = [f"o{other}" for other in range(OTHERS)]
        for other, name in enumerate(others):
            tokens = self._arms.tokens(64, 100 * number + other)
            session.submit(name, self._arms.request(tokens, max_tokens=4000, lane="normal"))
        before, during, seen = [], [], {}
        came = asked = False
        while not came:
            if not asked and len(before) >= 40 * OTHERS:
                tokens = self._arms.tokens(self._options.long, 9000 + number)
                session.submit("long", self._arms.request(tokens, max_tokens=2, lane="normal"))
                asked = True
            for name, kind, _ in session.step():
                now = time.perf_counter()
                came |= name == "long" and kind == "token"
                if kind == "token" and name in seen:
                    (during if asked else before).append(now - seen[name])
                if kind == "token":
                    seen[name] = now
        for name in [*others, "long"]:
            session.cancel(name)
        while session.busy:
            list(session.step())
        return {"usual": statistics.median(before), "during": statistics.median(during), "most": max(during)}

    def _newcomer(self) -> None:
        """Measure the first token of interactive newcomers while a full batch lane is being decoded."""
        if not self._results.wants("engine.newcomer"):
            return
        session = self._arms.session()
        for number in range(64):
            tokens = self._arms.tokens(128, number)
            session.submit(f"b{number}", self._arms.request(tokens, max_tokens=8000, lane="batch"))
        for _ in range(30):
            list(session.step())
        times = [self._arrival(session, number) for number in range(self._options.arrivals)]
        session.close()
        note = f"median {1000 * percentile(times, 0.5):.0f} ms of {len(times)} arrivals"
        self._results.value("engine.newcomer", 1000 * percentile(times, 0.99), unit="ms", note=note, times=times)

    def _arrival(self, session: Any, number: int) -> float:
        began, first, left = time.perf_counter(), 0.0, True
        tokens = self._arms.tokens(64, 5000 + number)
        session.submit(f"p{number}", self._arms.request(tokens, max_tokens=4, lane="interactive"))
        while left:
            for name, kind, _ in session.step():
                if name == f"p{number}":
                    first = first or (time.perf_counter() - began if kind in ("token", "done") else 0.0)
                    left &= kind != "done"
        for _ in range(3):
            list(session.step())
        return first


def main() -> int:
    """Measure, print, keep."""
    options = _options()
    tokens, arrivals = DEFAULTS.get(options.size, DEFAULTS["small"])
    options.tokens, options.arrivals = options.tokens or tokens, options.arrivals or arrivals
    preload(options.blas)
    from machine import path_to_ours

    path_to_ours()
    from plugins import mlx_process

    mlx_process.prepare(cache=int(options.cache * 1e9) or None)
    facts = {
        name: getattr(options, name) for name in ("size", "tokens", "ragged", "shared", "long", "cache", "arrivals")
    }
    results = Results("engine", options, **facts)
    Engine(options, results).run()
    results.save()
    return 0


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--few", type=int, default=0, help="rounds of what takes long (default: at most 3)")
    parser.add_argument("--tokens", type=int, default=0, help="tokens of an answer (default: by size)")
    parser.add_argument("--ragged", type=int, default=96, help="requests of the ragged rows")
    parser.add_argument("--shared", type=int, default=2000, help="tokens that prompts have in common in that row")
    parser.add_argument("--sharing", type=int, default=100, help="prompts of that row")
    parser.add_argument("--long", type=int, default=8000, help="tokens of the long prompt beside others")
    parser.add_argument("--arrivals", type=int, default=0, help="newcomers (default: by size)")
    parser.add_argument("--cache", type=float, default=0, help="GB of freed buffers that MLX may keep (mlxd's default)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
