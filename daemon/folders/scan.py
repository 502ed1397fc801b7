"""Look through a folder tree once, quickly, without following a link."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from daemon.config.folders import RECIPE
from daemon.folders.ignored import is_ignored_file, is_ignored_folder


class Found(NamedTuple):
    """One ordinary file, link, pipe or device."""

    #: Relative to the root, with ``/``, exactly as the system gave the name.
    relative: str
    entry: os.DirEntry[str]


def walk(
    root: str,
    start: str = "",
    *,
    recursive: bool,
    pruned: Callable[[str], bool],
    on_error: Callable[[str, OSError], None],
    on_folder: Callable[[str, bool], None] = lambda _folder, _has_recipe: None,
) -> Iterator[Found]:
    """Yield what may be an input in the folder *start* (relative to *root*) and, if *recursive*, below it.

    Ignored names are left out, folders that *pruned* names (by their relative path) are not entered. What cannot be
    listed is told to *on_error* with its relative path; the rest goes on. *on_folder* hears of each folder before its
    files and those below come, and whether it has a file named as recipes are.
    """
    folders = [start]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(f"{root}/{folder}" if folder else root) as entries:
                listed = list(entries)
        except OSError as error:
            on_error(folder, error)
            continue
        on_folder(folder, any(entry.name == RECIPE for entry in listed))
        prefix = f"{folder}/" if folder else ""
        for entry in listed:
            relative = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if recursive and not is_ignored_folder(entry.name) and not pruned(relative):
                    folders.append(relative)
            elif not is_ignored_file(entry.name):
                yield Found(relative, entry)
