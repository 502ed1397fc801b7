"""A tree of watched folders with recipes, a task that says what it was given, and files to drop into it."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

from fakes_acceptance import SpawnedDaemon

#: A single-file plugin: a task that writes down what it was given, and appends a line to a log for each time it ran.
_PLUGIN: Final = """
import hashlib, json, os
from pathlib import Path
from typing import Any
import pluggy
from pydantic import BaseModel

hookimpl = pluggy.HookimplMarker("mlxd")


class Params(BaseModel):
    file: Path
    language: str = "en"
    seed: int | None = None
    front_matter: bool = True


class Mark:
    name, summary, params = "mark", "Says what it was given.", Params

    def run(self, ctx, params):
        digest = hashlib.sha256(params.file.read_bytes()).hexdigest()
        said = {"file": str(params.file), "sha256": digest, "language": params.language, "seed": params.seed}
        ctx.output(f"{ctx.stem}.mark.json", json.dumps(said))
        return {"text": digest, **said}


@hookimpl
def mlxd_register_tasks(register):
    register(Mark())
"""

_CONFIG: Final = """
[outputs]
reuse = "never"

[watch]
rescan_seconds = 2

[[folders]]
path = "{root}"
settle_seconds = 0.2
[folders.subfolders]
de = {{ language = "de" }}

[[folders.rules]]
name = "large"
task = "mark"
match = ["*.txt", "*.bin"]
min_size = 5000
lane = "batch"

[[folders.rules]]
name = "chain"
task = "pipeline"
match = "*.chain"
params = {{ steps = [{{ task = "mark", name = "one" }}, {{ task = "noop", name = "two" }}] }}

[[folders.rules]]
task = "mark"
match = ["*.txt", "*.bin"]
output = "results"
"""

_RECIPES: Final = {
    "de": 'after = "done"',
    "de/now": 'lane = "interactive"\nstem = "{folder}-{stem}"',
    "own": '[[rules]]\ntask = "mark"\nmatch = "*.txt"\nparams = { language = "fr" }\nafter = "delete"',
}


class Dropped(NamedTuple):
    """A file that was put there, and what is to be made of it."""

    relative: str
    language: str
    rule: str
    seed: int | None


class Tree:
    """The folders of one spawned daemon."""

    def __init__(self, daemon: SpawnedDaemon) -> None:
        self.daemon = daemon
        self.root = daemon.home / "tree"
        self.root.mkdir()
        (daemon.home / "plugins" / "mark.py").write_text(_PLUGIN)
        daemon.configure(_CONFIG.format(root=self.root))
        for at, text in _RECIPES.items():
            (self.root / at).mkdir(parents=True, exist_ok=True)
            (self.root / at / ".mlxd.toml").write_text(text)

    def drop(self, count: int, *, first: int = 0) -> list[Dropped]:
        """Put *count* files of all kinds there, numbered from *first*, every one with a content of its own."""
        choice = random.Random(first)
        return [self._drop(number, choice) for number in range(first, first + count)]

    def _drop(self, number: int, choice: random.Random) -> Dropped:
        at = choice.choice(["", "", "de", "de/now", "de/deep", "own", "more/and/more"])
        suffix = ".txt" if at == "own" else choice.choice([".txt", ".bin", ".chain"])
        large, own_seed = choice.random() < 0.3, None
        text = f"file {number}\n" + "x" * (6000 if large else number)
        if suffix == ".txt" and choice.random() < 0.4:
            own_seed = number
            text = f"---\nseed: {number}\n---\n{text}"
        name = f"{choice.choice(['memo', 'ä ö', 'x y'])} {number}{suffix}"
        path = self.root / at / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if choice.random() < 0.5:  # as careful programs do it
            hidden = path.with_name(f".{name}.part")
            hidden.write_text(text)
            hidden.rename(path)
        else:
            path.write_text(text)
        language = "fr" if at == "own" else "de" if at.startswith("de") else "en"
        rule = "mark" if at == "own" else "chain" if suffix == ".chain" else "large" if large else "mark"
        return Dropped(os.path.relpath(path, self.root), language, rule, own_seed)

    def noise(self) -> None:
        """Put files there that nothing is to be made of."""
        for name in (".hidden.txt", "half.txt.part", "own/left.bin", "~$lock.txt", "picture.png"):
            (self.root / name).write_text(f"noise {name}")

    def check(self, dropped: list[Dropped]) -> None:
        """Wait until as many jobs have ended, and see that each file was done exactly once, as its folder says."""
        self.daemon.until(lambda: len(self._ended()) >= len(dropped), "the jobs")
        self.daemon.ok("folders", "rescan")
        jobs = self._ended()
        made = Counter(os.path.relpath(job["source"]["detail"], self.root) for job in jobs)
        assert made == Counter(one.relative for one in dropped)
        assert {job["state"] for job in jobs} == {"succeeded"}
        by_file = {os.path.relpath(job["source"]["detail"], self.root): job for job in jobs}
        for one in dropped:
            self._check_one(one, by_file[one.relative])

    def _check_one(self, one: Dropped, job: dict[str, Any]) -> None:
        assert job["source"]["rule"] == one.rule, one
        (output,) = [Path(file["path"]) for file in job["outputs"] if file["path"].endswith(".mark.json")]
        said = json.loads(output.read_text())
        assert (said["file"], said["language"]) == (str(self.root / one.relative), one.language), one
        if one.rule != "chain":
            assert said["seed"] == one.seed, one
        path = self.root / one.relative
        gone = one.relative.startswith(("de/", "own/"))
        assert path.exists() is not gone, one
        assert (path.parent / "done" / path.name).exists() is one.relative.startswith("de/"), one
        if one.relative.startswith("de/now/") and one.rule != "chain":
            assert output.name.startswith("now-"), output

    def _ended(self) -> list[dict[str, Any]]:
        found = self.daemon.json("jobs", "--source", "folder", "--limit", "5000")
        return [job for job in found if job["finished_at"]]
