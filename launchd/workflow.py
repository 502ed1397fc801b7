"""Quick Actions and Services: the ``.workflow`` bundles of Automator, with one "Run Shell Script" in them.

Apple documents the two files of a bundle nowhere. The keys are those that Automator itself saves, and that generators
seen to work on macOS 26 write: ``Contents/Info.plist`` offers the service, ``Contents/document.wflow`` is the workflow.
"""

from __future__ import annotations

import plistlib
import uuid
from pathlib import Path
from typing import Any, Final

from launchd.contract import Run, run_command
from launchd.embedded import Action, Gives, Takes, command

#: The only type that appears in the menus ("quickAction" does not).
SERVICE: Final = "com.apple.Automator.servicesMenu"
#: Camel case, with a capital A in the middle.
FOLDER_ACTION: Final = "com.apple.Automator.folderAction"
#: Makes the system look for new services. What it prints is of no use to anybody.
PBS: Final = "/System/Library/CoreServices/pbs"

_TEXT: Final = "public.utf8-plain-text"
_FINDER: Final = "/System/Library/CoreServices/Finder.app"
_FINDER_ID: Final = "com.apple.finder"
_BUNDLE: Final = "/System/Library/Automator/Run Shell Script.action"
#: For both kinds of input: reads no file of the person's before the command, as zsh does.
_SHELL: Final = "/bin/sh"
_STDIN, _ARGUMENTS = 0, 1
#: Same action, same file: a bundle that was written twice is byte for byte the same.
_NAMESPACE: Final = uuid.UUID("6d6c7864-0000-5000-8000-73686f727473")


def identifier(action: Action, what: str) -> str:
    """Return a UUID for *what* in *action*, the same each time."""
    return str(uuid.uuid5(_NAMESPACE, f"{action.title}/{what}")).upper()


def bundle(action: Action, launcher: Path, *, kind: str = SERVICE) -> dict[str, bytes]:
    """Return the files of the bundle of *action*, by their path in it; *kind* is `SERVICE` or `FOLDER_ACTION`."""
    files = {"Contents/document.wflow": _dump(document(action, launcher, kind=kind))}
    if kind == SERVICE:
        files["Contents/Info.plist"] = _dump(info(action))
    return files


def update_services(run: Run = run_command) -> bool:
    """Have the system notice new and removed services; False means that they appear at the next login."""
    return run([PBS, "-update"]).code == 0


def info(action: Action) -> dict[str, Any]:
    """Return ``Info.plist``: in which menus, for what, and whether the result replaces the selection."""
    service: dict[str, Any] = {
        "NSMenuItem": {"default": action.title},
        "NSMessage": "runWorkflowAsService",
        "NSIconName": "NSActionTemplate",
        "NSBackgroundColorName": "background",
    }
    if action.takes is Takes.TEXT:
        service["NSSendTypes"] = [_TEXT]
        if action.gives is Gives.REPLACE:
            service["NSReturnTypes"] = [_TEXT]
    else:
        service["NSRequiredContext"] = {"NSApplicationIdentifier": _FINDER_ID}
        service["NSSendFileTypes"] = ["public.folder"] if action.takes is Takes.FOLDER else list(action.types)
    return {"NSServices": [service]}


def document(action: Action, launcher: Path, *, kind: str = SERVICE) -> dict[str, Any]:
    """Return ``document.wflow``."""
    return {
        "AMApplicationBuild": "528",
        "AMApplicationVersion": "2.10",
        "AMDocumentVersion": "2",
        "actions": [{"action": _shell_script(action, launcher), "isViewVisible": 1}],
        "connectors": {},
        "workflowMetaData": _service(action) if kind == SERVICE else {"workflowTypeIdentifier": kind},
    }


def _shell_script(action: Action, launcher: Path) -> dict[str, Any]:
    strings = {"Container": "List", "Types": ["com.apple.cocoa.string"]}
    parameters = {
        "COMMAND_STRING": command(action, launcher),
        "CheckedForUserDefaultShell": True,
        "inputMethod": _STDIN if action.takes is Takes.TEXT else _ARGUMENTS,
        "shell": _SHELL,
        "source": "",
    }
    return {
        "AMAccepts": {**strings, "Optional": True},
        "AMActionVersion": "2.0.3",
        "AMApplication": ["Automator"],
        "AMParameterProperties": {name: {} for name in parameters},
        "AMProvides": strings,
        "ActionBundlePath": _BUNDLE,
        "ActionName": "Run Shell Script",
        "ActionParameters": parameters,
        "BundleIdentifier": "com.apple.RunShellScript",
        "CFBundleVersion": "2.0.3",
        "CanShowSelectedItemsWhenRun": False,
        "CanShowWhenRun": True,
        "Category": ["AMCategoryUtilities"],
        "Class Name": "RunShellScriptAction",
        "InputUUID": identifier(action, "input"),
        "OutputUUID": identifier(action, "output"),
        "UUID": identifier(action, "action"),
        "UnlocalizedApplications": ["Automator"],
        "arguments": {},
        "isViewVisible": 1,
        "nibPath": f"{_BUNDLE}/Contents/Resources/Base.lproj/main.nib",
    }


def _service(action: Action) -> dict[str, Any]:
    files = action.takes is not Takes.TEXT
    kind = "fileSystemObject" if files else "text"
    given = "text" if action.gives is Gives.REPLACE else "nothing"
    return {
        "applicationBundleIDsByPath": {_FINDER: _FINDER_ID} if files else {},
        "applicationPaths": [_FINDER] if files else [],
        **({"serviceApplicationBundleID": _FINDER_ID, "serviceApplicationPath": _FINDER} if files else {}),
        "inputTypeIdentifier": f"com.apple.Automator.{kind}",
        "outputTypeIdentifier": f"com.apple.Automator.{given}",
        "serviceInputTypeIdentifier": f"com.apple.Automator.{kind}",
        "serviceOutputTypeIdentifier": f"com.apple.Automator.{given}",
        "presentationMode": 15 if files else 11,
        "processesInput": False,
        "serviceProcessesInput": False,
        "systemImageName": "NSActionTemplate",
        "useAutomaticInputType": False,
        "workflowTypeIdentifier": SERVICE,
    }


def _dump(value: dict[str, Any]) -> bytes:
    return plistlib.dumps(value, sort_keys=True)
