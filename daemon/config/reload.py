"""What a new configuration changes: at once, or only after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daemon.config.model import Config
from daemon.views import ReloadReport

#: Keys that are read once, when the daemon starts.
_AT_START: Final = ("queue.workers", "runner.max_crashes", "plugins", "http")


def report(old: Config, new: Config) -> ReloadReport:
    """Return which keys differ between *old* and *new*, by when the new value counts."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    keys = list(_differences(before, after))
    late = tuple(key for key in keys if key.startswith(_AT_START))
    return ReloadReport(changed=tuple(key for key in keys if key not in late), needs_restart=late)


def _differences(before: object, after: object, at: str = "") -> Iterator[str]:
    """Yield the dotted keys that differ; a list or a value is one key, however much of it differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differences(before.get(key), after.get(key), f"{at}.{key}" if at else key)
    elif before != after:
        yield at
