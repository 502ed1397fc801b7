"""Names that are never inputs: whose they are is said beside each."""

from __future__ import annotations

from typing import Final

_SUFFIXES: Final = (
    ".part",  # Firefox, wget, yt-dlp
    ".partial",  # Internet Explorer's heirs, rclone
    ".crdownload",  # Chrome
    ".opdownload",  # Opera
    ".download",  # Safari: a folder that holds the file until it is complete
    ".tmp",  # everybody
    ".temp",
    ".filepart",  # WinSCP
    ".aria2",  # aria2's control file
    ".!qb",  # qBittorrent
    ".!ut",  # uTorrent
    ".ytdl",  # yt-dlp's control file
    ".swp",  # vim
    ".swx",
    ".icloud",  # the stub of a file in iCloud, before macOS Sonoma
    ".lock",
    "~",  # emacs and others: backups
    ".mlxd-tmp",  # our own outputs while they are written
    ".error.txt",  # our own reports on failed inputs
    ".mlxd.json",  # our own notes on what made an output
)
_PREFIXES: Final = (
    ".",  # hidden; ._* of macOS, .syncthing.*, .~lock, .DS_Store, .mlxd.toml
    "~syncthing~",  # Syncthing
    "~$",  # Microsoft Office's locks
    "#",  # emacs: autosave
)
_NAMES: Final = frozenset({"thumbs.db", "desktop.ini", "icon\r"})

#: Folders never looked into. ``done`` is where inputs go when their job succeeded.
_FOLDERS: Final = frozenset(
    {
        "done",
        "node_modules",
        "__pycache__",
        "@eadir",  # Synology
        "#recycle",
        "lost+found",
        "$recycle.bin",
        "system volume information",
    }
)
#: Folders that Finder shows as one document or program.
_BUNDLES: Final = (".app", ".bundle", ".framework", ".photoslibrary", ".musiclibrary", ".band", ".logicx", ".fcpbundle")


def is_ignored_file(name: str) -> bool:
    """Tell whether a file of this name is never an input."""
    lower = name.lower()
    return lower.startswith(_PREFIXES) or lower.endswith(_SUFFIXES) or lower in _NAMES


def is_ignored_folder(name: str) -> bool:
    """Tell whether a folder of this name is never looked into."""
    lower = name.lower()
    return lower in _FOLDERS or lower.endswith(_BUNDLES) or is_ignored_file(name)
