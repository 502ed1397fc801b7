"""Opens the files of a model's folder, which may come from a stranger: regular ones only, and never more than asked."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Final

#: More than this is no model's configuration, bytes.
MAX_CONFIG: Final = 16 * 1024 * 1024


def open_regular(path: Path) -> BinaryIO:
    """Open *path* for reading; links are followed, as the hub's cache is made of them. A pipe must hold up nobody.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no regular file.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_json(path: Path) -> Any:
    """Return the JSON in *path*.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no regular file, longer than `MAX_CONFIG`, or no JSON.

    """
    with open_regular(path) as file:
        data = file.read(MAX_CONFIG + 1)
    if len(data) > MAX_CONFIG:
        raise ValueError("it is too long for a configuration")
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("it is not JSON (nested too deeply)") from error
