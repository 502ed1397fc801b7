"""`daemon.cli.handing`: what is handed over becomes jobs, file by file, and nothing is guessed."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from fakes_shortcuts import hostile_names

from daemon.cli.asking import Asked
from daemon.cli.handing import existing, hand_over
from jobs.errors import InvalidInput, InvalidParams


class Stdin:
    """Standard input with *data* in it; ``closed`` and a terminal on request."""

    def __init__(self, data: bytes = b"", *, tty: bool = False, closed: bool = False) -> None:
        self.buffer = io.BufferedReader(io.BytesIO(data))
        self.closed = closed
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@pytest.fixture(autouse=True)
def _stdin(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(tty=True))


@pytest.fixture(name="here")
def _here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bodies(
    task: str, *files: str, cache: Path = Path("/nowhere"), beside: bool = False, **said: Any
) -> list[dict[str, Any]]:
    handed = hand_over(Asked(task=task, **said), files, beside=beside, waiting=True, cache=cache)
    return [one.body for one in handed]


def test_hostile_relative_names_become_the_paths_that_exist(here: Path) -> None:
    """300 files: whatever they are called, the daemon is told the absolute path of that very file."""
    names = [name for name in hostile_names(330, seed=3) if "/" not in name and name != "-"][:300]
    for name in names:
        (here / name).write_bytes(name.encode())
    for name, body in zip(names, bodies("transcribe", *names), strict=True):
        told = Path(body["params"]["file"])
        assert told.is_absolute()
        assert told.samefile(here / name)
        assert os.fsencode(told) == os.fsencode(here / name)


def test_a_single_dash_is_standard_input_and_a_file_with_a_folder(here: Path, monkeypatch) -> None:
    """As everywhere: a file of that name is ./- ."""
    (here / "-").write_text("x")
    monkeypatch.setattr(sys, "stdin", Stdin(b"text"))
    assert bodies("generate", "-")[0]["params"] == {"prompt": "text"}
    assert bodies("generate", "./-")[0]["params"] == {"file": str(here / "-")}


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_composed_and_decomposed_names_are_the_same_file(here: Path, form: str, on_disk: str) -> None:
    """Finder, the terminal and the disk may write an umlaut differently; the daemon is told how the disk does."""
    folder, name = "Gru\u0308\u00dfe", "\u00fcbung e\u0301 \uac00.m4a"
    place = here / unicodedata.normalize(on_disk, folder)
    place.mkdir()
    (file := place / unicodedata.normalize(on_disk, name)).write_text("x")
    told = existing(f"{unicodedata.normalize(form, folder)}/{unicodedata.normalize(form, name)}")
    assert os.fsencode(told) == os.fsencode(file)


def test_an_exact_name_goes_before_a_twin(here: Path) -> None:
    """Where the disk tells composed from decomposed, the file that was named is the one."""
    for form in ("NFC", "NFD"):
        (here / unicodedata.normalize(form, "\u00fc")).write_text(form)
    for form in ("NFC", "NFD"):
        assert existing(unicodedata.normalize(form, "\u00fc")).read_text() in {form, "NFD"}


def test_a_tilde_is_the_home_unless_a_file_is_called_so(here: Path, monkeypatch) -> None:
    """Hazel and Raycast hand over ~/x as it is typed."""
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "home").mkdir()
    (here / "home" / "x").write_text("")
    assert existing("~/x") == here / "home" / "x"
    (here / "~").mkdir()
    (here / "~" / "x").write_text("")
    assert existing("~/x") == here / "~" / "x"


def test_links_are_not_resolved(here: Path) -> None:
    """The person chose the link, and outputs are named after it."""
    (here / "real").write_text("")
    (here / "link").symlink_to("real")
    assert existing("link") == here / "link"
    (here / "broken").symlink_to("nothing")
    with pytest.raises(InvalidInput, match="There is no file broken"):
        existing("broken")


@pytest.mark.parametrize("name", ["", "no such file", "x" * 5000, "no/such/folder", "file/below"])
def test_what_is_not_there_is_said_and_never_taken_for_text(here: Path, name: str) -> None:
    """`mlxd submit generate "a b"` is a prompt; here it would be a mistake of the caller's."""
    (here / "file").write_text("")
    with pytest.raises(InvalidInput):
        bodies("generate", name)


def test_one_missing_file_leaves_the_others_alone(here: Path) -> None:
    """All are looked at before the first is submitted."""
    (here / "a").write_text("")
    with pytest.raises(InvalidInput, match="There is no file b"):
        bodies("transcribe", "a", "b")


def test_a_name_that_is_no_text_is_refused(here: Path) -> None:
    """Bytes that are not UTF-8 cannot be told to the daemon; the sentence says to rename it."""
    try:
        Path(os.fsdecode(os.fsencode(here) + b"/\xff")).write_text("")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InvalidInput, match="Rename"):
        bodies("generate", "\udcff")


def test_folders(here: Path) -> None:
    """A folder is a batch's; a task for files says what to call instead; a plugin's task decides itself."""
    (here / "in").mkdir()
    assert bodies("batch", "in")[0]["params"] == {"folder": str(here / "in")}
    assert bodies("noop", "in")[0]["params"] == {"folder": str(here / "in")}
    with pytest.raises(InvalidInput, match="mlxd run-task batch"):
        bodies("transcribe", "in")


def test_where_the_results_go(here: Path) -> None:
    """Beside each file, beside a folder of prompts, into a folder, or wherever the daemon keeps them."""
    for place in ("one", "two", "prompts"):
        (here / place).mkdir()
    (here / "one" / "a").write_text("")
    (here / "two" / "b").write_text("")
    placed = [body["placement"] for body in bodies("transcribe", "one/a", "two/b", beside=True)]
    assert placed == [{"directory": str(here / "one")}, {"directory": str(here / "two")}]
    assert bodies("batch", "prompts", beside=True)[0]["placement"] == {"directory": str(here / "prompts results")}
    assert bodies("transcribe", "one/a", output="out")[0]["placement"] == {"directory": str(here / "out")}
    assert bodies("transcribe", "one/a")[0]["placement"] == {}


def test_parameters_and_lanes(here: Path) -> None:
    """A single answer goes first, many do not; pairs win over the object; the model is a parameter."""
    (here / "a").write_text("")
    (one,) = bodies("generate", "a", params_json='{"seed": 1, "stop": ["x"]}', pairs=("seed=2",), model="m")
    assert one["params"] == {"seed": 2, "stop": ["x"], "model": "m", "file": str(here / "a")}
    assert one["lane"] == "interactive"
    assert {body["lane"] for body in bodies("generate", "a", "a")} == {"normal"}
    assert {body["lane"] for body in bodies("batch", "a", "a")} == {"batch"}
    assert bodies("generate", "a", lane="batch")[0]["lane"] == "batch"
    with pytest.raises(InvalidParams, match="given twice"):
        bodies("generate", "a", pairs=("prompt=x",))


def test_text_on_standard_input(monkeypatch) -> None:
    """Without files and without a terminal it is the input; `generate` calls it the prompt."""
    monkeypatch.setattr(sys, "stdin", Stdin("Gr\u00fc\u00dfe\n".encode()))
    assert bodies("generate")[0]["params"] == {"prompt": "Gr\u00fc\u00dfe\n"}
    monkeypatch.setattr(sys, "stdin", Stdin(b"a"))
    assert bodies("pipeline", pairs=('steps=[{"task":"x"}]',))[0]["params"]["text"] == "a"


def test_a_recording_on_standard_input(monkeypatch, tmp_path: Path) -> None:
    """It is put down where the daemon finds it, which removes it afterwards."""
    monkeypatch.setattr(sys, "stdin", Stdin(b"RIFF"))
    (body,) = bodies("transcribe", cache=tmp_path)
    assert Path(body["params"]["file"]).read_bytes() == b"RIFF"
    assert body["placement"]["after"] == "delete"


@pytest.mark.parametrize("stdin", [None, Stdin(), Stdin(tty=True), Stdin(b"x", closed=True)])
def test_nothing_at_all(stdin: Stdin | None, monkeypatch) -> None:
    """Tasks that need an input say so, at once; others run without one, and so do those that have it as a parameter."""
    monkeypatch.setattr(sys, "stdin", stdin)
    for task in ("generate", "transcribe", "memo", "batch"):
        with pytest.raises(InvalidInput, match="nothing to work on"):
            bodies(task)
    assert bodies("noop")[0]["params"] == {}
    assert bodies("batch", pairs=("folder=/x",))[0]["params"] == {"folder": "/x"}
    monkeypatch.setattr(sys, "stdin", Stdin(b"never read"))
    assert bodies("generate", pairs=("prompt=x",))[0]["params"] == {"prompt": "x"}


def test_an_explicit_dash_must_bring_something(monkeypatch) -> None:
    """Empty, blank or not UTF-8 is said."""
    for data in (b"", b" \n", b"\xff"):
        monkeypatch.setattr(sys, "stdin", Stdin(data))
        with pytest.raises(InvalidInput, match="Standard input"):
            bodies("generate", "-")
