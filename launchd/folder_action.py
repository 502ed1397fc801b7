"""Folder Actions: an Automator workflow that macOS runs when something appears in a folder.

Optional. mlxd's own watched folders wait until a file is complete; a Folder Action also runs for half a copy. It is for
folders that the daemon may not read, because a Folder Action runs with the permissions of the person's session.

The binding goes through System Events, by a script whose text never changes: folder and workflow are its arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from launchd.contract import Run, ServiceFailure, run_command

OSASCRIPT: Final = "/usr/bin/osascript"
#: Below the person's home.
FOLDER: Final = ("Library", "Workflows", "Applications", "Folder Actions")

# A script's path has to be of the old kind ("Macintosh HD:Users:..."), which System Events knows of each file.
_SCRIPT: Final = """\
function run(argv) {
    const what = argv[0], folder = argv[1], workflow = argv[2];
    const events = Application("System Events");
    const actions = () => events.folderActions().filter((one) => one.path() === folder);
    const scripts = (action) => action.scripts().filter((one) => one.posixPath() === workflow);
    if (what === "bind") {
        if (actions().length === 0) {
            const name = folder.split("/").pop();
            events.folderActions.push(events.FolderAction({name: name, path: folder}));
        }
        const action = actions()[0];
        if (scripts(action).length === 0) {
            const path = events.files.byName(workflow).path();
            action.scripts.push(events.Script({name: workflow.split("/").pop(), path: path}));
        }
        action.enabled = true;
        events.folderActionsEnabled = true;
    } else {
        actions().forEach((action) => {
            scripts(action).forEach((script) => events.delete(script));
            if (action.scripts().length === 0) events.delete(action);
        });
    }
    return actions().some((action) => scripts(action).length > 0) ? "bound" : "unbound";
}
"""


def bind(folder: Path, workflow: Path, *, run: Run = run_command) -> None:
    """Have macOS run *workflow* (installed in `FOLDER`) for whatever appears in *folder*; both absolute.

    Raises:
        ServiceFailure: System Events refused, usually for want of a permission.

    """
    _ask("bind", folder, workflow, expected="bound", run=run)


def unbind(folder: Path, workflow: Path, *, run: Run = run_command) -> None:
    """Undo `bind`; a folder that nothing else is bound to is forgotten. Raises as `bind` does."""
    _ask("unbind", folder, workflow, expected="unbound", run=run)


def _ask(what: str, folder: Path, workflow: Path, *, expected: str, run: Run) -> None:
    answer = run([OSASCRIPT, "-l", "JavaScript", "-e", _SCRIPT, what, str(folder), str(workflow)])
    if answer.code == 0 and answer.out.strip() == expected:
        return
    said = " ".join((answer.err or answer.out).split()) or f"osascript ended with {answer.code}"
    raise ServiceFailure(
        f"System Events did not {what} the folder action: {said}. Allow it under System Settings > Privacy & "
        "Security > Automation, or do it by hand: Finder, right click on the folder, Services > Folder Actions Setup."
    )
