"""`python bench/whisper.py`: transcription through the engine and the daemon against mlx_whisper's own `transcribe`.

The model has random weights (``--size``: turbo is large-v3-turbo's shape) and says the same sentence of each window
(see `whisper_model`), in float16 on a GPU and float32 on a CPU, on both sides. ``transcribe`` gets the samples, so that
no ffmpeg program is timed; the engine decodes the same samples from a WAV file. Both are measured in turn (ours,
theirs, theirs, ours, ...) and the first round does not count.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from contest import duel, timed
from machine import environment_of_models, interpreter, preload
from results import Results, arguments
from whisper_model import SIZES, save_whisper

#: Seconds of a file of one window.
SHORT_S = 29.5
#: Seconds that one job may take.
_PATIENCE_S = 600.0
#: How a person without ffmpeg would call mlx_whisper for one file; the command itself needs that program.
_WITHOUT_FFMPEG = """
import sys, wave
import numpy as np
from mlx_whisper import transcribe
with wave.open(sys.argv[1], "rb") as file:
    samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
half = sys.argv[3] == "True"
print(transcribe(samples, path_or_hf_repo=sys.argv[2], fp16=half, language="en", temperature=0.0)["text"].strip())
"""


class Arms:
    """The same recordings through our session and through mlx_whisper, in one process, on one model in memory."""

    def __init__(self, folder: Path, *, batch: int) -> None:
        from plugins.whisper import WhisperRuntime

        self.half = _on_gpu()
        options = {"dtype": "float16" if self.half else "float32", **({"batch": batch} if batch else {})}
        self.session: Any = WhisperRuntime().load(folder, options)
        self._module = importlib.import_module("mlx_whisper.transcribe")
        holder = self._module.ModelHolder
        holder.model, holder.model_path = self.session._model, "here"  # noqa: SLF001 - both sides have the same weights

    def ours(self, files: Sequence[Path], *, previous: bool = False) -> list[str]:
        """Transcribe all *files* at once."""
        for number, file in enumerate(files):
            request = {"file": str(file), "language": "en", "condition_on_previous_text": previous, "lane": "normal"}
            self.session.submit(str(number), request)
        texts: dict[str, str] = {}
        while self.session.busy:
            for name, kind, data in self.session.step():
                if kind == "error":
                    raise SystemExit(data["message"])
                if kind == "done":
                    texts[name] = data["text"]
        return [texts[str(number)] for number in range(len(files))]

    def theirs(self, files: Sequence[Path]) -> list[str]:
        """Transcribe *files* one after another."""
        return [
            self._module.transcribe(
                samples_of(file),
                path_or_hf_repo="here",
                fp16=self.half,
                language="en",
                condition_on_previous_text=False,
            )["text"].strip()
            for file in files
        ]


class Transcription:
    """The rows."""

    def __init__(self, options: argparse.Namespace, results: Results, folder: Path) -> None:
        self._options = options
        self._results = results
        self._folder = folder
        self._model = save_whisper(folder / "model", options.size, words=options.words)
        self._arms = Arms(self._model, batch=options.batch)
        self._short = [record(folder / f"{number}.wav", SHORT_S, number) for number in range(options.windows)]

    def run(self) -> None:
        """Measure what is wanted, behind a gate."""
        arms, few = self._arms, self._options.few or max(1, min(self._options.rounds, 3))
        self._gate()
        one, many = self._short[:1], self._short
        self._pair("file", partial(arms.ours, one), partial(arms.theirs, one), SHORT_S, self._options.rounds)
        seconds, note = SHORT_S * len(many), f"{len(many)} files of {SHORT_S:g} s"
        self._pair("windows", partial(arms.ours, many), partial(arms.theirs, many), seconds, few, note=note)
        if self._results.wants("transcription.long"):
            long = [record(self._folder / "long.wav", self._options.long, 99)]
            note = f"{self._options.long:.0f} s with pauses"
            self._pair("long", partial(arms.ours, long), partial(arms.theirs, long), self._options.long, few, note=note)
        if self._results.wants("transcription.daemon"):
            self._daemon(self._options.rounds)
        if self._results.wants("transcription.loop"):
            self._loop(few)

    def _gate(self) -> None:
        """Compare the texts: of one file, and of several at once."""
        some = self._short[:3]
        theirs = self._arms.theirs(some)
        right = sum(len(text.split()) > 1 for text in theirs)
        same = sum(one == other for one, other in zip(self._arms.ours(some), theirs, strict=True))
        self._results.gate(
            "files at once / mlx_whisper.transcribe one by one",
            passed=same == right == len(some),
            detail=f"{same} of {len(some)} texts the same, {right} with words in them",
        )

    def _pair(  # noqa: PLR0917, RUF100 - what is compared, how much sound it is, how often
        self,
        name: str,
        ours: Callable[[], object],
        theirs: Callable[[], object],
        seconds: float,
        rounds: int,
        *,
        note: str = "",
    ) -> None:
        if self._results.wants(f"transcription.{name}"):
            pace = partial(_pace, seconds=seconds)
            result = duel(partial(pace, ours), partial(pace, theirs), rounds=rounds, warm=self._options.warm)
            self._results.duel(f"transcription.{name}", result, unit="x", note=note)

    def _daemon(self, rounds: int) -> None:
        """One file as a job, from its submission over the socket to the news of its end, and the library here."""
        from house import running

        from daemon.cli.client import Client
        from jobs.model import NewJob

        file = self._short[0]
        (expected,) = self._arms.theirs([file])
        with running(f'[models]\nrandom = "{self._model}"', blas=self._options.blas) as house:
            client = Client(house.socket)
            client.load("random", runtime="whisper")
            # Never the recorded result of the same work.
            params = {"file": str(file), "model": "random", "language": "en"}
            new = NewJob(task="transcribe", params=params, reuse=False)

            def ours() -> None:
                job = client.wait(client.submit_job(new)[0].id, timeout=_PATIENCE_S)
                if (job.result or {}).get("text", "").strip() != expected:
                    raise SystemExit(f"The job is {job.state} and says something else: {job.error or job.result}")

            pace = partial(_pace, seconds=SHORT_S)
            theirs = partial(self._arms.theirs, [file])
            result = duel(partial(pace, ours), partial(pace, theirs), rounds=rounds, warm=self._options.warm)
        self._results.duel("transcription.daemon", result, unit="x", note=f"{SHORT_S:g} s, with its result on disk")

    def _loop(self, rounds: int) -> None:
        """Files through a warm daemon, and mlx_whisper started for each."""
        from house import command, running

        files, blas = self._short[: self._options.loop], self._options.blas
        half = str(self._arms.half)
        environ = environment_of_models(blas)
        with running(f'[models]\nrandom = "{self._model}"', blas=blas) as house:
            ask = [*command(), "submit", "transcribe", "--model", "random", "--language", "en", "--wait"]

            def ours() -> float:
                return sum(timed([*ask, str(file)], environ=house.environ) for file in files)

            def theirs() -> float:
                each = [interpreter(), "-c", _WITHOUT_FFMPEG]
                return sum(timed([*each, str(file), str(self._model), half], environ=environ) for file in files)

            seconds = SHORT_S * len(files)
            result = duel(lambda: seconds / ours(), lambda: seconds / theirs(), rounds=rounds, warm=self._options.warm)
        self._results.duel("transcription.loop", result, unit="x", note=f"{len(files)} files of {SHORT_S:g} s")


def record(path: Path, seconds: float, seed: int) -> Path:
    """Write a WAV file of noise in words, with a pause of 0.6 s about every ten seconds; return it."""
    import numpy as np

    chance = np.random.default_rng(seed)
    count = int(seconds * 16_000)
    sound = chance.normal(size=count) * 3000
    for start in range(9, int(seconds), 10):
        sound[start * 16_000 : start * 16_000 + 9600] *= 0.001
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(np.clip(sound, -32768, 32767).astype(np.int16).tobytes())
    return path


def samples_of(path: Path) -> Any:
    """Return the samples of a WAV file as `transcribe` takes them."""
    import numpy as np

    with wave.open(str(path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def _pace(work: Callable[[], object], *, seconds: float) -> float:
    """Return how many times faster than the sound *work* is."""
    began = time.perf_counter()
    work()
    return seconds / (time.perf_counter() - began)


def _on_gpu() -> bool:
    import mlx.core as mx

    return bool(mx.default_device() == mx.Device(mx.gpu))


def main() -> int:
    """Measure, print, keep."""
    options = _options()
    preload(options.blas)
    from machine import path_to_ours

    path_to_ours()
    from plugins import mlx_process

    mlx_process.prepare(cache=int(options.cache * 1e9) or None)
    facts = {name: getattr(options, name) for name in ("size", "words", "windows", "long", "batch", "cache")}
    results = Results("transcription", options, **facts)
    folder = Path(tempfile.mkdtemp(prefix="mlxd-bench-whisper-"))
    try:
        Transcription(options, results, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results.save()
    return 0


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--few", type=int, default=0, help="rounds of what takes long (default: at most 3)")
    parser.add_argument("--words", type=int, default=80, help="tokens that each window says")
    parser.add_argument("--windows", type=int, default=16, help="files of one window each that come at once")
    parser.add_argument("--long", type=float, default=480, help="seconds of the long file")
    parser.add_argument("--loop", type=int, default=4, help="files that go through the daemon, and through a loop")
    parser.add_argument("--batch", type=int, default=0, help="windows decoded together at most (default: mlxd's)")
    parser.add_argument("--cache", type=float, default=0, help="GB of freed buffers that MLX may keep (mlxd's default)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
