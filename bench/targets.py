"""What is measured and what it should come to: the rows of every table, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Area -> the command that measures it and the heading of its table.
AREAS = {
    "engine": ("python bench/engine.py", "The language-model engine, in one process"),
    "serving": ("python bench/serving.py", "Through the daemon"),
    "transcription": ("python bench/whisper.py", "Transcription"),
    "memory": ("python bench/memory.py", "Memory"),
    "queue": ("python bench/queueing.py", "Queue and daemon"),
}


@dataclass(frozen=True)
class Target:
    """A row, and what its figure must be: at least, or at most; on a CPU and on a GPU."""

    key: str
    #: What it compares, for people.
    what: str
    at_least: float | None = None
    at_most: float | None = None
    #: The same on a GPU, where it differs.
    gpu: float | None = None
    #: Whether the target holds on a GPU alone.
    only_gpu: bool = False
    #: Shown after the number.
    unit: str = ""

    @property
    def area(self) -> str:
        """Return the area it belongs to."""
        return self.key.partition(".")[0]

    def limit(self, device: str) -> float | None:
        """Return the number on *device* (cpu or gpu), None if there is none."""
        number = self.at_least if self.at_least is not None else self.at_most
        if device == "gpu":
            return self.gpu if self.gpu is not None else number
        return None if self.only_gpu else number

    def text(self, device: str) -> str:
        """Say it, for people."""
        limit = self.limit(device)
        if limit is None:
            return ""
        shown = f"1/{1 / limit:.0f}" if 0 < limit < 0.2 and not self.unit else f"{limit:g}"  # noqa: PLR2004, RUF100
        return f"{'at least' if self.at_least is not None else 'at most'} {shown}{self.unit and ' ' + self.unit}"

    def verdict(self, figure: Mapping[str, Any], device: str) -> str:
        """Judge *figure*, a spread: by its median, and say so if the worst round would be judged otherwise."""
        limit = self.limit(device)
        if limit is None:
            return ""
        if self.at_least is not None:
            good, always = figure["median"] >= limit, figure["low"] >= limit
        else:
            good, always = figure["median"] <= limit, figure["high"] <= limit
        return ("met" if always else "met at the median") if good else "missed"


TARGETS = [
    Target("engine.null", "nothing: ours / ours, one stream"),
    Target("engine.stream", "one stream / `stream_generate`", at_least=0.97),
    Target("engine.batch8", "batch of 8 / `BatchGenerator`", at_least=0.98),
    Target("engine.batch16", "batch of 16 / `BatchGenerator`", at_least=0.98),
    Target("engine.batch32", "batch of 32 / `BatchGenerator`", at_least=0.98),
    Target("engine.batch64", "batch of 64 / `BatchGenerator`", at_least=0.98),
    Target("engine.ragged", "ragged requests / `BatchGenerator`"),
    Target("engine.sampled", "ragged, each sampled its own way / `BatchGenerator`", at_least=1.5),
    Target("engine.shared", "100 prompts sharing their beginning / not shared", at_least=4),
    Target("engine.pause", "a batch interrupted by short questions / both after one another", at_least=0.95),
    Target("engine.gap", "longest / median gap of others while a long prompt comes in", at_most=3),
    Target("engine.newcomer", "first token of an interactive newcomer beside 64 batch rows, p99"),
    Target("serving.null", "nothing: one stream / one stream, both through the daemon"),
    Target("serving.stream", "one stream / `stream_generate`", at_least=0.97),
    Target("serving.batch8", "batch of 8 / `BatchGenerator`", at_least=0.98),
    Target("serving.batch64", "batch of 64 / `BatchGenerator`", at_least=0.98),
    Target("serving.folder_server", "folder of prompts / `mlx_lm.server` at the same concurrency", at_least=1.25),
    Target("serving.folder_loop", "the same / shell loop of `mlx_lm generate`", at_least=7, gpu=50),
    Target("serving.newcomer", "newcomer beside 64 batch prompts, first token p99 / `mlx_lm.server`'s", at_most=0.35),
    Target("serving.first", "warm time to first token / cold command line", at_most=1 / 25, gpu=1 / 100),
    Target("serving.command", "the warm command `mlxd submit --follow` / cold command line"),
    Target("transcription.daemon", "one file through the daemon / in-process `transcribe`", at_least=0.98),
    Target("transcription.file", "one file in one process / in-process `transcribe`", at_least=0.98),
    Target("transcription.windows", "16 windows at once / one at a time", at_least=4, only_gpu=True),
    Target("transcription.long", "one long file, cut in its pauses / in-process `transcribe`"),
    Target("transcription.loop", "files through the daemon / the `mlx_whisper` command in a loop"),
    Target("memory.reload", "reload of an evicted model / bare `mx.load` and eval of its files", at_most=1.1),
    Target("memory.cold", "the same without a spare runner"),
    Target("memory.left_bytes", "memory left behind by loads and unloads", at_most=3, unit="MB"),
    Target("memory.left_descriptors", "descriptors left behind", at_most=0),
    Target("memory.left_threads", "threads left behind", at_most=0),
    Target("memory.left_children", "processes left behind", at_most=0),
    Target("memory.left_shared", "shared memory segments left behind", at_most=0),
    Target("queue.submits", "durable submits/s of 64 clients / stock SqliteHuey enqueue+run", at_least=2),
    Target("queue.jobs", "jobs/s from the first submission to the last end / SqliteHuey's"),
    Target("queue.start", "enqueue to start on an idle daemon, p99", at_most=10, unit="ms"),
    Target("queue.rss", "daemon, nothing loaded: resident memory", at_most=64, unit="MB"),
    Target("queue.wakeups", "daemon, nothing loaded: wake-ups a second", at_most=1),
    Target("queue.startup", "spawning the daemon to its first good answer"),
    Target("queue.command", "`mlxd submit` without waiting / an empty interpreter"),
]
BY_KEY = {target.key: target for target in TARGETS}
