"""A dry run says what a real one would do, and changes nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from fakes_folders import FakeLedger

from daemon.config.folders import FolderConfig
from daemon.folders.expectation import Past, expect, models_of
from daemon.folders.finder import Finder
from daemon.folders.identity import Facts
from daemon.folders.intake import Intake
from daemon.folders.preview import Asking, Preview
from daemon.views import FileTest, FolderState, FolderTest, TestVerdict
from jobs.errors import InvalidParams, MlxdError, ModelMissing
from jobs.model import NewJob
from plugins.manager import PluginManager

TAKES = {"generate": {"file", "front_matter", "max_tokens", "model"}, "transcribe": {"file", "language"}}


class Trial:
    """Dry runs of one folder on a ledger in memory."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.folder = FolderConfig(path=root, **options)
        self.ledger = FakeLedger()
        self.intake = Intake(submit=self.ledger.submit, ledger=self.ledger, takes=TAKES.get)
        self.past: list[Past] = []

    def write(self, name: str, text: str = "hello") -> Path:
        path = self.folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, start: str = "", *, limit: int = 100, paused: bool = False, **options: Any) -> FolderTest:
        asking = Asking(
            known=self.intake.known,
            is_output=self.intake.is_output,
            takes=TAKES.get,
            prepared=self.intake.prepared,
            validate=self.validate,
            past=lambda _task: self.past,
            models=lambda new: [("lm", new.params.get("model"))],
            estimate=self.estimate,
        )
        preview = Preview(self.folder, asking=asking, excluded=frozenset(), **options)
        return preview.run(start, limit=limit, paused=paused)

    def files(self, start: str = "", **options: Any) -> dict[str, FileTest]:
        found = self.run(start, **options).files
        return {one.path.relative_to(self.folder.path).as_posix(): one for one in found}

    def validate(self, new: NewJob) -> None:
        if new.params.get("max_tokens", 1) > 1000:
            raise InvalidParams("max_tokens: too many")

    def estimate(self, ref: str | None, _runtime: str) -> tuple[str, int]:
        if ref == "missing":
            raise ModelMissing("The model missing is not on this machine.")
        return ref or "demo:lm", 1000


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path / "in", settle_seconds=1)


def test_it_says_what_would_run(trial: Trial) -> None:
    """Rule, task, parameters with the file's own, model, place and name of the results, time and memory."""
    trial.write("de/a.txt", "---\nmax_tokens: 7\n---\nHello")
    trial.write("de/.mlxd.toml", 'output = "out"\nstem = "{folder}-{stem}"')
    trial.past = [Past(10, 2.0), Past(20, 4.0), Past(30, 9.0)]
    found = trial.run()
    (one,) = [file for file in found.files if file.verdict is TestVerdict.WOULD_RUN]
    assert (one.rule, one.task, one.params) == ("generate", "generate", {"max_tokens": 7})
    assert one.directory == trial.folder.path / "de" / "out"
    assert one.stem == "de-a"
    assert (one.seconds, one.basis) == (4.0, "4 s per file, the median of 3 past jobs")
    assert (one.models, one.memory_bytes) == ({"demo:lm": 1000}, 1000)
    assert (found.would_run, found.seconds, found.memory_bytes, found.more) == (1, 4.0, 1000, 0)


def test_it_says_why_a_file_is_left_alone(trial: Trial) -> None:
    """Names, places, links, our own outputs, rules that do not fit, and what was done already."""
    trial.folder = FolderConfig(path=trial.folder.path, rules=[{"task": "generate", "max_size": 9, "output": "out"}])
    for name in (".hidden", "a.part", "done/b.txt", "out/c.txt", "d.wav", "own.txt", "again.txt"):
        trial.write(name, name)
    trial.write("big.txt", "0123456789")
    (trial.folder.path / "link.txt").symlink_to("again.txt")
    trial.ledger.outputs = {trial.folder.path / "own.txt"}
    path = trial.folder.path / "again.txt"
    rule = trial.folder.rules[0]
    job = trial.intake.file(trial.folder, path, rule=rule, facts=Facts.of(path.lstat())).job
    assert job is not None
    found = trial.files()
    assert {one.verdict for name, one in found.items() if name != "again.txt"} == {TestVerdict.LEFT_ALONE}
    assert (found["again.txt"].verdict, found["again.txt"].job) == (TestVerdict.DONE, job.id)
    whys = {name: str(one.why) for name, one in found.items()}
    assert "hidden" in whys[".hidden"]
    assert whys["done"] == "folders of this name are never looked into"
    assert whys["out"].startswith("it holds results")
    assert "generate: the name does not match *.txt, *.md" in whys["d.wav"]
    assert "larger than max_size (10 of 9 bytes)" in whys["big.txt"]
    assert whys["link.txt"] == "it is no ordinary file"
    assert whys["own.txt"] == "mlxd wrote it"
    assert trial.files("done/b.txt")["done/b.txt"].why == whys["done"]


def test_it_says_what_waits_and_what_would_fail(trial: Trial) -> None:
    """Too young, in the cloud, a mistake in the front matter or in a parameter, a model that is not here."""
    trial.folder = FolderConfig(path=trial.folder.path, rules=[{"task": "generate", "min_age": 60}])
    old = time.time() - 100
    for name, text in {
        "young.txt": "x",
        "cloud.txt": "12345",
        "typo.txt": "---\nmodle: x\n---\nx",
        "many.txt": "---\nmax_tokens: 5000\n---\nx",
        "model.txt": "---\nmodel: missing\n---\nx",
    }.items():
        path = trial.write(name, text)
        if name != "young.txt":
            os.utime(path, (old, old))
    found = trial.files(dataless=lambda status: status.st_size == 5)
    assert found["young.txt"].verdict is TestVerdict.WAITS
    assert found["young.txt"].wait_s == pytest.approx(60, abs=5)
    assert found["cloud.txt"].verdict is TestVerdict.CLOUD_PENDING
    assert "did you mean 'model'" in str(found["typo.txt"].why)
    assert found["typo.txt"].verdict is found["many.txt"].verdict is TestVerdict.WOULD_FAIL
    assert found["model.txt"].memory_bytes is None
    assert "not on this machine" in str(found["model.txt"].why)


def test_nothing_is_written(trial: Trial) -> None:
    """Neither a job nor a note nor a folder, and the answer is the same again."""
    trial.write("a.txt")
    before = sorted(trial.folder.path.rglob("*"))
    assert trial.run() == trial.run()
    assert (trial.ledger.jobs, trial.ledger.keys) == ([], {})
    assert sorted(trial.folder.path.rglob("*")) == before


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Not even with `create`: a dry run tells that it is missing."""
    found = Trial(tmp_path / "in", create=True).run()
    assert (found.state, found.files) == (FolderState.MISSING, ())
    assert not (tmp_path / "in").exists()


def test_long_lists_are_cut(trial: Trial) -> None:
    """And it says how many are not listed."""
    for number in range(5):
        trial.write(f"{number}.txt")
    found = trial.run(limit=2, paused=True)
    assert (len(found.files), found.more, found.state) == (2, 3, FolderState.PAUSED)


def test_what_a_sub_folder_sets_in_vain_is_told(trial: Trial) -> None:
    """A parameter that the task does not have."""
    trial.folder = FolderConfig(path=trial.folder.path, subfolders={"de": {"language": "de"}})
    trial.write("de/a.txt")
    trial.write("de/a.wav")
    found = trial.files()
    assert found["de/a.txt"].left_out == ("language",)
    assert found["de/a.wav"].params == {"language": "de"}


def test_time_is_told_by_size_or_number_and_unknown_is_said() -> None:
    """Large inputs by the megabyte, small ones by the file; what was never done is not guessed."""
    assert expect([], 5).seconds is None
    large = [Past(2_000_000, 4.0), Past(4_000_000, 4.0), Past(None, 99.0), Past(1_000_000, 9.0)]
    assert expect(large, 10_000_000).seconds == pytest.approx(20)
    assert expect([Past(100, 1.0), Past(None, 3.0)], 10**9).seconds == 2.0


def test_which_models_a_job_asks_for() -> None:
    """Of the built-in tasks, of a pipeline's steps, and of a plugin's task that says so."""
    plugins = PluginManager()
    plugins.load()

    class Own:
        runtime = "ocr"

    def models(name: str, **params: Any) -> tuple[tuple[str, str | None], ...]:
        def task(name: str) -> Any:
            return Own() if name == "own" else plugins.task(name)

        return models_of(
            NewJob(task=name, params=params), task, lambda _task: {"model": "d"} if name == "batch" else {}
        )

    assert models("generate", model="x") == (("lm", "x"),)
    assert models("batch") == (("lm", "d"),)
    assert models("memo", whisper="w") == (("whisper", "w"), ("lm", None))
    steps = [{"task": "transcribe"}, {"task": "generate", "params": {"model": "x"}}, {"task": "transcribe"}]
    assert models("pipeline", steps=steps) == (("whisper", None), ("lm", "x"))
    assert models("own", model="m") == (("ocr", "m"),)
    assert models("pull", model="m") == ()
    with pytest.raises(MlxdError):
        models("nonsense")


def test_a_protected_folder_is_told(tmp_path: Path) -> None:
    """What stands in the way, instead of files."""
    trial = Trial(tmp_path / "Documents")
    (tmp_path / "Documents").write_text("no folder")

    def finder(folder: FolderConfig, **options: Any) -> Finder:
        return Finder(folder, **options, platform="darwin")

    assert trial.run(finder=finder).state is FolderState.BROKEN
