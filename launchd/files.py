"""The files of an installed service: written whole or not at all, with exact modes."""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from launchd.contract import ServiceFailure

#: File name of the launcher. The service manager shows it to people (Login Items lists the executable's base name,
#: and a row called "python" gets switched off by whoever does not know what it is), so it carries our name.
LAUNCHER_NAME: Final = "mlxd-agent"

_LAUNCHER: Final = """\
#!/bin/sh
# Written by `mlxd service install`; removed by `mlxd service uninstall`.
# If the program is gone, end with 0: the service manager then leaves the service down instead of trying for ever.
if [ ! -x {program} ]; then
    echo "mlxd is no longer at "{program}". Install it again, then run: mlxd service install" >&2
    exit 0
fi
exec {command} "$@"
"""


def launcher_text(command: Sequence[str]) -> str:
    """Return the launcher: a shell script that replaces itself with *command* (absolute) and the arguments it gets."""
    return _LAUNCHER.format(program=shlex.quote(command[0]), command=shlex.join(command))


def write_file(path: Path, data: bytes, *, mode: int) -> None:
    """Put *data* at *path* in one rename, with exactly *mode*, whatever the umask; a link there is replaced.

    Raises:
        ServiceFailure: the folder or the file cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 - str and Path mixed on purpose: mkstemp gives a str
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ServiceFailure(f"Cannot write {path}: {error.strerror}.") from error


def private_folder(path: Path, *, uid: int) -> None:
    """Make the folder *path* exist, with mode 0700, owned by *uid* and not a link.

    Raises:
        ServiceFailure: it is something else, and why that is not safe.

    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.lstat()
    except OSError as error:
        raise ServiceFailure(f"Cannot make the folder {path}: {error.strerror}.") from error
    if not stat.S_ISDIR(facts.st_mode):
        raise ServiceFailure(
            f"{path} is a link, not a folder: the socket would lie where others may decide. Remove it."
        )
    if facts.st_uid != uid:
        raise ServiceFailure(f"{path} belongs to another user (uid {facts.st_uid}): give it back or remove it.")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        path.chmod(0o700)


def remove(path: Path) -> bool:
    """Remove the file *path* and return whether it was there.

    Raises:
        ServiceFailure: it is there and cannot be removed.

    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ServiceFailure(f"Cannot remove {path}: {error.strerror}.") from error
    return True
