"""A daemon to be attacked over HTTP, and a relay that lets tools which know only TCP speak to its Unix socket."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
from fakes_acceptance import SpawnedDaemon

# No fetching from a hub that is not here; a queue that fills up; nothing that needs a person.
CONFIG = '[plugins]\ndisabled = ["pull"]\nentry_points = "none"\n[queue]\nlimit = 500\n[log]\nlevel = "error"\n'


@contextlib.contextmanager
def stage() -> Iterator[SpawnedDaemon]:
    """Run a daemon of its own, untraced, for the block."""
    daemon = SpawnedDaemon()
    daemon.traced = False
    daemon.configure(CONFIG)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def socket_of(daemon: SpawnedDaemon) -> Path:
    """Return the daemon's Unix socket."""
    return daemon.home / "state" / "mlxd.sock"


def descriptors(daemon: SpawnedDaemon) -> int:
    """Return how many descriptors the daemon has open."""
    assert daemon.process is not None
    return psutil.Process(daemon.process.pid).num_fds()


@contextlib.contextmanager
def relay(path: Path) -> Iterator[str]:
    """Give the base URL of a loopback port whose bytes go to the Unix socket *path*, and back, unchanged."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as inner, contextlib.suppress(OSError):
                inner.connect(os.fspath(path))
                back = threading.Thread(target=_pump, args=(inner, self.request), daemon=True)
                back.start()
                _pump(self.request, inner)
                back.join(5)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
