"""The optional TCP port: ``[http]`` in the configuration."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pydantic import field_validator

from jobs.model import Frozen

_ADDRESS: Final = re.compile(r"(?:(?P<v4>127\.0\.0\.1)|\[(?P<v6>::1)\]):(?P<port>[1-9][0-9]{0,4})", re.ASCII)
_PORTS: Final = range(1, 65536)


class Address(NamedTuple):
    """Where to listen."""

    #: ``127.0.0.1`` or ``::1``.
    host: str
    port: int


class HttpConfig(Frozen):
    """``[http]``: the same interface on a TCP port of this machine, for programs that cannot open a Unix socket."""

    #: "127.0.0.1:PORT" or "[::1]:PORT"; None: no port is opened.
    listen: str | None = None

    @field_validator("listen", mode="after")
    @classmethod
    def _loopback(cls, value: str | None) -> str | None:
        if value is not None:
            _parsed(value)
        return value

    @property
    def address(self) -> Address | None:
        """Return where to listen, None for nowhere."""
        return None if self.listen is None else _parsed(self.listen)


def _parsed(text: str) -> Address:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) not in _PORTS:
        raise ValueError('"127.0.0.1:PORT" or "[::1]:PORT": mlxd is never reachable from another machine')
    return Address(match["v4"] or match["v6"], int(match["port"]))
