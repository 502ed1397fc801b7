"""`make bench`: what a resident model saves, and what the daemon costs.

Compared are things that end in the same result, measured in turn (ours, theirs, ours, theirs, ...); the first round
does not count. Ratios say how many times longer the other way takes. Absolute times belong to the machine they were
taken on.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.resources
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from contest import Spread, contest, timed
from house import MLXD, House, running

from daemon.cli.client import Client

PROMPT = "List the action items: Remind me to call Anna on Monday at 9 am."
RESULTS = Path(__file__).parent / "results"
#: Decodes with PyAV, as mlxd does, and feeds mlx_whisper the samples: for machines without an ffmpeg program.
WHISPER_WITHOUT_FFMPEG = """
import sys
import av, numpy as np
from mlx_whisper import transcribe
parts = []
with av.open(sys.argv[1]) as file:
    to_mono = av.AudioResampler(format="flt", layout="mono", rate=16000)
    for frame in file.decode(audio=0):
        parts += [each.to_ndarray()[0] for each in to_mono.resample(frame)]
    parts += [each.to_ndarray()[0] for each in to_mono.resample(None)]
print(transcribe(np.concatenate(parts), path_or_hf_repo=sys.argv[2], temperature=0.0, fp16=False)["text"].strip())
"""


class Report:
    """Prints rows as they come and keeps them for the file."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def row(self, what: str, figure: str, target: str = "", **facts: Any) -> None:
        """Print one line of the table."""
        print(f"{what:<46} {figure:<44} {target}", flush=True)
        self.rows.append({"what": what, "figure": figure, "target": target, **facts})

    def compare(self, what: str, result: Any, other: str, target: str = "") -> None:
        """Print a contest."""
        ratio = result.ratio
        self.row(what, f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})", target, **asdict(result))
        self.row("  mlxd", result.ours.text())
        self.row(f"  {other}", result.theirs.text())


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (default: 9)")
    parser.add_argument("--idle", type=float, default=30, help="seconds of quiet in which wake-ups are counted")
    parser.add_argument("--jobs", type=int, default=300, help="tiny jobs for the latency")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="measure only these")
    parser.add_argument("--lm", type=Path, metavar="FOLDER", help="a language model of yours instead of demo:lm")
    parser.add_argument("--whisper", type=Path, metavar="FOLDER", help="a Whisper of yours instead of demo:whisper")
    parser.add_argument("--audio", type=Path, help="a recording of yours instead of the sample")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the readings as JSON")
    options = parser.parse_args()
    report = Report()
    _conditions()
    print(f"\n{'what':<46} {'median (smallest to largest)':<44} target")
    for part in options.only:
        PARTS[part](report, options)
    options.results.mkdir(exist_ok=True)
    path = options.results / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(report.rows, indent=1))
    print(f"\nAll readings: {path}")


def _conditions() -> None:
    names = ("mlx", "mlx-lm", "mlx-whisper")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    print(f"load average before: {os.getloadavg()[0]:.2f} (below 0.5 is quiet)")


def _generate(report: Report, options: argparse.Namespace) -> None:
    ref, model = _model("lm", options.lm)
    said: dict[str, list[str]] = {"mlxd": [], "mlx_lm": []}
    with running() as house:
        ours = [MLXD, "submit", "generate", "--model", ref, "--prompt", PROMPT, "--max-tokens", "64", "--wait"]
        theirs = [sys.executable, "-m", "mlx_lm", "generate", "--model", model, "--prompt", PROMPT]
        theirs += ["--max-tokens", "64", "--temp", "0", "--verbose", "False"]
        result = contest(
            lambda: timed(ours, environ=house.environ, keep=said["mlxd"]),
            lambda: timed(theirs, environ=house.environ, keep=said["mlx_lm"]),
            rounds=options.rounds,
        )
    report.compare("generate: python -m mlx_lm / warm mlxd submit", result, "python -m mlx_lm generate")
    report.row("  the same text", _same(said["mlxd"], said["mlx_lm"]))


def _transcribe(report: Report, options: argparse.Namespace) -> None:
    (ref, model), sample = _model("whisper", options.whisper), str(options.audio or _sample())
    said: dict[str, list[str]] = {"mlxd": [], "mlx_whisper": []}
    with running() as house, tempfile.TemporaryDirectory() as folder:
        ours = [MLXD, "submit", "transcribe", sample, "--model", ref, "--wait"]
        if shutil.which("ffmpeg"):
            name = "mlx_whisper (command)"
            theirs = [str(Path(sys.executable).with_name("mlx_whisper")), sample, "--model", model]
            theirs += ["--temperature", "0", "--verbose", "False", "--output-format", "txt", "--output-dir", folder]
            # On a CPU half precision is slow: compare with the faster of what the command can do.
            theirs += [] if sys.platform == "darwin" else ["--fp16", "False"]
        else:
            name = "mlx_whisper, samples fed (no ffmpeg here)"
            theirs = [sys.executable, "-c", WHISPER_WITHOUT_FFMPEG, sample, model]
        result = contest(
            lambda: timed(ours, environ=house.environ, keep=said["mlxd"]),
            lambda: timed(theirs, environ=house.environ, keep=said["mlx_whisper"]),
            rounds=options.rounds,
        )
        written = [path.read_text() for path in Path(folder).glob("*.txt")]
    report.compare("transcribe: mlx_whisper / warm mlxd submit", result, name)
    report.row("  the same text", _same(said["mlxd"], written or said["mlx_whisper"]))


def _submit(report: Report, options: argparse.Namespace) -> None:
    bare = [sys.executable, "-I", "-c", "pass"]
    with running() as house:
        result = contest(
            lambda: timed(bare, environ=house.environ),
            lambda: timed([MLXD, "submit", "noop"], environ=house.environ),
            rounds=options.rounds,
        )
    ratio = result.ratio
    figure = f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"
    report.row("submit, no wait: mlxd / python -I -c pass", figure, "at most 8x", **asdict(result))
    report.row("  mlxd submit noop", result.theirs.text())
    report.row("  python -I -c pass", result.ours.text())


def _start(report: Report, options: argparse.Namespace) -> None:
    house = House()
    try:
        readings = []
        for _ in range(options.rounds + 1):
            readings.append(house.start())
            house.stop()
    finally:
        house.stop()
        shutil.rmtree(house.home, ignore_errors=True)
    spread = Spread.of(readings[1:])
    report.row("start-up: spawn to first good health", spread.text(), "at most 0.7 s", **asdict(spread))


def _idle(report: Report, options: argparse.Namespace) -> None:
    with running() as house:
        Client(house.socket).health()
        time.sleep(5)  # what start-up and the question stirred up settles
        before = _switches(house.pid)
        time.sleep(options.idle)
        after = _switches(house.pid)
        megabytes = psutil.Process(house.pid).memory_info().rss / 2**20
    report.row("idle: resident memory, no model", f"{megabytes:.1f} MB", "at most 80 MB", megabytes=megabytes)
    if before is None or after is None:
        report.row("idle: wake-ups a second", "only counted on Linux", "below 2")
    else:
        rate = (after - before) / options.idle
        report.row("idle: wake-ups a second", f"{rate:.2f} over {options.idle:.0f} s", "below 2", rate=rate)


def _latency(report: Report, options: argparse.Namespace) -> None:
    with running() as house:
        client = Client(house.socket)
        waits = []
        for _ in range(options.jobs + 1):
            job = client.wait(client.submit("noop", {})[0].id, timeout=60)
            if job.started_at is None:
                raise SystemExit(f"A tiny job did not run: {job.error}")
            waits.append((job.started_at - job.created_at).total_seconds())
    cut = statistics.quantiles(waits[1:], n=100)
    figure = f"p50 {cut[49] * 1000:.2f} ms, p99 {cut[98] * 1000:.2f} ms ({options.jobs} jobs)"
    report.row("enqueue to start, idle daemon", figure, "p99 below 20 ms", p50=cut[49], p99=cut[98])


def _switches(pid: int) -> int | None:
    """Return how often the threads of *pid* have gone to sleep by themselves, or None where nobody counts."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.is_dir():
        return None
    lines = (line for task in tasks.iterdir() for line in (task / "status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def _model(name: str, own: Path | None) -> tuple[str, str]:
    """Return how mlxd calls a model, and its folder."""
    folder = own or Path(str(importlib.resources.files("plugins"))) / "demo_models" / name
    if not (folder / "config.json").is_file():
        raise SystemExit(f"There is no model in {folder}. The demo models are made with: make demo-train")
    return (str(folder.resolve()) if own else f"demo:{name}"), str(folder.resolve())


def _sample() -> Path:
    folder = Path(str(importlib.resources.files("plugins"))) / "demo_models" / "samples"
    found = sorted(path for path in folder.rglob("*") if path.suffix in {".flac", ".wav", ".m4a", ".mp3"})
    if not found:
        raise SystemExit(f"There is no sample recording in {folder}.")
    return found[0]


def _same(ours: list[str], theirs: list[str]) -> str:
    mine, others = ({" ".join(each.split()) for each in texts} for texts in (ours, theirs))
    if len(mine) == 1 and mine == others:
        return "yes, in every round"
    return f"NO: {sorted(mine)[:2]} against {sorted(others)[:2]}"


PARTS: dict[str, Callable[[Report, argparse.Namespace], None]] = {
    "generate": _generate,
    "transcribe": _transcribe,
    "submit": _submit,
    "start": _start,
    "idle": _idle,
    "latency": _latency,
}


if __name__ == "__main__":
    main()
