"""An executor that keeps what jobs did: real ledger, real tasks, real files; scripted models in real folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakes_daemon import Bench, FakeModels
from fakes_tasks import loaded

from daemon.config.model import OutputsConfig
from daemon.context import World
from daemon.executor import Executor
from daemon.models.references import ResolvedModel
from daemon.records import Records
from jobs.errors import ModelMissing
from jobs.model import Job, NewJob


def answer(text: str = "forty-two") -> dict[str, Any]:
    """Return what a language model's runtime gives."""
    return {"text": text, "finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 3}


class Office:
    """Everything around one executor."""

    def __init__(self, folder: Path, *outcomes: dict[str, Any] | Exception | None) -> None:
        self.models = FakeModels(*outcomes)
        self.bench = Bench(folder, models=self.models)
        self.ledger = self.bench.ledger
        self.settings = OutputsConfig()
        self.defaults: dict[str, Mapping[str, Any]] = {}
        #: Where the models lie; a test may take one away.
        self.places = {"lm": self.model(folder / "models" / "lm"), "whisper": self.model(folder / "models" / "whisper")}
        plugins = loaded()
        self.tasks = plugins
        world = World(
            ledger=self.ledger,
            hub=self.bench.hub,
            models=self.models,
            task=plugins.task,
            parse=plugins.parse,
            defaults=lambda task: self.defaults.get(task, {}),
            settings=lambda _: {},
            results=folder / "results",
            monotonic=self.bench.clock.monotonic,
        )
        records = Records(
            ledger=self.ledger,
            settings=lambda: self.settings,
            defaults=world.defaults,
            resolver=lambda: self.resolve,
            task=plugins.task,
            clock=self.bench.clock,
        )
        self.executor = Executor(
            world=world,
            owner="me",
            clock=self.bench.clock,
            ended=lambda _: None,
            again=lambda _: None,
            records=records,
        )

    @staticmethod
    def model(folder: Path, *, weights: bytes = b"\2\0\0\0\0\0\0\0{}") -> Path:
        """Make a folder that looks like a model as far as its identity goes."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"quantization": {"bits": 4, "group_size": 64}}))
        (folder / "model.safetensors").write_bytes(weights)
        return folder

    def resolve(self, ref: str | None, runtime: str) -> ResolvedModel:
        if runtime not in self.places:
            raise ModelMissing(f"no {runtime}")
        return ResolvedModel(ref=ref or f"default:{runtime}", runtime=runtime, path=self.places[runtime])

    def do(self, new: NewJob) -> Job:
        """Submit *new*, run it, and return it as it ended."""
        job, _ = self.ledger.add(new)
        self.executor.execute(job.id)
        return self.ledger.get(job.id)

    def close(self) -> None:
        self.bench.close()
