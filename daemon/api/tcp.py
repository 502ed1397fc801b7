"""The optional TCP port: the same application on a loopback address, behind `daemon.api.authorization`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from daemon.api.authorization import Authorized
from daemon.api.front import front
from daemon.api.listener import Listener, Origin
from daemon.api.server import SocketServer
from daemon.api.token import token_of
from daemon.config.http import Address
from daemon.views import ServiceFacade
from jobs.errors import ConfigError

_BACKLOG: Final = 128
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


def tcp_server(service: ServiceFacade, address: Address, *, token: Path) -> SocketServer:
    """Return the server of *service* on *address*, bound already; the secret is in the file *token*.

    Raises:
        ConfigError: the port is taken, or the token file is not safe.

    """
    secret = token_of(token)
    listener = bind(address)
    app, short = front(service)
    gate = Authorized(app, hosts=hosts(bound(listener)), token=secret)
    return SocketServer(gate, listener, short=gate.before(short), before_stop=service.hub.close, allow=is_loopback)


def bind(address: Address) -> Listener:
    """Bind *address* (port 0: any free one).

    Raises:
        ConfigError: it is not this machine's own, or taken.

    """
    shown = f"{address.host}:{address.port}"
    if address.host not in _LOOPBACK:
        raise ConfigError(f"mlxd does not listen on {shown}: only 127.0.0.1 and ::1 stay on this machine.")
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.settimeout(0)
    except OSError as error:
        sock.close()
        raise ConfigError(f"The port {shown} of [http] cannot be opened: {error.strerror}.") from error
    return Listener(sockets=(sock,), origin=Origin.OWN, path=Path())


def bound(listener: Listener) -> Address:
    """Return where *listener* really listens."""
    host, port, *_ = listener.sockets[0].getsockname()
    return Address(host, port)


def hosts(address: Address) -> frozenset[str]:
    """Return the values of ``Host`` that mean *address*."""
    literal = f"[{address.host}]" if ":" in address.host else address.host
    return frozenset({f"{literal}:{address.port}", f"localhost:{address.port}"})


def is_loopback(sock: socket.socket) -> bool:
    """Return whether the other end of *sock* is this machine; in doubt it is not."""
    try:
        return sock.getpeername()[0] in _LOOPBACK
    except OSError:
        return False
