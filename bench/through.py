"""A daemon with a model, asked by a client over its socket, timed from the submission to the news of the end."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil
from house import House
from machine import path_to_ours
from weights import Words

path_to_ours()

from daemon.cli.client import Client  # noqa: E402 - the checkout has to be found first
from jobs.model import Job, Lane, State  # noqa: E402

#: What the model is called in the daemon's configuration.
NAME = "bench"
#: Answers that are in flight while newcomers arrive.
CROWD = 64
#: Seconds that one job may take.
PATIENCE = 1800.0


class Daemon:
    """A daemon that has the model."""

    def __init__(self, house: House, words: Words) -> None:
        self.house = house
        self.client = Client(house.socket)
        self._words = words
        self._numbers = itertools.count(1)
        self._parts: dict[str, list[float]] = {}

    def batch(self, texts: Sequence[str], most: int, rows: int) -> tuple[float, list[str]]:
        """Answer *texts* by one batch job, *rows* in flight; return the seconds and the answers."""
        file = self.house.home / f"prompts-{next(self._numbers)}.jsonl"
        lines = (json.dumps({"prompt": text, "raw": True}) + "\n" for text in texts)
        file.write_text("".join(lines), encoding="utf-8")
        job, seconds = self._timed({"file": str(file)}, most, rows)
        written = sorted(one.path for one in job.outputs if one.path.parent.name == "items")
        self._check(job, len(texts) * most)
        return seconds, [path.read_text(encoding="utf-8") for path in written]

    def folder(self, texts: Sequence[str], most: int, rows: int) -> float:
        """Answer a folder of *texts* and return the seconds."""
        folder = self.house.home / f"folder-{next(self._numbers)}"
        folder.mkdir()
        for number, text in enumerate(texts):
            (folder / f"{number:06d}.txt").write_text(text, encoding="utf-8")
        job, seconds = self._timed({"folder": str(folder)}, most, rows)
        self._check(job, len(texts) * most)
        return seconds

    def stream(self, text: str, most: int) -> tuple[float, float, str]:
        """Ask one question and follow it; return the seconds to the first text and to the end, and the answer."""
        cpu, began = self._cpu(), time.perf_counter()
        params = {"model": NAME, "prompt": text, "max_tokens": most, "raw": True}
        job, _ = self.client.submit("generate", params, lane=Lane.INTERACTIVE)
        accepted, first, last = time.perf_counter() - began, 0.0, 0.0
        for event in self.client.events(job.id):
            if event.kind == "token":
                last = time.perf_counter() - began
                first = first or last
            if event.kind == "state" and event.data["state"] in ("succeeded", "failed", "quarantined", "blocked"):
                break
        seconds = time.perf_counter() - began
        self._note(cpu, accepted=accepted, first=first - accepted, others=last - first, end=seconds - last)
        ended = self.client.job(job.id)
        self._check(ended, most)
        return first, seconds, str((ended.result or {})["text"])

    @contextmanager
    def crowd(self, most: int, prompt: int) -> Iterator[None]:
        """Keep a batch job busy with `CROWD` answers at a time, one after the other, for as long as the block lasts."""
        file = self.house.home / f"prompts-{next(self._numbers)}.jsonl"
        lines = (json.dumps({"prompt": text, "raw": True}) for text in self._words.prompts(CROWD * 200, prompt, 77))
        file.write_text("\n".join(lines), encoding="utf-8")
        job = self._submit_batch({"file": str(file)}, most, CROWD)
        try:
            self._wait_until_busy(job)
            yield
        finally:
            self.client.cancel(job.id)
            self.client.wait(job.id, timeout=PATIENCE)

    def _wait_until_busy(self, job: Job) -> None:
        for event in self.client.events(job.id):
            if event.kind == "item":
                return
        raise SystemExit(f"The batch ended: {self.client.job(job.id).error}")

    def _submit_batch(self, source: dict[str, str], most: int, rows: int) -> Job:
        params = {**source, "model": NAME, "max_tokens": most, "concurrency": rows}
        return self.client.submit("batch", params, lane=Lane.BATCH)[0]

    def profile(self) -> dict[str, float]:
        """Return the medians of where the time went since this was last asked for, in seconds; see `_note`."""
        found = {name: round(statistics.median(readings), 5) for name, readings in self._parts.items()}
        self._parts.clear()
        return found

    def _timed(self, source: dict[str, str], most: int, rows: int) -> tuple[Job, float]:
        cpu, began = self._cpu(), time.perf_counter()
        job = self._submit_batch(source, most, rows)
        accepted = time.perf_counter() - began
        job = self.client.wait(job.id, timeout=PATIENCE)
        seconds = time.perf_counter() - began
        self._note(cpu, accepted=accepted, rest=seconds - accepted)
        return job, seconds

    def _cpu(self) -> tuple[float, float]:
        """Return the processor's seconds that the daemon and its runners have had."""
        daemon = psutil.Process(self.house.pid)
        each = [sum(one.cpu_times()[:2]) for one in (daemon, *daemon.children(recursive=True))]
        return each[0], sum(each[1:])

    def _note(self, before: tuple[float, float], **parts: float) -> None:
        """Keep the parts of one job: until it was accepted, ..., and the seconds of processor it took.

        For a stream these are: until accepted, then until the first piece of text, from there to the last one, and
        until the news of the end.
        """
        daemon, runners = self._cpu()
        for name, seconds in {**parts, "cpu_daemon": daemon - before[0], "cpu_runners": runners - before[1]}.items():
            self._parts.setdefault(name, []).append(seconds)

    def _check(self, job: Job, tokens: int) -> None:
        """End the benchmark if not every token that was paid for came."""
        told = job.result or {}
        if job.state is not State.SUCCEEDED or told.get("completion_tokens") != tokens:
            raise SystemExit(f"{job.task} is {job.state}: {job.error or told}; {tokens} tokens were expected.")
