"""The configuration as it is shown to anybody: without what is, or may well be, a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

#: What stands in the place of a secret.
WITHHELD: Final = "[withheld]"

_SECRETIVE: Final = re.compile(r"token|secret|passw|key|credential|auth|url|webhook", re.IGNORECASE)
#: Tables whose values may be anything, so that no complaint may repeat one.
_TABLES: Final = (("runner", "env"), ("plugins", "settings"))
_ENTRY: Final = 2  # ("notify", 3): a whole entry


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return *config* (as JSON) with addresses of webhooks cut down to their host, and other secrets withheld."""
    runner, plugins = config["runner"], config["plugins"]
    return {
        **config,
        "notify": [{**entry, "url": _host(entry["url"])} for entry in config["notify"]],
        "runner": {**runner, "env": dict.fromkeys(runner["env"], WITHHELD)},
        "plugins": {**plugins, "settings": _settings(plugins["settings"])},
    }


def secretive(location: Sequence[str | int]) -> bool:
    """Tell whether what stands at *location* of the configuration must not be repeated in a complaint."""
    if location[:1] == ("notify",):
        return len(location) <= _ENTRY or location[_ENTRY] in {"url", "command"}
    return tuple(location[:2]) in _TABLES or tuple(location) in {("notify",), ("runner",), ("plugins",)}


def _host(url: str | None) -> str | None:
    """Return *url* without its path and query, which may hold a token."""
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/{WITHHELD}" if parts.path.strip("/") or parts.query else url


def _settings(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: WITHHELD if _SECRETIVE.search(name) and not isinstance(one, Mapping) else _settings(one)
            for name, one in value.items()
        }
    return [_settings(one) for one in value] if isinstance(value, list) else value
