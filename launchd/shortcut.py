"""Shortcuts: ``.shortcut`` files with one "Run Shell Script" in them, signed on the person's own Mac.

An unsigned file is a binary property list, which `shortcuts sign` takes and nothing imports. Signing for "anyone" asks
Apple's service, which at times fails; signing for the people who know you works without it.
"""

from __future__ import annotations

import dataclasses
import plistlib
from pathlib import Path
from typing import Any, Final

from launchd.contract import Run, ServiceFailure, run_command
from launchd.embedded import Action, Gives, Takes, command
from launchd.workflow import identifier

SHORTCUTS: Final = "/usr/bin/shortcuts"
OPEN: Final = "/usr/bin/open"
#: What a person has to switch on once.
ALLOW: Final = (
    "Once only: in the Shortcuts app, under Settings > Advanced, switch on 'Allow Running Scripts'; without it every "
    "shortcut of this kind stops."
)
#: Tried in this order.
MODES: Final = ("anyone", "people-who-know-me")

_FILES: Final = ["WFAVAssetContentItem", "WFGenericFileContentItem"]
_INPUTS: Final = {Takes.TEXT: ["WFStringContentItem"], Takes.FOLDER: ["WFFolderContentItem"], Takes.FILES: _FILES}
_GLYPH, _COLOUR = 59511, 0x4673_83FF


def describe(action: Action, launcher: Path) -> dict[str, Any]:
    """Return the shortcut of *action*: its text goes to the next action, so no file is put beside the input."""
    script = {
        "CustomOutputName": "Result",
        "Input": {"Value": {"Type": "ExtensionInput"}, "WFSerializationType": "WFTextTokenAttachment"},
        "InputMode": "to stdin" if action.takes is Takes.TEXT else "as arguments",
        "Script": command(dataclasses.replace(action, beside=False), launcher),
        "Shell": "/bin/zsh",
        "UUID": identifier(action, "shortcut"),
    }
    return {
        "WFQuickActionSurfaces": ["Services"],
        "WFWorkflowActions": [
            {
                "WFWorkflowActionIdentifier": "is.workflow.actions.runshellscript",
                "WFWorkflowActionParameters": script,
            }
        ],
        "WFWorkflowClientVersion": "2302.0.4",
        "WFWorkflowHasOutputFallback": False,
        "WFWorkflowHasShortcutInputVariables": True,
        "WFWorkflowIcon": {"WFWorkflowIconGlyphNumber": _GLYPH, "WFWorkflowIconStartColor": _COLOUR},
        "WFWorkflowImportQuestions": [],
        "WFWorkflowInputContentItemClasses": _INPUTS[action.takes],
        "WFWorkflowMinimumClientVersion": 900,
        "WFWorkflowMinimumClientVersionString": "900",
        "WFWorkflowOutputContentItemClasses": [] if action.gives is Gives.COPY else ["WFStringContentItem"],
        "WFWorkflowTypes": ["QuickActions", "ActionExtension"],
    }


def render(action: Action, launcher: Path) -> bytes:
    """Return the unsigned file: binary, because some versions of `shortcuts sign` refuse XML."""
    return plistlib.dumps(describe(action, launcher), fmt=plistlib.FMT_BINARY, sort_keys=True)


def sign(unsigned: Path, signed: Path, *, run: Run = run_command) -> str:
    """Sign *unsigned* into *signed* and return the mode that worked, one of `MODES`.

    Raises:
        ServiceFailure: neither did; says what `shortcuts` said.

    """
    said = ""
    for mode in MODES:
        signed.unlink(missing_ok=True)
        answer = run([SHORTCUTS, "sign", "--mode", mode, "--input", str(unsigned), "--output", str(signed)])
        if answer.code == 0 and signed.is_file():
            return mode
        if answer.code == 127:  # noqa: PLR2004 - what a shell answers for a missing command
            raise ServiceFailure("There is no /usr/bin/shortcuts here: signing needs macOS 12 or newer.", code=127)
        said = " ".join((answer.err or answer.out).split()) or f"it ended with {answer.code}"
    raise ServiceFailure(
        f"{unsigned.name} could not be signed: {said}. Are you logged in to iCloud? Signing needs an Apple Account."
    )


def open_for_import(signed: Path, *, run: Run = run_command) -> None:
    """Show *signed* in the Shortcuts app, where the person clicks "Add Shortcut".

    Raises:
        ServiceFailure: it could not be opened.

    """
    answer = run([OPEN, str(signed)])
    if answer.code:
        raise ServiceFailure(f"{signed} could not be opened; double-click it in Finder.", code=answer.code)
