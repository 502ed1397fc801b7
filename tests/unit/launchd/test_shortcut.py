"""`launchd.shortcut`: unsigned shortcuts, and how they get signed and imported."""

from __future__ import annotations

import plistlib
from pathlib import Path

import pytest
from fakes_shortcuts import FakeMac, Recorder, shells, signing

from daemon.shortcuts import BUILT_IN
from launchd.contract import Answer, ServiceFailure
from launchd.embedded import Takes
from launchd.shortcut import describe, open_for_import, render, sign

GOLDENS = Path(__file__).with_name("goldens")
LAUNCHER = Path("/Users/ada/Library/Application Support/mlxd/state/mlxd-run")

TOP = {
    "WFQuickActionSurfaces": list,
    "WFWorkflowActions": list,
    "WFWorkflowClientVersion": str,
    "WFWorkflowHasOutputFallback": bool,
    "WFWorkflowHasShortcutInputVariables": bool,
    "WFWorkflowIcon": dict,
    "WFWorkflowImportQuestions": list,
    "WFWorkflowInputContentItemClasses": list,
    "WFWorkflowMinimumClientVersion": int,
    "WFWorkflowMinimumClientVersionString": str,
    "WFWorkflowOutputContentItemClasses": list,
    "WFWorkflowTypes": list,
}
SCRIPT = {"CustomOutputName", "Input", "InputMode", "Script", "Shell", "UUID"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_keys_are_those_of_the_app(name: str) -> None:
    """Key for key and type for type; one action, "Run Shell Script", fed with the shortcut's input."""
    read = plistlib.loads(render(BUILT_IN[name], LAUNCHER))
    assert {key: type(value) for key, value in read.items()} == TOP
    (action,) = read["WFWorkflowActions"]
    assert action["WFWorkflowActionIdentifier"] == "is.workflow.actions.runshellscript"
    parameters = action["WFWorkflowActionParameters"]
    assert set(parameters) == SCRIPT
    assert parameters["Input"] == {
        "Value": {"Type": "ExtensionInput"},
        "WFSerializationType": "WFTextTokenAttachment",
    }
    assert parameters["InputMode"] == ("to stdin" if BUILT_IN[name].takes is Takes.TEXT else "as arguments")
    assert 0 <= read["WFWorkflowIcon"]["WFWorkflowIconStartColor"] <= 0xFFFFFFFF
    assert str(read["WFWorkflowMinimumClientVersion"]) == read["WFWorkflowMinimumClientVersionString"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_files_are_binary_and_what_they_were(name: str) -> None:
    """Some versions of `shortcuts sign` refuse XML; and byte for byte the committed file."""
    data = render(BUILT_IN[name], LAUNCHER)
    assert data.startswith(b"bplist00")
    assert plistlib.loads(data) == describe(BUILT_IN[name], LAUNCHER)
    assert data == (GOLDENS / f"{BUILT_IN[name].title}.shortcut").read_bytes()


@pytest.mark.parametrize("shell", shells())
def test_its_script_hands_the_result_on(shell: str, tmp_path: Path) -> None:
    """The text is printed for the next action, and nothing is put beside a file that may lie in a passing folder."""
    recorder = Recorder(tmp_path)
    (action,) = describe(BUILT_IN["transcribe"], recorder.launcher)["WFWorkflowActions"]
    script = action["WFWorkflowActionParameters"]["Script"]
    done = recorder.run(script, by=shell, names=["a b", "-x"])
    assert done.stdout == b"result"
    assert recorder.argv == [b"transcribe", b"--", b"a b", b"-x"]


def test_signing_tries_anyone_first(tmp_path: Path) -> None:
    """If Apple's service works the file can be given to anybody."""
    (unsigned := tmp_path / "in.shortcut").write_bytes(b"x")
    mac = FakeMac(shortcuts=signing("anyone", "people-who-know-me"))
    assert sign(unsigned, tmp_path / "out.shortcut", run=mac) == "anyone"
    assert (tmp_path / "out.shortcut").read_bytes() == b"AEA1x"
    files = ["--input", str(unsigned), "--output", str(tmp_path / "out.shortcut")]
    assert mac.calls("shortcuts") == [["sign", "--mode", "anyone", *files]]


def test_signing_falls_back(tmp_path: Path) -> None:
    """If the service fails (500) the file is signed for the people who know the person."""
    (unsigned := tmp_path / "in.shortcut").write_bytes(b"x")
    mac = FakeMac(shortcuts=signing("people-who-know-me"))
    assert sign(unsigned, tmp_path / "out.shortcut", run=mac) == "people-who-know-me"
    assert [call[2] for call in mac.calls("shortcuts")] == ["anyone", "people-who-know-me"]


def test_a_signature_that_is_not_there_is_none(tmp_path: Path) -> None:
    """Status 0 without a file counts as a failure, and an old file does not count as the new one."""
    (unsigned := tmp_path / "in.shortcut").write_bytes(b"x")
    (tmp_path / "out.shortcut").write_bytes(b"old")
    with pytest.raises(ServiceFailure, match=r"could not be signed: it ended with 0\. Are you logged in to iCloud"):
        sign(unsigned, tmp_path / "out.shortcut", run=FakeMac())
    with pytest.raises(ServiceFailure, match=r"couldn't be completed\. \(500\)"):
        sign(unsigned, tmp_path / "out.shortcut", run=FakeMac(shortcuts=signing()))


def test_without_the_program_it_says_so_at_once(tmp_path: Path) -> None:
    """127 is no reason to try the other mode."""
    mac = FakeMac(shortcuts=Answer(127, "", ""))
    with pytest.raises(ServiceFailure, match="macOS 12") as caught:
        sign(tmp_path / "in", tmp_path / "out", run=mac)
    assert caught.value.code == 127
    assert len(mac.asked) == 1


def test_opening_is_asked_of_the_system(tmp_path: Path) -> None:
    """Import is a click of the person's; if nothing opens they are told to double-click."""
    open_for_import(tmp_path / "a b.shortcut", run=(mac := FakeMac()))
    assert mac.asked == [["/usr/bin/open", str(tmp_path / "a b.shortcut")]]
    with pytest.raises(ServiceFailure, match="double-click"):
        open_for_import(tmp_path / "x", run=FakeMac(open=Answer(1, "", "")))
