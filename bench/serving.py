"""`python bench/serving.py`: the same work through a daemon and by what mlx-lm offers, taken in turn.

Ours is a daemon in a folder of its own, asked over its socket, from the submission to the news of the end: the ledger's
commits, the runner's wire and the result files are all in it. Theirs runs in processes of its own with the same model
(random weights, made here), the same prompts and the same numbers of tokens.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from contest import Contest, Spread, duel, paired, percentile, timed
from house import running
from machine import environment_of_models, interpreter
from peers import Library, Server, command_line, first_output
from results import Results, arguments
from through import CROWD, NAME, Daemon
from weights import SIZES, Words

#: Places in the daemon's batch and in mlx_lm.server's.
ROWS = 64
#: What is different for each size: tokens of an answer, of a folder's answer, arrivals in a round.
DEFAULTS = {"tiny": (8, 4, 2), "small": (64, 24, 12), "8b": (256, 64, 40)}


class Serving:
    """The rows."""

    def __init__(self, options: argparse.Namespace, results: Results, model: Path, ours: Daemon) -> None:
        self._options = options
        self._results = results
        self._model = model
        self._ours = ours
        self._words = Words(model)
        self._seeds = itertools.count(1)
        #: Rounds of what takes long.
        self._few = options.few or max(1, min(options.rounds, 3))

    def run(self) -> None:
        """Measure what is wanted."""
        wants = self._results.wants
        if wants("serving.null", "serving.stream", "serving.batch8", "serving.batch64"):
            with Library(self._model, blas=self._options.blas) as library:
                self._gate(library)
                self._streams(library)
                self._batches(library)
        if wants("serving.first", "serving.command"):
            self._first()
        if wants("serving.folder_server", "serving.folder_loop", "serving.newcomer"):
            with Server(self._model, blas=self._options.blas, rows=ROWS + 8) as server:
                self._folder(server)
                self._newcomer(server)

    def _texts(self, count: int, tokens: int) -> list[str]:
        return self._words.prompts(count, tokens, next(self._seeds))

    def _gate(self, library: Library) -> None:
        """Compare a batch through the daemon with mlx-lm one by one. In bfloat16 a row's sums depend on the others'."""
        texts = [text for length in (5, 40, 90, 128) for text in self._texts(2, length)]
        most = min(32, self._options.tokens)
        _, said = self._ours.batch(texts, most, len(texts))
        _, theirs = library.ask("stream", texts, most)
        same = sum(a.strip() == b.strip() for a, b in zip(said, theirs, strict=True))
        exact = SIZES[self._options.size]["dtype"] == "float32" and self._results.device == "cpu"
        self._results.gate(
            "a batch through the daemon / stream_generate one by one, greedy",
            passed=same == len(texts) or not exact,
            detail=f"{same} of {len(texts)} answers of {most} tokens the same, all of full length",
        )

    def _streams(self, library: Library) -> None:
        most, prompt, warm = self._options.tokens, self._options.prompt, self._options.warm

        def ours() -> float:
            return most / self._ours.stream(self._texts(1, prompt)[0], most)[1]

        if self._results.wants("serving.null"):
            self._results.duel("serving.null", duel(ours, ours, rounds=self._options.rounds, warm=warm))
        if self._results.wants("serving.stream"):
            rate = lambda: most / library.ask("stream", self._texts(1, prompt), most)[0]  # noqa: E731
            self._ours.profile()
            result = duel(ours, rate, rounds=self._options.rounds, warm=warm)
            self._results.duel("serving.stream", result, profile=self._ours.profile())

    def _batches(self, library: Library) -> None:
        for rows, rounds in ((8, self._options.rounds), (64, self._few)):
            if self._results.wants(f"serving.batch{rows}"):
                self._ours.profile()
                result = duel(*self._batch_arms(library, rows), rounds=rounds, warm=self._options.warm)
                note = f"{self._options.tokens} tokens each"
                self._results.duel(f"serving.batch{rows}", result, note=note, profile=self._ours.profile())

    def _batch_arms(self, library: Library, rows: int) -> tuple[Callable[[], float], Callable[[], float]]:
        most, prompt = self._options.tokens, self._options.prompt

        def ours() -> float:
            return rows * most / self._ours.batch(self._texts(rows, prompt), most, rows)[0]

        def theirs() -> float:
            return rows * most / library.ask("batch", self._texts(rows, prompt), most, rows)[0]

        return ours, theirs

    def _first(self) -> None:
        """Compare the first text of a warm daemon, asked by a client and by the command, with the cold command."""
        warm, typed, cold = [], [], []
        question = self._options.question
        self._ours.profile()
        for _ in range(self._options.warm + self._few):
            text = self._texts(1, question)[0]
            cold.append(command_line(self._model, text, 4, blas=self._options.blas)[0])
            each = [self._ours.stream(text, 4)[0] for text in self._texts(5, question)]
            warm.append(statistics.median(each))
            typed.append(self._typed(self._texts(1, question)[0]))
        self._results.duel(
            "serving.first",
            self._counted(warm, cold),
            unit="s",
            note=f"a question of {question} tokens",
            profile=self._ours.profile(),
        )
        self._results.duel("serving.command", self._counted(typed, cold), unit="s")

    def _typed(self, text: str) -> float:
        command = [interpreter(), "-I", "-m", "daemon", "submit", "generate", "--model", NAME, "--prompt", text]
        command += ["--max-tokens", "4", "--param", "raw=true", "--follow"]
        return first_output(command, self._ours.house.environ)[0]

    def _folder(self, server: Server) -> None:
        """Answer a folder here and the same prompts there; beside that, a few by the command, one after the other."""
        if not self._results.wants("serving.folder_server", "serving.folder_loop"):
            return
        count, most, rows = self._options.prompts, self._options.answer, self._options.concurrency
        ours: list[float] = []
        theirs: list[float] = []
        loop: list[float] = []
        self._ours.profile()
        for number in range(self._options.warm + self._few):
            texts = self._texts(count, self._options.prompt)
            arms: list[Callable[[], None]] = [
                lambda texts=texts: ours.append(count * most / self._ours.folder(texts, most, rows)),
                lambda texts=texts: theirs.append(count * most / self._served(server, texts, most, rows)),
                lambda texts=texts: loop.append(self._looped(texts, most)),
            ]
            for arm in arms if number % 2 else arms[::-1]:
                arm()
        about = f"{count} prompts of {self._options.prompt} tokens, {most} tokens each, {rows} at once"
        self._results.duel(
            "serving.folder_server",
            self._counted(ours, theirs),
            note=about,
            refused_connections=server.refused,
            connections_that_waited=server.waited,
            profile=self._ours.profile(),
        )
        sample = self._options.sample
        self._results.duel(
            "serving.folder_loop", self._counted(ours, loop), note=f"from {sample} runs of the command a round"
        )

    def _served(self, server: Server, texts: Sequence[str], most: int, rows: int) -> float:
        began = time.perf_counter()
        answers = server.all(texts, most, rows)
        seconds = time.perf_counter() - began
        short = [one["completion_tokens"] for one in answers if one["completion_tokens"] != most]
        if short:
            raise SystemExit(f"mlx_lm.server ended {len(short)} answers early.")
        return seconds

    def _looped(self, texts: Sequence[str], most: int) -> float:
        times = [
            command_line(self._model, text, most, blas=self._options.blas)[1] for text in texts[: self._options.sample]
        ]
        return most / statistics.mean(times)

    def _counted(self, ours: Sequence[float], theirs: Sequence[float]) -> Contest:
        return paired(list(zip(ours, theirs, strict=True))[self._options.warm :])

    def _newcomer(self, server: Server) -> None:
        if not self._results.wants("serving.newcomer"):
            return
        rounds = self._few
        ours: list[list[float]] = []
        theirs: list[list[float]] = []
        for _ in range(rounds):
            with self._ours.crowd(self._options.tokens, self._options.prompt):
                ours.append(self._arrivals(lambda text: self._ours.stream(text, 4)[0]))
            with _crowd_of_clients(server, self._texts(CROWD * 50, self._options.prompt), self._options.tokens):
                theirs.append(self._arrivals(lambda text: server.first(text, 4)))
        late = [(percentile(a, 0.99), percentile(b, 0.99)) for a, b in zip(ours, theirs, strict=True)]
        mine, other = [one for part in ours for one in part], [one for part in theirs for one in part]
        each = paired(late).ratio
        pooled = percentile(mine, 0.99) / percentile(other, 0.99)
        ratio = Spread(pooled, min(pooled, each.low), max(pooled, each.high))
        shown = Contest(_of_p99(mine), _of_p99(other), ratio, rounds, None)
        self._results.duel(
            "serving.newcomer",
            shown,
            unit="s",
            note=f"{len(mine)} arrivals each; the least shown is the median",
            ours_all=mine,
            theirs_all=other,
        )

    def _arrivals(self, ask: Callable[[str], float]) -> list[float]:
        chance = random.Random(next(self._seeds))
        times = []
        for text in self._texts(self._options.arrivals, 64):
            times.append(ask(text))
            time.sleep(chance.uniform(0, self._options.pause))
        return times


def _of_p99(times: Sequence[float]) -> Spread:
    """Return the 99th percentile, with the median as the least and the longest as the most."""
    return Spread(percentile(times, 0.99), statistics.median(times), max(times))


@contextmanager
def _crowd_of_clients(server: Server, texts: Sequence[str], most: int) -> Iterator[None]:
    """Keep `CROWD` clients asking the server until the block ends."""
    over = threading.Event()
    crowd = threading.Thread(target=lambda: server.all(texts, most, CROWD, stop=over.is_set))
    crowd.start()
    try:
        server.first(texts[-1], 1)  # they are all in by then
        yield
    finally:
        over.set()
        crowd.join()


def main() -> int:
    """Measure, print, keep."""
    options = _options()
    tokens, answer, arrivals = DEFAULTS.get(options.size, DEFAULTS["small"])
    options.tokens, options.answer = options.tokens or tokens, options.answer or answer
    options.arrivals = options.arrivals or arrivals
    facts = ("size", "tokens", "prompt", "prompts", "answer", "concurrency", "sample", "arrivals")
    results = Results("serving", options, **{name: getattr(options, name) for name in facts})
    with ExitStack() as stack:
        model = options.model or _made(stack, options.size)
        config = f'[models.{NAME}]\npath = "{model}"\nkeep_alive = -1\noptions = {{ batch = {ROWS} }}\n'
        config += '[memory]\nbudget = "90%"\n'
        house = stack.enter_context(running(config, blas=options.blas))
        ours = Daemon(house, Words(model))
        ours.client.load(NAME, runtime="lm")
        Serving(options, results, model, ours).run()
    results.save()
    return 0


def _made(stack: ExitStack, size: str) -> Path:
    """Make the model in a process of its own, whose memory is free again afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mlxd-bench-model-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    script = Path(__file__).with_name("weights.py")
    timed([interpreter(), str(script), size, str(folder)], environ=environment_of_models(None))
    return folder


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", help="a folder that bench/weights.py made, to save time"
    )
    parser.add_argument("--few", type=int, default=0, help="rounds of what takes long (default: at most 3)")
    parser.add_argument("--tokens", type=int, default=0, help="tokens of an answer (default: by size)")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--question", type=int, default=32, help="tokens of the question to a warm and a cold model")
    parser.add_argument("--prompts", type=int, default=200, help="prompts in the folder")
    parser.add_argument("--answer", type=int, default=0, help="tokens of an answer in the folder (default: by size)")
    parser.add_argument("--concurrency", type=int, default=32, help="of the folder, here and there")
    parser.add_argument("--sample", type=int, default=1, help="runs of the command line in each round")
    parser.add_argument("--arrivals", type=int, default=0, help="newcomers in a round (default: by size)")
    parser.add_argument("--pause", type=float, default=0.3, help="longest pause before the next newcomer, seconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
