"""The secret that a program must show on the TCP port: made by the daemon, in a file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from jobs.errors import ConfigError

_BYTES: Final = 32
#: What a token looks like: at least as much chance in it as we put there.
_SHAPE: Final = re.compile(rb"[A-Za-z0-9_-]{43,128}")
_LONGEST: Final = 256


def token_of(path: Path) -> bytes:
    """Return the token in the file *path*; make the file if there is none.

    Raises:
        ConfigError: it is not the user's alone, or holds no token; the message says what to do.

    """
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unfit(path, f"cannot be read: {error.strerror}") from error
    try:
        return _made(path)
    except OSError as error:
        raise ConfigError(f"The token file {path} cannot be written: {error.strerror}.", path=str(path)) from error


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_nlink != 1:
            raise _unfit(path, "is not a plain file of yours")
        if facts.st_mode & 0o077:
            raise _unfit(path, "could have been read by others")
        token = file.read(_LONGEST).strip()
    if not _SHAPE.fullmatch(token):
        raise _unfit(path, "holds no token")
    return token


def _made(path: Path) -> bytes:
    token = secrets.token_urlsafe(_BYTES).encode()
    temporary = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(token + b"\n")
    temporary.replace(path)  # whole or not at all: half a token would be refused at every start
    return token


def _unfit(path: Path, why: str) -> ConfigError:
    return ConfigError(f"The token file {path} {why}. Remove it; mlxd makes a new one when it starts.", path=str(path))
