"""What a new configuration changes."""

from __future__ import annotations

from pathlib import Path

from daemon.config.folders import FolderConfig
from daemon.config.model import Config, LogConfig, ModelConfig, QueueConfig
from daemon.config.reload import report
from jobs.model import Lane


def test_nothing_changed() -> None:
    """The same configuration changes nothing."""
    assert report(Config(), Config()).changed == ()


def test_live_and_late_keys() -> None:
    """Folders, models and the log change at once; the number of workers and the plugins need a restart."""
    new = Config(
        folders=(FolderConfig(path=Path("/x")),),
        models={"writer": ModelConfig(path="demo:lm", pin=True)},
        log=LogConfig(level="debug"),
        queue=QueueConfig(workers={Lane.BATCH: 1}),
    )
    got = report(Config(), new)

    assert got.changed == ("folders", "log.level", "models.writer")
    assert got.needs_restart == ("queue.workers.batch",)
