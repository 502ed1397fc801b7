"""Which rule takes a file, what its job says, and which names are never inputs."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.ignored import is_ignored_file, is_ignored_folder
from daemon.folders.rules import DEFAULT_RULES, choose, fingerprint, new_job, output_folders, rules_of
from jobs.model import After, Lane

FOLDER = FolderConfig(path=Path("/in"))


def rule(**fields: Any) -> RuleConfig:
    return RuleConfig(**{"task": "x", **fields})


def takes(pattern: str | tuple[str, ...], name: str, **fields: Any) -> bool:
    return choose([rule(match=pattern, **fields)], name) is not None


@pytest.mark.parametrize(
    ("pattern", "name", "taken"),
    [
        ("*.wav", "a.wav", True),
        ("*.wav", "A.WAV", True),
        ("*.WAV", "a.wav", True),
        ("*.wav", "deep/er/a.wav", True),
        ("*.wav", "a.wav.txt", False),
        ("*.wav", "awav", False),
        ("memo-?.m4a", "memo-1.m4a", True),
        ("memo-?.m4a", "memo-12.m4a", False),
        ("[ab]*.txt", "b1.txt", True),
        ("[!ab]*.txt", "b1.txt", False),
        ("[a-c]*", "c", True),
        ("[", "[", True),
        ("voice/*.wav", "voice/a.wav", True),
        ("voice/*.wav", "a.wav", False),
        ("voice/*.wav", "voice/x/a.wav", False),
        ("voice/**/*.wav", "voice/x/y/a.wav", True),
        ("voice/**/*.wav", "voice/a.wav", True),
        ("voice/**", "voice/x/y", True),
        ("voice/**", "voices", False),
        ("**/*.wav", "a.wav", True),
        ("/top.txt", "top.txt", True),
        ("/top.txt", "x/top.txt", False),
        ("*/a", "x/a", True),
        ("*/a", "x/y/a", False),
        ("a?b", "a/b", False),
        ("a\nb*", "a\nbc", True),
        ("a.b+c(1)*", "a.b+c(1).txt", True),
        ("*", "anything at all", True),
    ],
)
def test_a_pattern_takes_what_it_says(pattern: str, name: str, taken: bool) -> None:
    """Patterns are for the name at any depth, or with a slash for the whole relative path."""
    assert takes(pattern, name) is taken


def test_accents_are_compared_composed() -> None:
    """A decomposed name (HFS+, some servers) is taken by the pattern a person types, and the other way round."""
    for one, other in (("NFC", "NFD"), ("NFD", "NFC")):
        assert takes(unicodedata.normalize(one, "Café*"), unicodedata.normalize(other, "CAFÉ 1.txt"))


def test_the_first_rule_that_matches_takes_the_file() -> None:
    """Order decides, and what is excluded goes on to the next."""
    rules = [rule(name="1", match="*.wav", exclude=("b*", "x/**")), rule(name="2", match="*")]
    assert [choose(rules, name).name for name in ("a.wav", "b.wav", "x/a.wav", "a.txt")] == ["1", "2", "2", "2"]  # type: ignore[union-attr]
    assert choose(rules[:1], "a.txt") is None


@pytest.mark.parametrize(
    ("task", "taken", "left"),
    [
        ("transcribe", "a.M4A", "a.txt"),
        ("transcribe", "film.mov", "a.wav.txt"),
        ("memo", "a.wav", "a.md"),
        ("generate", "a.md", "a.wav"),
        ("batch", "a.jsonl", "a.txt"),
        ("third-party", "any.thing", None),
    ],
)
def test_a_task_has_its_usual_files(task: str, taken: str, left: str | None) -> None:
    """A rule without patterns takes what suits its task; of an unknown task, everything."""
    assert choose([rule(task=task)], taken)
    assert left is None or choose([rule(task=task)], left) is None


def test_whose_rules_are_in_force() -> None:
    """The folder's own recipe, else the configuration's rules, else the usual ones."""
    configured, own = rule(name="configured"), rule(name="own")
    folder = FolderConfig(path=Path("/in"), rules=(configured,))
    assert rules_of(folder, None) == (configured,)
    assert rules_of(folder, (own,)) == (own,)
    assert rules_of(FOLDER, None) == DEFAULT_RULES
    assert [one.name for one in DEFAULT_RULES] == ["transcribe", "generate"]


def test_a_file_becomes_a_job() -> None:
    """The job says everything of the rule, and the input as an absolute path."""
    made = new_job(
        FOLDER,
        rule(
            name="meetings",
            task="transcribe",
            params={"language": "en", "file": "/etc/passwd"},
            lane="batch",
            priority=3,
            after="done",
        ),
        Path("/in/sub/a b.wav"),
    )
    assert made.task == "transcribe"
    assert made.params == {"language": "en", "file": "/in/sub/a b.wav"}
    assert (made.lane, made.priority) == (Lane.BATCH, 3)
    assert (made.source.kind, made.source.rule, made.source.detail) == ("folder", "meetings", "/in/sub/a b.wav")
    placement = made.placement
    assert placement.directory == Path("/in/sub")
    assert placement.stem == "a b"
    assert placement.input == Path("/in/sub/a b.wav")
    assert placement.after is After.DONE


@pytest.mark.parametrize(
    ("output", "directory"),
    [(None, "/in/sub"), ("beside", "/in/sub"), ("out", "/in/out/sub"), ("/elsewhere", "/elsewhere/sub")],
)
def test_outputs_go_where_the_rule_says(output: str | None, directory: str) -> None:
    """Beside the input, or into the rule's folder with sub-folders mirrored, so that equal names do not meet."""
    made = new_job(FOLDER, rule(output=output), Path("/in/sub/a.wav"))
    assert made.placement.directory == Path(directory)


def test_outputs_are_called_what_the_rule_says() -> None:
    """The template's words are filled in."""
    made = new_job(FOLDER, rule(name="r", stem="{rule}-{task}-{stem}-{suffix}-{name}"), Path("/in/a.b.wav"))
    assert made.placement.stem == "r-x-a.b-wav-a.b.wav"


def test_output_folders_inside_are_known() -> None:
    """Folders of outputs are named relative to the watched one; others, and the folder itself, are not."""
    rules = [rule(output=output) for output in (None, "out", "a/b", "/in/abs", "/else", ".", "/in")]
    assert output_folders(FOLDER, rules) == {"out", "a/b", "abs"}


def test_rules_that_do_the_same_have_the_same_fingerprint() -> None:
    """Task and parameters count, names, patterns and places do not."""
    one = rule(params={"a": 1, "b": 2})
    assert fingerprint(one) == fingerprint(rule(params={"b": 2, "a": 1}, name="n", match="*", output="o"))
    assert fingerprint(one) != fingerprint(rule(params={"a": 1, "b": 3}))
    assert fingerprint(one) != fingerprint(rule(task="y", params={"a": 1, "b": 2}))


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        "._a.wav",
        ".DS_Store",
        ".mlxd.toml",
        ".a.txt.job.mlxd-tmp",
        "a.wav.part",
        "A.WAV.CRDOWNLOAD",
        "a.download",
        "a.tmp",
        "a~",
        ".a.swp",
        "a.aria2",
        "a.!qB",
        "a.opdownload",
        ".a.wav.icloud",
        "~syncthing~a.wav.tmp",
        ".syncthing.a.wav.tmp",
        "~$report.docx",
        "#a#",
        "Thumbs.db",
        "desktop.ini",
        "Icon\r",
        "a.wav.error.txt",
        "x.mlxd-tmp",
    ],
)
def test_such_a_file_is_never_an_input(name: str) -> None:
    """Hidden, half-downloaded, temporary and our own files are left alone."""
    assert is_ignored_file(name)


@pytest.mark.parametrize("name", ["a.wav", "part", "download.txt", "a.parts", "error.txt", "tmp.md", "a~b.txt"])
def test_such_a_file_is_an_input(name: str) -> None:
    """Names that only look a little like it are not ignored."""
    assert not is_ignored_file(name)


@pytest.mark.parametrize("name", ["done", "Done", ".git", "node_modules", "X.app", "P.photoslibrary", "a.download"])
def test_such_a_folder_is_not_looked_into(name: str) -> None:
    """Settled inputs, hidden folders, bundles and downloads under way are left alone."""
    assert is_ignored_folder(name)
    assert not is_ignored_folder(f"a{name}x")
