"""`python bench/ordering.py`: in which order a batch of mixed prompts is answered soonest, in one process.

There are more requests than places in the batch. They come all at once, sorted in three ways; the engine, which by
itself takes the shortest prompts first, is made to take them as they come. What is measured: until the last is done,
and how long a request waits for its end on average. The orders take turns (one way, then back), and the first round
does not count. Answers do not depend on the order: that is checked first.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any, Final

from machine import path_to_ours, preload

path_to_ours()

#: How requests are sorted; the first is what the others are compared with.
ORDERS: Final = {
    "as they came": lambda one: 0,  # noqa: ARG005 - sorting keeps the order of equals
    "shortest first": lambda one: len(one["tokens"]),
    "longest first": lambda one: -len(one["tokens"]),
}


class Ordering:
    """One model, one work."""

    def __init__(self, options: argparse.Namespace) -> None:
        from arms import CONTEXT, Arms, Limits, LmSession, Numbers

        arms = Arms(options.size)
        self._session = lambda: LmSession(
            arms.model,
            Numbers(arms.tokenizer),
            limits=Limits(context=CONTEXT, vocabulary=arms.vocabulary),
            batch=options.rows,
            token_bytes=arms.token_bytes,
            clock=self._clock,
        )
        self._clock = time.process_time if options.cpu_time else time.perf_counter
        self._arms = arms
        chance = random.Random(options.seed)
        self._work = [
            {
                "tokens": arms.tokens(int(min(options.longest, max(8, chance.lognormvariate(4.5, 1.0)))), number),
                "max_tokens": int(min(4 * options.tokens, max(4, chance.lognormvariate(0, 0.7) * options.tokens))),
                "number": number,
            }
            for number in range(options.requests)
        ]

    def answer(self, order: str, texts: dict[int, str] | None = None) -> tuple[float, float]:
        """Return the seconds until the last end, and until an end on average."""
        session, ends = self._session(), []
        session._lines._order = lambda _: 0  # noqa: SLF001 - the order is what is measured
        began = self._clock()
        for one in sorted(self._work, key=ORDERS[order]):
            more: dict[str, Any] = {"max_tokens": one["max_tokens"], "lane": "batch"}
            session.submit(str(one["number"]), self._arms.request(one["tokens"], **more))
        while session.busy:
            for name, kind, data in session.step():
                if kind == "done":
                    ends.append(self._clock() - began)
                    if texts is not None:
                        texts[int(name)] = str(data["text"])
        session.close()
        return max(ends), statistics.mean(ends)

    def compare(self, rounds: int) -> None:
        """Print a table."""
        texts: dict[str, dict[int, str]] = {order: {} for order in ORDERS}
        for order in ORDERS:
            self.answer(order, texts[order])
        first, *others = texts.values()
        print(f"the same answers in every order: {all(other == first for other in others)}", flush=True)
        found: dict[str, list[tuple[float, float]]] = {order: [] for order in ORDERS}
        for number in range(rounds):
            for order in ORDERS if number % 2 == 0 else reversed(ORDERS):
                found[order].append(self.answer(order))
        base = found["as they came"]
        print(f"{'':16} {'all done, s':>12} {'ratio':>20} {'mean wait, s':>13} {'ratio':>20}")
        for order, times in found.items():
            cells = []
            for at in (0, 1):
                ratios = sorted(one[at] / other[at] for one, other in zip(times, base, strict=True))
                spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                cells.append(f"{statistics.median(one[at] for one in times):12.2f} {spread:>20}")
            print(f"{order:16} {' '.join(cells)}", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="small", help="the model's size, as in bench/weights.py")
    parser.add_argument("--requests", type=int, default=64, help="how many there are (64)")
    parser.add_argument("--rows", type=int, default=8, help="places in the batch (8)")
    parser.add_argument("--tokens", type=int, default=24, help="an answer's median tokens (24)")
    parser.add_argument("--longest", type=int, default=1000, help="the longest prompt's tokens (1000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--seed", type=int, default=1, help="of the lengths (1)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the processor's time: for a CPU that others use, too"
    )
    parser.add_argument("--blas", help="a BLAS to preload, for the CPU")
    options = parser.parse_args()
    preload(options.blas)
    Ordering(options).compare(options.rounds)


if __name__ == "__main__":
    main()
