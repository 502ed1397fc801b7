"""The configuration: what is read, what is refused and how it is said, and that the document keeps up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from daemon.config import model as configuration
from daemon.config.check import origins, unknown_names
from daemon.config.folders import FolderConfig, RuleConfig
from daemon.config.lanes import LaneConfig, turns
from daemon.config.model import Config, load, read
from daemon.config.notify import NotifyConfig
from daemon.config.schedules import ScheduleConfig
from daemon.config.shortcuts import ShortcutConfig
from daemon.folders.recipe import folder_recipe
from daemon.paths import Home, find_home
from jobs.errors import ConfigError
from jobs.model import After, Lane

DOCUMENT = Path(__file__).parents[4] / "docs" / "config.md"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return find_home({"MLXD_HOME": str(tmp_path / "home")})


def read_text(tmp_path: Path, home: Home, text: str, **environ: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(path, home=home, environ={"HOME": "/home/ada", **environ})


def problems(tmp_path: Path, home: Home, text: str, **environ: str) -> dict[str, str]:
    """Return what `load` complains of: key -> the rest of the line."""
    with pytest.raises(ConfigError) as caught:
        read_text(tmp_path, home, text, **environ)
    told = [problem["key"] for problem in caught.value.facts["problems"]]
    lines = caught.value.message.removeprefix(f"{tmp_path}/config.toml: ").splitlines()
    found = dict(line.strip().split(": ", 1) for line in lines if not line.endswith("mistakes:"))
    assert list(found) == told
    return found


def test_no_file_means_an_inbox_and_the_demo_models(tmp_path: Path, home: Home) -> None:
    """Without a configuration there are sensible defaults."""
    config = load(tmp_path / "none.toml", home=home, environ={})
    assert config.folders == (FolderConfig(path=home.inbox, create=True),)
    assert config.defaults.refs() == {"lm": "demo:lm", "whisper": "demo:whisper"}
    assert 0 < config.memory.budget_bytes() < 10**15
    assert config.memory.budget_bytes(100) == 60


def test_a_file_without_folders_keeps_the_inbox(tmp_path: Path, home: Home) -> None:
    """The inbox goes only when folders are listed, even if the list is empty."""
    assert read_text(tmp_path, home, "drain_seconds = 5").folders[0].path == home.inbox
    assert read_text(tmp_path, home, "folders = []").folders == ()


def test_everything_can_be_set(tmp_path: Path, home: Home) -> None:
    """A file with something in every table becomes the values it says."""
    config = read_text(
        tmp_path,
        home,
        """
        drain_seconds = "1m"
        [memory]
        budget = "12GB"
        [models]
        small = "org/small@main"
        local = { path = "./models/x", runtime = "lm", pin = true, keep_alive = -1, options = { bits = 4 } }
        tilde = { path = "~/m" }
        [defaults]
        lm = "small"
        embed = "org/embed"
        keep_alive = "1h"
        [tasks.generate]
        max_tokens = 5
        [[folders]]
        path = "~/in"
        settle_seconds = "500ms"
        recursive = false
        [[folders.rules]]
        task = "transcribe"
        match = "*.wav"
        after = "done"
        output = "out"
        lane = "batch"
        [[folders]]
        path = "second"
        task = "generate"
        stem = "{stem}-x"
        output = "~/answers"
        [watch]
        rescan_seconds = 5
        [queue]
        workers = { batch = 1 }
        [runner]
        env = { A = "b" }
        [plugins]
        entry_points = "none"
        disabled = "pull"
        settings = { x = { y = 1 } }
        [log]
        level = "debug"
        max_bytes = "1MB"
        """,
    )
    assert config.drain_seconds == 60
    assert config.memory.budget_bytes(1) == 12_000_000_000
    assert config.models["small"].path == "org/small@main"
    assert config.models["small"].keep_alive == 3600
    assert config.models["local"].path == str(tmp_path / "models/x")
    assert config.models["local"].keep_alive == -1
    assert config.models["tilde"].path == "/home/ada/m"
    assert config.defaults.refs() == {"lm": "small", "whisper": "demo:whisper", "embed": "org/embed"}
    first, second = config.folders
    assert (first.path, first.settle_seconds, first.recursive) == (Path("/home/ada/in"), 0.5, False)
    rule = first.rules[0]
    assert (rule.name, rule.match, rule.after, rule.output) == ("transcribe", ("*.wav",), After.DONE, Path("out"))
    assert rule.lane is Lane.BATCH
    assert second.path == tmp_path / "second"
    assert second.rules[0].output == Path("/home/ada/answers")
    assert config.queue.workers == {Lane.INTERACTIVE: 8, Lane.NORMAL: 8, Lane.BATCH: 1}
    assert config.plugins.entry_points is False
    assert config.plugins.disabled == ("pull",)
    assert config.log.max_bytes == 1_000_000


def test_it_comes_back_from_json(tmp_path: Path, home: Home) -> None:
    """What `mlxd config show --json` prints is a configuration again, the same one."""
    config = read_text(
        tmp_path, home, '[models]\na = "org/a"\n[defaults]\nembed="x"\n[[folders]]\npath = "in"\ntask = "x"\noutput="o"'
    )
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_all_mistakes_are_told_at_once(tmp_path: Path, home: Home) -> None:
    """Each line names the key, what it got and what it wanted; a misspelt key gets a suggestion."""
    found = problems(
        tmp_path,
        home,
        """
        drain_seconds = "x"
        nonsense = 1
        [queue]
        limt = 5
        limit = true
        workers = {btch = 2}
        [defaults]
        keep_alive = "5 mins"
        other = 5
        [models]
        a = "org/x"
        b = {pth = "x", pin = "yes"}
        c = 3
        [plugins]
        entry_points = 5
        [watch]
        rescan_seconds = 0
        [[folders]]
        path = "in"
        task = 5
        aftr = "x"
        after = "x"
        [[folders]]
        path = 3
        rules = [{task = "a b", match = ["x", 3], stem = "{foo}", priority = 101}]
        """,
    )
    assert found == {
        "drain_seconds": """got 'x', wanted a duration: "30s", "5m", "1h30m", or a number of seconds""",
        "nonsense": f"no such key (there are: {', '.join(sorted(Config.model_fields))})",
        "queue.limt": 'no such key; did you mean "limit"?',
        "queue.limit": "got true, wanted a whole number",
        "queue.workers.btch": "got 'btch', wanted 'interactive', 'normal' or 'batch'",
        "defaults.keep_alive": """got '5 mins', wanted a duration: "30s", "5m", "1h30m", a number of seconds, """
        "0 (unload at once) or -1 (for ever)",
        "defaults.other": "got 5, wanted a string",
        "models.b.path": "wanted a value: this key is required",
        "models.b.pth": 'no such key; did you mean "path"?',
        "models.b.pin": "got 'yes', wanted true or false",
        "models.c": "got 3, wanted a table",
        "plugins.entry_points": "got 5, wanted true or false or a list",
        "watch.rescan_seconds": "got 0, wanted at least 1",
        "folders[0].task": "got 5, wanted a string",
        "folders[0].aftr": 'no such key; did you mean "after"?',
        "folders[0].after": "got 'x', wanted 'leave', 'done' or 'delete'",
        "folders[1].path": "got 3, wanted a path",
        "folders[1].rules[0].task": "got 'a b', wanted letters, digits, '.', '_' and '-' only",
        "folders[1].rules[0].match[1]": "got 3, wanted a string",
        "folders[1].rules[0].stem": "got '{foo}', wanted a name with only {stem}, {name}, {suffix}, {folder}, "
        "{date}, {time}, {rule} and {task} filled in",
        "folders[1].rules[0].priority": "got 101, wanted at most 100",
    }


def test_a_single_mistake_is_one_line(tmp_path: Path, home: Home) -> None:
    """One mistake needs no heading; a long value is shortened."""
    found = problems(tmp_path, home, f'[log]\nlevel = "{"x" * 500}"')
    assert list(found) == ["log.level"]
    assert len(found["log.level"]) < 150


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[[folders]]\npath="x"\ntask="t"\nrules=[]', "folders[0]"),
        ('[[folders]]\npath="x"\n[[folders]]\npath="./x"', "the file"),
        ('[[folders]]\ntask="t"', "folders[0].path"),
        ('[[folders]]\npath="x"\nmatch="*"', "folders[0].task"),
        ('[[folders]]\npath=""', "folders[0].path"),
        ("folders = 5", "folders"),
        ("models = 5", "models"),
        ("[tasks]\nx = 5", "tasks.x"),
        ("[defaults]\nlm = 5", "defaults.lm"),
    ],
)
def test_a_mistake_is_found_where_it_is(tmp_path: Path, home: Home, text: str, key: str) -> None:
    """Mistakes of shape are told at the key that has them."""
    assert list(problems(tmp_path, home, text)) == [key]


def test_the_first_lane_has_no_share(tmp_path: Path, home: Home) -> None:
    """One step in so many is for those who are passed over; the others are told to the runtime as its option."""
    (tmp_path / "c.toml").write_text("[lanes.batch]\none_step_in = 20\n[lanes.interactive]\nkeep_awake = true\n")
    assert turns(load(tmp_path / "c.toml", home=home).lanes) == {"batch": 20}
    (tmp_path / "c.toml").write_text("[lanes.interactive]\none_step_in = 20\n")
    with pytest.raises(ConfigError, match="normal and batch only"):
        load(tmp_path / "c.toml", home=home)
    (tmp_path / "c.toml").write_text("[lanes.batch]\none_step_in = 2\n")
    with pytest.raises(ConfigError, match="one_step_in"):
        load(tmp_path / "c.toml", home=home)


def test_bad_toml_names_the_line(tmp_path: Path, home: Home) -> None:
    """A syntax error is told with file and line."""
    with pytest.raises(ConfigError, match=r"config.toml: not valid TOML: .*line 2"):
        read_text(tmp_path, home, "a = 1\nb = = 2\n")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A folder, or bytes that are no UTF-8, give one clear sentence."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "latin").write_bytes(b'a = "\xe9"')
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 5\)"):
        read(tmp_path / "latin")


def test_the_environment_overrules_the_file(tmp_path: Path, home: Home) -> None:
    """The two variables win over the file, and are named when they are wrong."""
    config = read_text(tmp_path, home, '[log]\nkeep = 9\nlevel = "error"', MLXD_LOG_LEVEL="DEBUG")
    assert (config.log.level, config.log.keep) == ("debug", 9)
    assert read_text(tmp_path, home, "", MLXD_MEMORY_BUDGET="1GB").memory.budget == 10**9
    found = problems(tmp_path, home, "", MLXD_LOG_LEVEL="loud")
    assert list(found) == ["log.level (from MLXD_LOG_LEVEL)"]


def test_it_is_said_where_a_value_comes_from(tmp_path: Path) -> None:
    """Each key that is set names the file or the variable that sets it."""
    path = tmp_path / "c.toml"
    path.write_text('[log]\nkeep = 1\n[[folders]]\npath = "x"')
    assert origins(path, {"MLXD_LOG_LEVEL": "info"}) == {
        "log.keep": str(path),
        "folders": str(path),
        "log.level": "MLXD_LOG_LEVEL",
    }


def test_unknown_tasks_and_runtimes_are_warnings() -> None:
    """Names that no plugin offers are told with a suggestion, and do not stop anything."""
    config = Config.model_validate(
        {
            "folders": [{"path": "/x", "task": "transcrib"}],
            "tasks": {"generate": {}, "paint": {}},
            "defaults": {"imge": "x"},
            "models": {"m": {"path": "x", "runtime": "whispr"}},
        }
    )
    assert unknown_names(config, tasks=["generate", "transcribe"], runtimes=["lm", "whisper"]) == [
        "folders[0].rules[0].task: no plugin offers the task 'transcrib'; did you mean \"transcribe\"?",
        "tasks.paint: no plugin offers the task 'paint'",
        "defaults.imge: no plugin offers the runtime 'imge'",
        "models.m.runtime: no plugin offers the runtime 'whispr'; did you mean \"whisper\"?",
    ]


# .mlxd.toml


def recipe(folder: Path, text: str) -> Any:
    (folder / ".mlxd.toml").write_text(text)
    return folder_recipe(folder)


def test_a_folder_without_a_recipe_has_none(tmp_path: Path) -> None:
    """No file, no rules; a folder of that name is no recipe either."""
    assert folder_recipe(tmp_path) is None
    (tmp_path / ".mlxd.toml").mkdir()
    assert folder_recipe(tmp_path) is None


def test_a_recipe_is_one_rule_or_several(tmp_path: Path) -> None:
    """One rule's keys may stand directly in the file."""
    (one,) = recipe(tmp_path, 'task = "transcribe"\nafter = "done"').rules
    assert (one.task, one.after) == ("transcribe", After.DONE)
    several = recipe(tmp_path, '[[rules]]\ntask = "a"\n[[rules]]\ntask = "b"').rules
    assert [rule.task for rule in several] == ["a", "b"]


def test_a_recipe_without_a_task_changes_the_rules_it_inherits(tmp_path: Path) -> None:
    """Its keys are checked as a rule's are; it brings no rule of its own."""
    found = recipe(tmp_path, 'after = "done"\n[subfolders]\nde = { language = "de" }')
    assert (found.rules, found.said) == ((), {"after": After.DONE})
    assert found.subfolders == {"de": {"language": "de"}}
    with pytest.raises(ConfigError, match="after: got 'x'"):
        recipe(tmp_path, 'after = "x"')


@pytest.mark.parametrize("output", ["/etc", "../x", "a/../../x", "~/x"])
def test_a_recipe_may_not_write_elsewhere(tmp_path: Path, output: str) -> None:
    """Outputs stay in the folder: a recipe may come from anywhere."""
    with pytest.raises(ConfigError, match=r"output: got .*inside this one"):
        recipe(tmp_path, f'task = "x"\noutput = "{output}"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path = "/etc"\ntask = "x"', "path: no such key"),
        ('task = "x"\nagain = true', "again: no such key"),
        ("", "rules: wanted a value"),
        ("rules = []", "rules: got"),
        ("task = ", "not valid TOML"),
        ("task = " + 2000 * "[", "not valid TOML: brackets are nested too deeply"),
        ("x" * 70_000, "too large"),
    ],
)
def test_a_broken_recipe_is_told(tmp_path: Path, text: str, message: str) -> None:
    """A recipe has rules and nothing else; a mistake names the file and the key."""
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}/.mlxd.toml") + f".*{message}"):
        recipe(tmp_path, text)


def test_a_recipe_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are a mistake like another."""
    (tmp_path / ".mlxd.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        folder_recipe(tmp_path)


def test_a_link_is_no_recipe(tmp_path: Path) -> None:
    """A link is not followed: it could point anywhere."""
    (tmp_path / "real.toml").write_text('task = "x"')
    (tmp_path / ".mlxd.toml").symlink_to(tmp_path / "real.toml")
    assert folder_recipe(tmp_path) is None


# The document.


def tables() -> list[tuple[str, type[BaseModel]]]:
    return [
        ("[memory]", configuration.MemoryConfig),
        ("[models.<name>]", configuration.ModelConfig),
        ("[defaults]", configuration.DefaultsConfig),
        ("[[folders]]", FolderConfig),
        ("[[folders.rules]]", RuleConfig),
        ("[watch]", configuration.WatchConfig),
        ("[queue]", configuration.QueueConfig),
        ("[[schedules]]", ScheduleConfig),
        ("[lanes.<lane>]", LaneConfig),
        ("[[notify]]", NotifyConfig),
        ("[runner]", configuration.RunnerConfig),
        ("[plugins]", configuration.PluginsConfig),
        ("[shortcuts.<name>]", ShortcutConfig),
        ("[log]", configuration.LogConfig),
    ]


def rows(heading: str) -> dict[str, str]:
    """Return key -> row of the table under *heading* in the document."""
    section = re.split(r"\n#{2,3} ", DOCUMENT.read_text())
    text = next(part for part in section if part.startswith(heading))
    return {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", text, re.MULTILINE)}


@pytest.mark.parametrize(("heading", "model"), tables())
def test_every_key_is_documented(heading: str, model: type[BaseModel]) -> None:
    """Each key has a row with an example under its table's heading, and no row is of a key that is gone."""
    found = rows(f"`{heading}`")
    assert set(found) == set(model.model_fields)
    lacking = [key for key, row in found.items() if "Example:" not in row and key != "rules"]
    assert lacking == []


def test_every_table_is_documented() -> None:
    """Each key of the whole file is a heading or a row."""
    headings = re.findall(r"^#{2,3} `\[+(\w+)", DOCUMENT.read_text(), re.MULTILINE)
    assert set(headings) | set(rows("Other keys")) == set(Config.model_fields)


def test_documented_defaults_are_the_defaults(tmp_path: Path, home: Home) -> None:
    """A default that the document gives as a TOML value is what comes out without it."""
    import tomllib

    for heading, model in tables():
        for key, row in rows(f"`{heading}`").items():
            shown = re.fullmatch(r"`([^`]+)`", row.split(" | ")[2])
            if shown is None or shown[1].startswith("defaults."):
                continue
            given = {key: tomllib.loads(f"x = {shown[1]}")["x"]}
            needed = {"path": "/x", "task": "t", "name": "n", "cron": "@daily"}
            base = {name: value for name, value in needed.items() if name in model.model_fields}
            plain = model.model_validate(base)
            if getattr(plain, key) in ("", None):
                continue  # filled in where it is used
            assert getattr(model.model_validate({**base, **given}), key) == getattr(plain, key), (heading, key)


def test_the_documented_examples_are_valid(tmp_path: Path, home: Home) -> None:
    """Every example of a key, and the long one, is accepted as it stands."""
    document = DOCUMENT.read_text()
    example = re.search(r"## An example\n\n```toml\n(.*?)```", document, re.DOTALL)
    assert example is not None
    read_text(tmp_path, home, example[1])
    for heading, model in tables():
        for key, row in rows(f"`{heading}`").items():
            if found := re.search(r"Example: `(.+?)` \|$", row):
                text = found[1]
                needed = {"path": 'path = "/x"', "task": 'task = "t"'}
                lines = [text, *(line for name, line in needed.items() if name in model.model_fields and name != key)]
                table = heading.replace("<name>", "example").replace("<lane>", "batch")
                if table == "[[folders.rules]]":
                    lines = ["[[folders]]", 'path = "/y"', table, *lines]
                else:
                    lines = [table, *lines]
                if model is ScheduleConfig:
                    lines += ['name = "n"'] if key != "name" else []
                    lines += ['cron = "@daily"'] if key not in ("cron", "every", "at") else []
                if key.startswith("secret_"):
                    lines.append('url = "https://example.org"')
                if model is FolderConfig:
                    lines = [line for line in lines if not line.startswith("task")]
                read_text(tmp_path, home, "\n".join(lines))
