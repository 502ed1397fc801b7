"""`mlxd shortcuts`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from daemon.cli.console import Exit, absolute, complain, note, write, write_json
from daemon.cli.main import Session

if TYPE_CHECKING:
    from daemon.shortcuts import Outcome, Shelf
    from launchd.embedded import Action
    from launchd.receipts import Receipt

_DEST = click.option("--dest", metavar="DIR", help="Put the files here and tell the system nothing.")
_FORCE = click.option("--force", is_flag=True, help="Also what was changed since it was installed.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group(short_help="Install Quick Actions, Services and Shortcuts on a Mac.")
def shortcuts() -> None:
    """Put mlxd into the menus of a Mac: Quick Actions and Services, Shortcuts, Folder Actions."""


@shortcuts.command(short_help="Install actions: the built-in and configured ones, or those named.")
@click.argument("names", nargs=-1)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["quick-action", "shortcut", "folder-action"]),
    default="quick-action",
    show_default=True,
    help="As what.",
)
@click.option("--task", help="An action for this task instead of NAMES.")
@click.option("--title", help="With --task: what the menu says.")
@click.option(
    "--takes", type=click.Choice(["files", "text", "folder"]), default="files", help="With --task: what is selected."
)
@click.option("--folder", metavar="DIR", help="The folder that a folder action belongs to.")
@_DEST
@_FORCE
@_JSON
@click.pass_obj
def install(
    session: Session,
    /,
    *,
    names: tuple[str, ...],
    kind: str,
    task: str | None,
    title: str | None,
    takes: str,
    folder: str | None,
    dest: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Install actions as Quick Actions (in Finder and the Services menu), as Shortcuts, or as a Folder Action.

    Without NAMES all of them: transcribe, summarise, copy-summary, prompts, and those in the configuration under
    [shortcuts.NAME]. Installing again replaces the earlier copy, unless somebody changed it.
    """
    if task is not None and names:
        raise click.UsageError("NAMES and --task exclude each other.")
    if kind == "folder-action" and (folder is None or (task is None and len(names) != 1)):
        raise click.UsageError("A folder action wants one name (or --task) and --folder DIR.")
    from daemon.shortcuts import Kind, of_task

    chosen = {task: of_task(task, title=title, takes=takes)} if task is not None else _chosen(session, names)
    bound = None if folder is None else absolute(folder)
    done = _shelf(session, dest).install(chosen, Kind(kind), force=force, folder=bound)
    if as_json:
        write_json([{**_told(one.receipt), "notes": one.notes} for one in done])
    else:
        _tell(done)
    return Exit.OK


@shortcuts.command("list", short_help="List what is installed, and what could be.")
@_JSON
@click.pass_obj
def list_(session: Session, /, *, as_json: bool) -> int:
    """List what is installed, whether somebody changed it since, and what else there is."""
    installed = [
        {**_told(receipt), "state": str(condition)} for receipt, condition in _shelf(session, None).installed()
    ]
    known = {one["name"] for one in installed}
    rest = [
        {"name": name, "kind": "", "title": action.title, "path": "", "state": "not installed"}
        for name, action in _chosen(session, ()).items()
        if name not in known
    ]
    if as_json:
        write_json(installed + rest)
    else:
        from daemon.cli.display import table

        rows = [(one["name"], one["kind"], one["title"], one["state"], one["path"]) for one in installed + rest]
        table(["name", "as", "title", "", "file"], rows)
    return Exit.OK


@shortcuts.command(short_help="Remove what was installed: all, or the actions named.")
@click.argument("names", nargs=-1)
@_FORCE
@_JSON
@click.pass_obj
def remove(session: Session, /, *, names: tuple[str, ...], force: bool, as_json: bool) -> int:
    """Remove what `install` wrote; what somebody changed since stays, and the exit status is 1."""
    gone, refused = _shelf(session, None).remove(names, force=force)
    if as_json:
        write_json({"removed": [_told(one) for one in gone], "refused": refused})
    else:
        for one in gone:
            write(f"removed {one.path}")
    for sentence in refused:
        complain(sentence)
    if not as_json and any(one.kind == "shortcut" for one in gone):
        note("What you added to the Shortcuts app stays there; delete it in that app.")
    return Exit.FAILED if refused else Exit.OK


def _shelf(session: Session, dest: str | None) -> Shelf:
    from daemon.shortcuts import Shelf

    return Shelf(session.home, destination=None if dest is None else absolute(dest))


def _chosen(session: Session, names: tuple[str, ...]) -> dict[str, Action]:
    from daemon.config.model import load
    from daemon.shortcuts import actions

    known = actions(load(session.home.config, home=session.home).shortcuts)
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"There is no action {unknown[0]!r}. There are: {', '.join(known)}; or use --task.")
    return {name: known[name] for name in names or known}


def _told(receipt: Receipt) -> dict[str, str]:
    return {"name": receipt.name, "kind": receipt.kind, "title": receipt.title, "path": str(receipt.path)}


def _tell(done: list[Outcome]) -> None:
    said: list[str] = []
    for one in done:
        write(f"{one.receipt.title}: {one.receipt.path}")
        for sentence in one.notes:
            if sentence not in said:
                note(f"  {sentence}")
                said.append(sentence)
    if any(one.receipt.kind == "quick-action" for one in done):
        note(
            "Files: right click in Finder > Quick Actions. Text: the program's menu > Services. If one is missing: "
            "System Settings > Keyboard > Keyboard Shortcuts > Services."
        )
