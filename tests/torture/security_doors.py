"""Attacks on the doors: pages and strangers on the TCP port, other users on the socket, loose folders."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from fakes_socket import FakeService, serving

from daemon.api import authorization, listener, tcp
from daemon.config.http import Address
from jobs.errors import ConfigError
from torture.row import Control
from torture.security_attack import Attack

NOBODY = 65534
_HONEST = ("127.0.0.1:{port}", "localhost:{port}")
_HOSTS = (
    "evil.example:{port}", "evil.example", "127.0.0.1", "localhost", "127.0.0.1:80", "127.0.0.1:0{port}",
    "LOCALHOST:{port}", "localhost.:{port}", "127.0.0.1.:{port}", "127.0.0.1.nip.io:{port}", "[::1]:{port}",
    "localhost.evil.example:{port}",
    "[::ffff:127.0.0.1]:{port}", "::1:{port}", "0.0.0.0:{port}", "127.1:{port}", "2130706433:{port}", "0x7f.1:{port}",
    "user@127.0.0.1:{port}", "127.0.0.1:{port}@evil.example", "evil.example#127.0.0.1:{port}", "127.0.0.1:{port}/x",
    "xn--lcalhost-n5a:{port}", "127.0.0.1:{port}, evil.example", "127.0.0.1:{port} evil.example", "%3127.0.0.1:{port}",
    "printer.local:{port}", "x.internal:{port}", "192.168.1.7:{port}", "", "-", "a" * 3000, "127.0.0.1:{port}:{port}",
)  # fmt: skip
_ORIGINS = (None, "null", "", "http://127.0.0.1:{port}", "http://localhost:{port}", "https://evil.example", "file://",
            "http://evil.example:{port}", "chrome-extension://abc")  # fmt: skip
_TOKENS = ("right", "wrong", None)


class _Request(NamedTuple):
    raw: bytes
    honest: bool
    shown: str


def requests(count: int, port: int, token: str, *, seed: int) -> Iterator[_Request]:
    """Yield *count* combinations of Host, Origin and token, the honest ones first."""
    everything = list(itertools.product((*_HONEST, *_HOSTS), _ORIGINS, _TOKENS))
    honest = [one for one in everything if one[0] in _HONEST and one[1] is None and one[2] == "right"]
    rest = [one for one in everything if one not in honest]
    random.Random(f"{seed}-hosts").shuffle(rest)
    for host, origin, shown in (honest + rest)[:count]:
        lines = ["GET /v1/health HTTP/1.1", f"Host: {host.format(port=port)}", "Connection: close"]
        lines += [f"Origin: {origin.format(port=port)}"] if origin is not None else []
        lines += [f"Authorization: Bearer {token if shown == 'right' else 'x' * 43}"] if shown else []
        raw = "\r\n".join([*lines, "", ""]).encode()
        yield _Request(raw, (host, origin, shown) in honest, f"Host {host[:40]!r}, Origin {origin!r}, token {shown}")


def pages(count: int, folder: Path, *, seed: int) -> Attack:
    """Send *count* combinations to a real port: only the honest ones may be served."""
    served, refused = _on_a_port(count, folder / "on", seed)
    with patch.object(authorization, "refusal", lambda *_: None):
        through, _ = _on_a_port(count, folder / "off", seed)
    strangers = [one.shown for one in served if not one.honest]
    locked_out = [one.shown for one in refused if one.honest]
    got_in = [one for one in through if not one.honest]
    return Attack(
        name="pages and strangers on the TCP port",
        tries=count,
        broken=[f"served: {one}" for one in strangers]
        + [f"an honest program was refused: {one}" for one in locked_out],
        control=Control(name="no gate on the port", caught=len(got_in) > count // 3, evidence=f"{len(got_in)} served"),
    )


def _on_a_port(count: int, folder: Path, seed: int) -> tuple[list[_Request], list[_Request]]:
    folder.mkdir()
    server = tcp.tcp_server(FakeService(), Address("127.0.0.1", 0), token=folder / "token")
    port = tcp.bound(server._listener).port
    server.start()
    try:
        sent = list(requests(count, port, (folder / "token").read_text().strip(), seed=seed))
        answers = [_answer(port, one.raw) for one in sent]
    finally:
        server.stop()
    served = [one for one, answer in zip(sent, answers, strict=True) if answer.startswith(b"HTTP/1.1 200 ")]
    return served, [one for one in sent if one not in served]


def _answer(port: int, raw: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(raw)
        try:
            return sock.recv(4096)
        except ConnectionResetError:
            return b""


# The other user's program: everything is imported before it gives its rights away.
_STRANGER = """\
import encodings.idna, os, socket, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
sock = socket.socket(socket.AF_UNIX); sock.settimeout(5)
try:
    sock.connect(sys.argv[1])
    sock.sendall(b"GET /v1/health HTTP/1.1\\r\\nHost: m\\r\\n\\r\\n")
    print("served" if sock.recv(100).startswith(b"HTTP/1.1 200") else "ended")
except PermissionError:
    print("kept out")
except OSError as error:
    print("ended")
"""


def _as_stranger(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-c", code.format(uid=NOBODY), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def other_users(count: int) -> Attack:
    """Let another user connect: kept out by the folder; and where somebody opened that, by the kernel's word."""
    if os.geteuid() != 0:
        return _injected_users()
    broken = []
    with serving(FakeService()) as path:
        if (found := _as_stranger(_STRANGER, str(path))) != "kept out":
            broken.append(f"the folder let another user in: {found}")
        _open_up(path)
        found = [_as_stranger(_STRANGER, str(path)) for _ in range(count)]
        broken += ["another user was served"] * found.count("served")
    with serving(FakeService(), allow=lambda _: True) as path:
        _open_up(path)
        through = _as_stranger(_STRANGER, str(path))
    control = Control(name="nobody asks who is there", caught=through == "served", evidence=f"another user: {through}")
    return Attack(name="another user on the socket", tries=count + 1, broken=broken, control=control)


def _injected_users() -> Attack:
    from torture.http_raw import responsive

    with serving(FakeService(), allow=lambda _: False) as path:
        refused = bool(responsive(path, during="the attack"))
    with serving(FakeService(), allow=lambda _: True) as path:
        served = not responsive(path, during="the control")
    return Attack(
        name="another user on the socket",
        tries=1,
        broken=[] if refused else ["a stranger was served"],
        control=Control(name="nobody asks who is there", caught=served, evidence=f"served: {served}"),
        notes=["not root here: the other user's credentials were injected instead"],
    )


def _open_up(path: Path) -> None:
    for folder in (path.parent.parent, path.parent):
        folder.chmod(0o755)
    path.chmod(0o666)


# Puts a socket of its own in the place of the daemon's.
_SWAP = """\
import os, socket, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
try:
    os.rename(sys.argv[1], sys.argv[1] + ".old")
    sock = socket.socket(socket.AF_UNIX); sock.bind(sys.argv[1])
    print("swapped")
except OSError as error:
    print("kept out")
"""


def loose_folders(folder: Path) -> Attack:
    """Put the socket into folders that others could change: each is refused before anything is bound."""
    folder.chmod(0o755)
    cases = {f"mode {mode:04o}": mode for mode in (0o777, 0o757, 0o775, 0o722, 0o702, 0o720, 0o733)}
    broken = []
    for number, (name, mode) in enumerate(cases.items()):
        place = folder / f"loose{number}"
        place.mkdir()
        place.chmod(mode)
        broken += _bound(place, name)
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to(folder / "real")
    broken += _bound(folder / "link", "a link")
    if os.geteuid() == 0:
        (folder / "foreign").mkdir(mode=0o700)
        os.chown(folder / "foreign", NOBODY, NOBODY)
        broken += _bound(folder / "foreign", "another user's folder")
    return Attack(name="loose folders", tries=len(cases) + 2, broken=broken, control=_unguarded(folder))


def _bound(place: Path, name: str) -> list[str]:
    try:
        listener.bind(place / "s").close()
    except ConfigError:
        return []
    return [f"a socket was bound in a folder with {name}"]


def _unguarded(folder: Path) -> Control:
    """Without the check the socket is bound in a folder open to all, and (as root) another user takes its place."""
    place = folder / "unguarded"
    place.mkdir()
    place.chmod(0o777)
    with patch.object(listener, "prepare_folder", lambda _: None):
        bound = listener.bind(place / "s")
    found = _as_stranger(_SWAP, str(place / "s")) if os.geteuid() == 0 else "bound"
    bound.close()
    return Control(
        name="no look at the folder", caught=found in {"swapped", "bound"}, evidence=f"the socket was {found}"
    )
