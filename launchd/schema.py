"""launchd's own table of keys and types, as far as we use them.

launchd tells nobody what it did not like in a property list: an unknown key, a number where a string belongs or a
relative path is silently ignored. So everything is checked here before a file is written. Sources: launchd.plist(5)
and ``launch.h`` of launchd 842.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

#: The longest socket path in bytes: macOS has 104 with the final NUL, and launchd cuts a longer one silently.
SOCKET_PATH_MAX: Final = 103
#: Seconds that a clean stop may need after the drain's deadline, before SIGKILL.
STOP_MARGIN_S: Final = 10

_LABEL_FORM: Final = re.compile(r"[A-Za-z0-9._-]+")  # launchd cannot store an override for any other label
_OWNER_ONLY: Final = 0o600  # 384 in the file: a property list knows no octal numbers


def problems(described: Mapping[str, Any], *, file_name: str, drain_seconds: float) -> list[str]:
    """Return what launchd would refuse, ignore or do wrong with *described*, each as a sentence."""
    found = [f"Unknown key {key}." for key in described if key not in _KEYS]
    found += [f"{key} is missing." for key in ("Label", "ProgramArguments") if key not in described]
    for key, check in _KEYS.items():
        if key in described and (wanted := check(described[key])):
            found.append(f"{key} is {described[key]!r}, but must be {wanted}.")
    if not found:  # the rest relies on the types
        found += _contradictions(described, file_name, drain_seconds)
    return found


def _contradictions(described: Mapping[str, Any], file_name: str, drain_seconds: float) -> list[str]:
    found = []
    if file_name != f"{described['Label']}.plist":
        found.append(f"The file is called {file_name}, but its label is {described['Label']}.")
    patience = described.get("ExitTimeOut", 20)
    if patience < drain_seconds + STOP_MARGIN_S:
        found.append(f"ExitTimeOut is {patience} s, too short for a drain of {drain_seconds:g} s.")
    if os.path.basename(described["ProgramArguments"][0]).startswith("python"):  # noqa: PTH119 - a string on purpose
        found.append("The program is called python: Login Items would show that name.")
    return found


# Each check returns None, or what the value must be.
_Check = Callable[[Any], str | None]


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _whole(lowest: int, highest: int) -> _Check:
    def check(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest
        return None if fits else f"a whole number from {lowest} to {highest}"

    return check


def _one_of(*allowed: str) -> _Check:
    return lambda value: None if value in allowed else f"one of {', '.join(allowed)}"


def _label(value: Any) -> str | None:
    fits = isinstance(value, str) and _LABEL_FORM.fullmatch(value)
    return None if fits else "letters, digits, dots, dashes and underscores"


def _is_path(value: Any) -> bool:
    # launchd expands neither ~ nor $HOME.
    return isinstance(value, str) and value.startswith("/") and "\0" not in value


def _path(value: Any) -> str | None:
    return None if _is_path(value) else "an absolute path"


def _arguments(value: Any) -> str | None:
    fits = isinstance(value, list) and value and all(isinstance(each, str) for each in value) and _is_path(value[0])
    return None if fits else "a list of strings that begins with an absolute path"


def _keep_alive(value: Any) -> str | None:
    # A bare true would fight `mlxd service stop`, and several conditions are ORed.
    return None if value == {"SuccessfulExit": False} else "{SuccessfulExit: false}"


def _session_types(value: Any) -> str | None:
    known = {"Aqua", "Background", "LoginWindow", "StandardIO", "System"}
    listed = value if isinstance(value, list) else [value]
    return None if listed and all(each in known for each in listed) else f"of {', '.join(sorted(known))}"


def _environment(value: Any) -> str | None:
    fits = isinstance(value, dict) and all(isinstance(part, str) for pair in value.items() for part in pair)
    return None if fits else "strings only (launchd ignores anything else)"


def _sockets(value: Any) -> str | None:
    wanted = (
        f"sockets with an absolute SockPathName of at most {SOCKET_PATH_MAX} bytes and a SockPathMode of 384 (0600)"
    )
    if not isinstance(value, dict) or not value:
        return wanted
    return None if all(_is_socket(each) for each in value.values()) else wanted


def _is_socket(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"SockPathName", "SockPathMode"}:
        return False
    path, mode = value["SockPathName"], value["SockPathMode"]
    return _is_path(path) and len(os.fsencode(path)) <= SOCKET_PATH_MAX and type(mode) is int and mode == _OWNER_ONLY


def _limits(value: Any) -> str | None:
    fits = isinstance(value, dict) and set(value) == {"NumberOfFiles"}
    return None if fits and _whole(256, 1_000_000)(value["NumberOfFiles"]) is None else "{NumberOfFiles: 256 or more}"


_KEYS: Final[Mapping[str, _Check]] = {
    "Label": _label,
    "ProgramArguments": _arguments,
    "RunAtLoad": _boolean,
    "KeepAlive": _keep_alive,
    "ThrottleInterval": _whole(1, 3600),
    "ExitTimeOut": _whole(1, 3600),  # 0 means for ever, and a stop would hang with it
    "ProcessType": _one_of("Interactive", "Background", "Standard", "Adaptive"),
    "LimitLoadToSessionType": _session_types,
    "Sockets": _sockets,
    "EnvironmentVariables": _environment,
    "StandardOutPath": _path,
    "StandardErrorPath": _path,
    "WorkingDirectory": _path,
    "Umask": _whole(0, 0o777),
    "SoftResourceLimits": _limits,
}
