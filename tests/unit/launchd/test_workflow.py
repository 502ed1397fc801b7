"""`launchd.workflow`: bundles key for key as Automator saves them, and byte for byte as they were."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fakes_shortcuts import FakeMac

from daemon.shortcuts import BUILT_IN
from launchd.contract import Answer
from launchd.embedded import Action, Gives, Takes, command
from launchd.workflow import FOLDER_ACTION, PBS, bundle, document, info, update_services

GOLDENS = Path(__file__).with_name("goldens")
LAUNCHER = Path("/Users/ada/Library/Application Support/mlxd/state/mlxd-run")

#: What Automator itself saves for one "Run Shell Script", with the type of each value.
ACTION = {
    "AMAccepts": {"Container": str, "Optional": bool, "Types": [str]},
    "AMActionVersion": str,
    "AMApplication": [str],
    "AMParameterProperties": {
        "COMMAND_STRING": {},
        "CheckedForUserDefaultShell": {},
        "inputMethod": {},
        "shell": {},
        "source": {},
    },
    "AMProvides": {"Container": str, "Types": [str]},
    "ActionBundlePath": str,
    "ActionName": str,
    "ActionParameters": {
        "COMMAND_STRING": str,
        "CheckedForUserDefaultShell": bool,
        "inputMethod": int,
        "shell": str,
        "source": str,
    },
    "BundleIdentifier": str,
    "CFBundleVersion": str,
    "CanShowSelectedItemsWhenRun": bool,
    "CanShowWhenRun": bool,
    "Category": [str],
    "Class Name": str,
    "InputUUID": str,
    "OutputUUID": str,
    "UUID": str,
    "UnlocalizedApplications": [str],
    "arguments": {},
    "isViewVisible": int,
    "nibPath": str,
}
TEXT_META = {
    "applicationBundleIDsByPath": {},
    "applicationPaths": [],
    "inputTypeIdentifier": str,
    "outputTypeIdentifier": str,
    "presentationMode": int,
    "processesInput": bool,
    "serviceInputTypeIdentifier": str,
    "serviceOutputTypeIdentifier": str,
    "serviceProcessesInput": bool,
    "systemImageName": str,
    "useAutomaticInputType": bool,
    "workflowTypeIdentifier": str,
}
FILES_META = {
    **TEXT_META,
    "applicationBundleIDsByPath": {"/System/Library/CoreServices/Finder.app": str},
    "applicationPaths": [str],
    "serviceApplicationBundleID": str,
    "serviceApplicationPath": str,
}
DOCUMENT = {
    "AMApplicationBuild": str,
    "AMApplicationVersion": str,
    "AMDocumentVersion": str,
    "actions": [{"action": ACTION, "isViewVisible": int}],
    "connectors": {},
}


def shape(value: Any) -> Any:
    """Return the keys and types of a property list."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_workflow_is_automators_key_for_key(name: str) -> None:
    """No key more, none less, each with a value of the right type: a text or a number for a truth is ignored."""
    action = BUILT_IN[name]
    meta = TEXT_META if action.takes is Takes.TEXT else FILES_META
    assert shape(document(action, LAUNCHER)) == {**DOCUMENT, "workflowMetaData": meta}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_bundles_are_what_they_were(name: str) -> None:
    """Byte for byte the committed ones, so that a change of a bundle is seen in a change of a file."""
    action = BUILT_IN[name]
    for inner, data in bundle(action, LAUNCHER).items():
        assert data == (GOLDENS / f"{action.title}.workflow" / inner).read_bytes(), inner


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_bundle_survives_the_round_trip(name: str) -> None:
    """What was written is what is read, and writing it again gives the same bytes."""
    action = BUILT_IN[name]
    files = bundle(action, LAUNCHER)
    assert plistlib.loads(files["Contents/document.wflow"]) == document(action, LAUNCHER)
    assert plistlib.loads(files["Contents/Info.plist"]) == info(action)
    assert bundle(action, LAUNCHER) == files
    assert sorted(files) == ["Contents/Info.plist", "Contents/document.wflow"]


def test_another_parser_reads_the_same(tmp_path: Path) -> None:
    """libplist, which is not Python's parser, turns each golden into the same values."""
    if (plistutil := shutil.which("plistutil")) is None:
        pytest.skip("plistutil is not installed: one parser less is asked")
    out = tmp_path / "out.plist"
    files = [path for path in sorted(GOLDENS.rglob("*")) if path.is_file()]
    assert len(files) == 3 * len(BUILT_IN)
    for path in files:
        subprocess.run([plistutil, "-i", path, "-o", out, "-f", "xml"], check=True, capture_output=True, timeout=30)
        assert plistlib.loads(out.read_bytes()) == plistlib.loads(path.read_bytes()), path


def test_files_are_arguments_and_text_is_standard_input() -> None:
    """1 and 0; the command is the one that the tests of `launchd.embedded` execute."""
    for action in BUILT_IN.values():
        parameters = document(action, LAUNCHER)["actions"][0]["action"]["ActionParameters"]
        assert parameters["inputMethod"] == (0 if action.takes is Takes.TEXT else 1)
        assert parameters["COMMAND_STRING"] == command(action, LAUNCHER)
        assert parameters["shell"] == "/bin/sh"


def test_where_each_is_offered() -> None:
    """Recordings and folders in Finder, text everywhere; only the replacing one promises a result."""
    services = {name: info(action)["NSServices"][0] for name, action in BUILT_IN.items()}
    assert services["transcribe"]["NSSendFileTypes"] == ["public.audio", "public.movie"]
    assert services["prompts"]["NSSendFileTypes"] == ["public.folder"]
    for name in ("transcribe", "prompts"):
        assert services[name]["NSRequiredContext"] == {"NSApplicationIdentifier": "com.apple.finder"}
        assert not {"NSSendTypes", "NSReturnTypes"} & set(services[name])
    for name in ("summarise", "copy-summary"):
        assert services[name]["NSSendTypes"] == ["public.utf8-plain-text"]
        assert not {"NSRequiredContext", "NSSendFileTypes"} & set(services[name])
    assert services["summarise"]["NSReturnTypes"] == ["public.utf8-plain-text"]
    assert "NSReturnTypes" not in services["copy-summary"]
    assert {one["NSMessage"] for one in services.values()} == {"runWorkflowAsService"}


def test_what_a_title_says_stays_a_title() -> None:
    """XML and shell in a title change nothing but the title."""
    action = Action(title="<string> $(x) & 'y' ]]>", task="x", takes=Takes.TEXT, gives=Gives.REPLACE)
    files = bundle(action, LAUNCHER)
    read = plistlib.loads(files["Contents/Info.plist"])
    assert read["NSServices"][0]["NSMenuItem"] == {"default": action.title}
    script = plistlib.loads(files["Contents/document.wflow"])["actions"][0]["action"]["ActionParameters"]
    assert "$(x)" not in script["COMMAND_STRING"]


def test_a_folder_action_is_the_same_workflow_of_another_type() -> None:
    """It has no menu, so no Info.plist; the type is in camel case."""
    action = BUILT_IN["transcribe"]
    files = bundle(action, LAUNCHER, kind=FOLDER_ACTION)
    assert sorted(files) == ["Contents/document.wflow"]
    read = plistlib.loads(files["Contents/document.wflow"])
    assert read["workflowMetaData"] == {"workflowTypeIdentifier": "com.apple.Automator.folderAction"}
    assert read["actions"] == document(action, LAUNCHER)["actions"]


def test_the_system_is_told() -> None:
    """By pbs; if that fails they appear at the next login, which is no error."""
    assert update_services(mac := FakeMac())
    assert mac.asked == [[PBS, "-update"]]
    assert not update_services(FakeMac(pbs=Answer(127, "", "")))
