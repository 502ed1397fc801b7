"""Which rules are in force in which sub-folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fakes_folders import Bench

from daemon.config.folders import FolderConfig
from daemon.folders.recipe import folder_recipe
from daemon.folders.recipes import Recipes
from daemon.folders.rules import new_job, params_of
from jobs.errors import ConfigError
from jobs.model import After, Lane, NewJob


def recipes(root: Path, texts: dict[str, str], **folder: Any) -> Recipes:
    """Return the recipes of *root* with these files (sub-folder -> text) in it, looked at from the top."""
    found = Recipes(FolderConfig(path=root, **folder))
    for at, text in texts.items():
        (root / at).mkdir(parents=True, exist_ok=True)
        (root / at / ".mlxd.toml").write_text(text)
    for at in texts:
        found.look_above(f"{at}/x" if at else "x")
    return found


def job(root: Path, found: Recipes, relative: str, takes: Any = lambda _task: None) -> NewJob:
    folder = FolderConfig(path=root)
    (rule,) = found.rules_for(relative)
    return new_job(folder, rule, root / relative, takes=takes)


def test_sub_folders_inherit_and_override_key_by_key(tmp_path: Path) -> None:
    """A key without a task changes the inherited rule, and `params` one by one; what is not said stays."""
    found = recipes(
        tmp_path,
        {
            "": 'task = "transcribe"\nafter = "done"\nparams = { language = "en", beam = 1 }',
            "de": 'lane = "batch"\nparams = { language = "de" }',
            "de/now": 'lane = "interactive"',
        },
    )
    top, german, urgent = (job(tmp_path, found, name) for name in ("a.wav", "de/a.wav", "de/now/a.wav"))
    assert (top.lane, top.params["language"]) == (Lane.NORMAL, "en")
    assert (german.lane, german.params["language"], german.params["beam"]) == (Lane.BATCH, "de", 1)
    assert (urgent.lane, urgent.params["language"], urgent.placement.after) == (Lane.INTERACTIVE, "de", After.DONE)


def test_a_task_makes_one_rule_of_it(tmp_path: Path) -> None:
    """It has from the inherited rule of the same task what it does not say; of another task, nothing."""
    rules = [{"task": "generate", "priority": 3}, {"task": "transcribe", "priority": 5, "after": "done"}]
    found = recipes(tmp_path, {"a": 'task = "transcribe"\nafter = "leave"', "b": 'task = "noop"'}, rules=rules)
    (one,), (other,) = found.standing("a").rules, found.standing("b").rules
    assert (one.task, one.priority, one.after) == ("transcribe", 5, After.LEAVE)
    assert (other.task, other.priority) == ("noop", 0)


def test_rules_replace_all_inherited_ones(tmp_path: Path) -> None:
    """`[[rules]]` start afresh, for this folder and those below."""
    found = recipes(tmp_path, {"a": '[[rules]]\ntask = "x"\n[[rules]]\ntask = "y"'})
    assert [rule.name for rule in found.standing("a/b/c").rules] == ["x", "y"]
    assert [rule.name for rule in found.standing("").rules] == ["transcribe", "generate"]
    assert found.names == ("transcribe", "generate", "x", "y")


def test_patterns_and_outputs_count_from_the_folder_that_says_them(tmp_path: Path) -> None:
    """Written in de/, `voice/*` is de/voice/*, and `out` is de/out, with sub-folders mirrored from there."""
    found = recipes(tmp_path, {"d*e": 'task = "x"\nmatch = ["voice/*", "*.top"]\noutput = "out"'})
    (rule,) = found.standing("d*e/voice").rules
    assert rule.match == ("d[*]e/voice/*", "*.top")
    made = new_job(FolderConfig(path=tmp_path), rule, tmp_path / "d*e" / "voice" / "a.wav")
    assert made.placement.directory == tmp_path / "d*e" / "out" / "voice"
    assert found.outputs == {"d*e/out"}


def test_a_sub_folders_name_sets_parameters(tmp_path: Path) -> None:
    """By name, pattern or path, for all below; `{folder}` is its name; what the task does not have is left out."""
    table = {"de": {"language": "de", "x": 1}, "??": {"region": "{folder}"}, "fr/old": {"language": "frm"}}
    found = recipes(tmp_path, {}, subfolders=table, rules=[{"task": "t", "params": {"language": "en"}}])

    def takes(_task: str) -> set[str]:
        return {"language", "region", "file"}

    places = ["a", "de/a", "de/deep/a", "fr/a", "fr/old/a", "long/a"]
    said = [job(tmp_path, found, name, takes).params for name in places]
    assert [params["language"] for params in said] == ["en", "de", "de", "en", "frm", "en"]
    assert [params.get("region") for params in said] == [None, "de", "de", "fr", "fr", None]
    assert all("x" not in params for params in said)


def test_a_recipe_counts_more_than_the_folders_name_and_less_than_one_below(tmp_path: Path) -> None:
    """Closer to the file counts more, key by key."""
    texts = {
        "": '[subfolders]\nde = { language = "de", n = 1 }\nold = { language = "goh" }',
        "de": "params = { n = 2 }",
    }
    found = recipes(tmp_path, texts, rules=[{"task": "t"}])
    assert job(tmp_path, found, "de/a").params == {"language": "de", "n": 2, "file": str(tmp_path / "de/a")}
    assert job(tmp_path, found, "de/old/a").params["language"] == "goh"


def test_a_pipelines_steps_get_the_parameters_they_have(tmp_path: Path) -> None:
    """Each step by its own task."""
    steps = [{"task": "transcribe"}, {"task": "generate", "params": {"prompt": "{text}"}}, {"task": "unknown"}]
    folder = {"subfolders": {"de": {"language": "de"}}, "rules": [{"task": "pipeline", "params": {"steps": steps}}]}
    found = recipes(tmp_path, {}, **folder)
    known = {"pipeline": {"steps", "file"}, "transcribe": {"language"}, "generate": {"prompt"}}
    (rule,) = found.rules_for("de/a.wav")
    assert params_of(rule, known.get) == {"steps": [{**steps[0], "params": {"language": "de"}}, steps[1], steps[2]]}


def test_a_broken_recipe_stops_its_folder_alone(tmp_path: Path) -> None:
    """Its files and those below are left alone and the folder complains; the others go on; mended, they are taken."""
    bench = Bench(FolderConfig(path=tmp_path, settle_seconds=1))
    (tmp_path / "bad" / "deep").mkdir(parents=True)
    (tmp_path / "bad" / ".mlxd.toml").write_text("nonsense = 1")
    for name in ("a.txt", "bad/b.txt", "bad/deep/c.txt"):
        (tmp_path / name).write_text(name)
    assert bench.settle() == ["a.txt"]
    assert "nonsense: no such key" in str(bench.problem)
    (tmp_path / "bad" / ".mlxd.toml").write_text("params = { max_tokens = 3 }")
    assert sorted(bench.settle()) == ["a.txt", "b.txt", "c.txt"]
    assert bench.problem is None
    assert [one.params.get("max_tokens") for one in bench.ledger.jobs] == [None, 3, 3]


def test_a_recipe_that_goes_gives_its_folder_back(tmp_path: Path) -> None:
    """Without the file what is inherited counts again."""
    found = recipes(tmp_path, {"a": 'lane = "batch"'}, rules=[{"task": "t"}])
    assert found.standing("a").rules[0].lane is Lane.BATCH
    (tmp_path / "a" / ".mlxd.toml").unlink()
    assert found.look("a")
    assert not found.look("a")
    assert found.standing("a").rules[0].lane is Lane.NORMAL


def test_a_recipe_in_the_cloud_is_waited_for(tmp_path: Path) -> None:
    """It is not opened, its folder's files wait, and it counts once it is downloaded, even with the same times."""
    away = True

    def dataless(status: os.stat_result) -> bool:
        return away and status.st_size == len('task = "noop"')

    bench = Bench(FolderConfig(path=tmp_path, settle_seconds=1), dataless=dataless)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".mlxd.toml").write_text('task = "noop"')
    (tmp_path / "a" / "b.bin").write_text("x")
    assert bench.settle() == []
    assert "still in the cloud" in str(bench.problem)
    away = False
    assert bench.settle() == ["b.bin"]


@pytest.mark.parametrize("recursive", [True, False])
def test_a_new_sub_folder_brings_its_recipe_along(tmp_path: Path, recursive: bool) -> None:
    """A hint of a file in a folder that no scan has seen reads the recipes above it first."""
    bench = Bench(FolderConfig(path=tmp_path, settle_seconds=1, recursive=recursive))
    bench.scan()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".mlxd.toml").write_text('task = "noop"')
    (tmp_path / "new" / "a.bin").write_text("x")
    bench.patrol.hint("new/a.bin", bench.clock.now)
    assert bench.turn(1) == (["a.bin"] if recursive else [])


@pytest.mark.parametrize(
    "text",
    [
        'task = "generate"\nparams = { json_schema = "/etc/passwd" }',
        'task = "batch"\nparams = { folder = "~/Documents" }',
        'task = "pipeline"\nparams = { steps = [{ task = "generate", params = { file = "/home/ada/x" } }] }',
        'task = "pipeline"\nparams = { steps = [{ task = "deliver", params = {} }] }',
        'task = "pull"\nparams = { model = "org/name" }',
        '[subfolders]\nde = { model = "/tmp/model" }',
    ],
)
def test_a_recipe_reaches_nothing_elsewhere(tmp_path: Path, text: str) -> None:
    """It may have come with the folder from a stranger, and results may lie where strangers read."""
    (tmp_path / ".mlxd.toml").write_text(text)
    with pytest.raises(ConfigError, match="the configuration may"):
        folder_recipe(tmp_path)


def test_a_recipe_may_say_any_text(tmp_path: Path) -> None:
    """What is for the model may begin with a slash."""
    (tmp_path / ".mlxd.toml").write_text('task = "generate"\nparams = { system = "/no_think", file = "{file}" }')
    assert folder_recipe(tmp_path) is not None
