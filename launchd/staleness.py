"""What is installed, compared with what an installation would write now. Reads files, changes nothing.

The environment is left out: it is what it was where the service was installed, which may be another terminal.
"""

from __future__ import annotations

import plistlib
import re
from pathlib import Path
from typing import Any, Final

from launchd.agent import AgentSpec, describe
from launchd.files import launcher_text

#: Keys that differ with the place of the installation, not with the version.
_BY_PLACE: Final = frozenset({"EnvironmentVariables", "LimitLoadToSessionType"})
_EXEC: Final = re.compile(r"^exec (.+) \"\$@\"$", re.MULTILINE)


def stale_agent(spec: AgentSpec, definition: Path) -> list[str]:
    """Return how the property list *definition* and its launcher differ from *spec*; nothing if it is not installed."""
    try:
        found: Any = plistlib.loads(definition.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, plistlib.InvalidFileException, ValueError) as error:
        return [f"{definition} cannot be read ({error})"]
    if not isinstance(found, dict):
        return [f"{definition} is no property list of a service"]
    wanted = describe(spec)
    keys = sorted(key for key in {*wanted, *found} - _BY_PLACE if wanted.get(key) != found.get(key))
    return [*([f"{definition} says otherwise about {', '.join(keys)}"] if keys else []), *_launcher(spec)]


def stale_units(spec: AgentSpec, wanted: dict[Path, str]) -> list[str]:
    """Return how the units differ from *wanted*, their texts by path; nothing if none is installed."""
    if not any(path.exists() for path in wanted):
        return []
    different = []
    for path, text in wanted.items():
        try:
            same = _without_environment(path.read_text(encoding="utf-8")) == _without_environment(text)
        except (OSError, UnicodeDecodeError) as error:
            different.append(f"{path} cannot be read ({error})")
            continue
        if not same:
            different.append(f"{path} is of another version")
    return [*different, *_launcher(spec)]


def _launcher(spec: AgentSpec) -> list[str]:
    try:
        text = spec.launcher.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return [f"its launcher {spec.launcher} is not there"]
    if text == launcher_text(spec.program):
        return []
    started = _EXEC.search(text)
    program = " ".join(spec.program)
    return [f"it starts {started.group(1) if started else 'something else'}, and this is {program}"]


def _without_environment(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("Environment=")]
