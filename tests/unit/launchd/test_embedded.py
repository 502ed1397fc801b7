"""`launchd.embedded`: the shell command, executed; 2,000 names that would break a careless one."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
from pathlib import Path

import pytest
from fakes_shortcuts import Recorder, hostile_names, shells

from launchd.embedded import Action, Gives, Takes, command, launcher_text

PARAMS = {"template": 'It\'s "so":\n{text} $(touch hit) `touch hit` \u00fc', "max_tokens": 5}
FILES = Action(title="Files", task="transcribe", takes=Takes.FILES, params=PARAMS, beside=True)
TEXT = Action(title="Text", task="generate", takes=Takes.TEXT, params=PARAMS)


def fixed(action: Action) -> list[bytes]:
    """Return what comes before the input."""
    words = [action.task, "--params", json.dumps(PARAMS, sort_keys=True), *(["--beside"] if action.beside else [])]
    return [word.encode() for word in words]


@pytest.mark.parametrize("shell", shells())
def test_two_thousand_hostile_names_arrive_byte_for_byte(shell: str, tmp_path: Path) -> None:
    """Under env -i every name is exactly one argument, in order, and none of them is run or taken for an option."""
    recorder, names, rng = Recorder(tmp_path), hostile_names(2000), random.Random(2)
    script = command(FILES, recorder.launcher)
    while names:
        some, names = names[: (size := rng.randint(1, 60))], names[size:]
        done = recorder.run(script, by=shell, names=some, text=b"not the input")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"result", b"told\n")
        assert recorder.argv == [*fixed(FILES), b"--", *(name.encode() for name in some)]
        assert recorder.stdin == b"", "with files standard input is not read"
    assert not recorder.escaped


def test_a_command_put_together_from_strings_fails_the_same_test(tmp_path: Path) -> None:
    """The control: names pasted into the command are split, changed and run, and the test above would see it."""
    recorder, names = Recorder(tmp_path), hostile_names(150)
    wrong = 0
    for name in names:
        done = recorder.run(f"exec {shlex.quote(str(recorder.launcher))} transcribe -- {name}", by="/bin/sh")
        argv = recorder.argv if done.returncode == 0 and recorder.launcher.with_name("argv").exists() else []
        wrong += argv != [b"transcribe", b"--", name.encode()]
    assert wrong > len(names) / 2
    assert recorder.escaped


@pytest.mark.parametrize("shell", shells())
@pytest.mark.parametrize(
    "text",
    ["", "a", "no newline", "two\nlines\n\n", "\u00fc u\u0308 \U0001f399 $(touch hit) 'x' \\n -rf", "x" * 200_000],
)
def test_text_arrives_on_standard_input(shell: str, text: str, tmp_path: Path) -> None:
    """Selected text is what the launcher reads, and what it prints comes back."""
    recorder = Recorder(tmp_path)
    done = recorder.run(command(TEXT, recorder.launcher), by=shell, text=text.encode())
    assert (done.returncode, done.stdout) == (0, b"result")
    assert recorder.argv == [*fixed(TEXT), b"-"]
    assert recorder.stdin == text.encode()
    assert not recorder.escaped


@pytest.mark.parametrize("shell", shells())
def test_a_replacement_brings_no_newline_of_its_own(shell: str, tmp_path: Path) -> None:
    """What replaces a selection is the text alone, whatever is in it."""
    said = "-n \\n %s \u00fc\n  two 'lines' $(touch hit)"
    recorder = Recorder(tmp_path, says=said + "\n")
    action = Action(title="t", task="generate", takes=Takes.TEXT, gives=Gives.REPLACE)
    assert recorder.run(command(action, recorder.launcher), by=shell, text=b"x").stdout == said.encode()
    assert not recorder.escaped


@pytest.mark.parametrize("shell", shells())
def test_the_copy_goes_to_the_clipboard_in_utf8(shell: str, tmp_path: Path) -> None:
    """The result is fed to pbcopy, which is told the encoding; nothing is printed."""
    recorder = Recorder(tmp_path, says="Gr\u00fc\u00dfe\n")
    copier = tmp_path / "pb copy's"
    copier.write_text(f'#!/bin/sh\ncat >"{tmp_path}/clipboard"\necho "$LC_ALL" >"{tmp_path}/locale"\n')
    copier.chmod(0o700)
    action = Action(title="t", task="generate", takes=Takes.TEXT, gives=Gives.COPY)
    done = recorder.run(command(action, recorder.launcher, copier=str(copier)), by=shell, text=b"x")
    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "clipboard").read_text() == "Gr\u00fc\u00dfe"
    assert (tmp_path / "locale").read_text() == "en_US.UTF-8\n"


@pytest.mark.parametrize("shell", shells())
@pytest.mark.parametrize("gives", list(Gives))
def test_a_failure_is_the_commands_failure(shell: str, gives: Gives, tmp_path: Path) -> None:
    """The launcher's status and sentence come through: Automator shows them; nothing is replaced or copied."""
    recorder = Recorder(tmp_path, status=6)
    action = Action(title="t", task="generate", takes=Takes.TEXT, gives=gives)
    done = recorder.run(command(action, recorder.launcher, copier="/bin/echo"), by=shell, text=b"x")
    assert (done.returncode, done.stderr) == (6, b"told\n")
    assert done.stdout == (b"result" if gives is Gives.PRINT else b"")


def test_nothing_selected_is_no_hang(tmp_path: Path) -> None:
    """Without files the launcher gets none, and an empty standard input."""
    recorder = Recorder(tmp_path)
    assert recorder.run(command(FILES, recorder.launcher), by="/bin/sh").returncode == 0
    assert recorder.argv[-1] == b"--"


@pytest.mark.parametrize("title", ["", " ", "a/b", "a:b", "two\nlines", ".hidden", "x" * 201, "\x1b[31m"])
def test_a_title_is_a_file_name(title: str) -> None:
    """What Finder could not show or store is refused before anything is written."""
    with pytest.raises(ValueError, match="cannot be a title"):
        Action(title=title, task="x", takes=Takes.FILES)


def test_files_cannot_be_replaced_by_text() -> None:
    """Only selected text can."""
    with pytest.raises(ValueError, match="only selected text"):
        Action(title="t", task="x", takes=Takes.FILES, gives=Gives.REPLACE)


def test_the_launcher_sets_the_home_and_becomes_the_program(tmp_path: Path) -> None:
    """Whatever the caller's environment is: the home is that of the installation, and the arguments are handed on."""
    program = tmp_path / "it's here"
    program.write_text('#!/bin/sh\necho "$MLXD_HOME|$PYTHONUTF8"; for each do echo "<$each>"; done; exit 7\n')
    program.chmod(0o700)
    launcher = tmp_path / "mlxd-run"
    launcher.write_text(launcher_text((str(program), "-m", "daemon"), {"MLXD_HOME": "/it's \u00fc"}))
    launcher.chmod(0o700)
    words = ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "MLXD_HOME=/other", str(launcher), "a b", "--", "-x"]
    done = subprocess.run(words, capture_output=True, check=False, timeout=30)
    assert done.returncode == 7
    assert done.stdout.decode() == "/it's \u00fc|1\n<-m>\n<daemon>\n<run-task>\n<a b>\n<-->\n<-x>\n"


def test_a_launcher_without_its_program_says_what_to_do(tmp_path: Path) -> None:
    """127 and one sentence."""
    launcher = tmp_path / "mlxd-run"
    launcher.write_text(launcher_text((f"{tmp_path}/it's gone",), {}))
    done = subprocess.run(["/bin/sh", str(launcher)], capture_output=True, check=False, timeout=30)
    assert done.returncode == 127
    assert done.stderr.decode() == (
        f"mlxd is no longer at {tmp_path}/it's gone. Install it again, then run: mlxd shortcuts install\n"
    )
