"""Raw traffic that no honest client sends, over Unix sockets: each attack returns what it found wrong."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

#: Seconds within which any answer, or the end of the connection, has to come.
PATIENCE = 5.0
#: Errors that mlxd may have: it is full, or its disk is.
DECLARED = frozenset({503, 507})

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_GET = b"GET /v1/health HTTP/1.1\r\nHost: m\r\n\r\n"
_LAST = b"GET /v1/health HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"
_JOB = b'{"task": "noop", "params": {"text": "x"}}'
_POST = b"POST /v1/jobs HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_JOB)

_TO = b"POST /v1/jobs HTTP/1.1\r\nHost: m\r\n"
_JSON = _TO + b"Content-Type: application/json\r\n"
_CHUNKED = _TO + b"Transfer-Encoding: chunked\r\n\r\n"

#: Whole requests that are wrong in one way each: name -> bytes.
MALFORMED: dict[str, bytes] = {
    "a megabyte of header": b"GET / HTTP/1.1\r\nHost: m\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "10,000 headers": b"GET / HTTP/1.1\r\nHost: m\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "a megabyte of path": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: m\r\n\r\n",
    "no host": b"GET /v1/health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "negative length": _TO + b"Content-Length: -1\r\n\r\n",
    "length with a sign": _TO + b"Content-Length: +5\r\n\r\nabcde",
    "length in hexadecimal": _TO + b"Content-Length: 0x5\r\n\r\nabcde",
    "length of 30 digits": _TO + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "length of 5,000 digits": _TO + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "two lengths": _TO + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "length and chunks": _TO + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "more than declared": _POST + _JOB + b"\x00\xff" * 50,
    "less than declared": _POST + _JOB[:-3],
    "a chunk's size is no number": _CHUNKED + b"xyz\r\nabc\r\n0\r\n\r\n",
    "an endless chunk": _CHUNKED + b"ffffffffffffffff\r\nabc",
    "a chunk without its end": _CHUNKED + b"3\r\nabcdef",
    "a megabyte of chunk extension": _CHUNKED + b"3;"
    + b"a" * 1_000_000,
    "endless trailers": _CHUNKED + b"0\r\n" + b"a: b\r\n" * 50_000,
    "an unknown encoding": _TO + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "too large": _JSON + b"Content-Length: 99999999\r\n\r\n{",
    "an upgrade": b"GET /v1/health HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(range(200)),
    "HTTP/0.9": b"GET /v1/health\r\n",
    "HTTP/9.9": b"GET /v1/health HTTP/9.9\r\nHost: m\r\n\r\n",
    "an absolute address": b"GET http://evil.example/v1/health HTTP/1.1\r\nHost: m\r\n\r\n",
    "dots": b"GET /v1/jobs/../../../../etc/passwd HTTP/1.1\r\nHost: m\r\n\r\n",
    "dots in disguise": b"GET /v1/jobs/%2e%2e%2fetc/outputs/%2fetc%2fpasswd HTTP/1.1\r\nHost: m\r\n\r\n",
    "half a character": b"GET /v1/jobs/%ed%a0%80 HTTP/1.1\r\nHost: m\r\n\r\n",
    "no UTF-8": b"GET /v1/jobs/%ff%fe%00?cursor=%ff HTTP/1.1\r\nHost: m\r\n\r\n",
    "NUL in a header": b"GET /v1/health HTTP/1.1\r\nHost: m\r\nX: a\x00b\r\n\r\n",
    "a folded header": b"GET /v1/health HTTP/1.1\r\nHost: m\r\nX: a\r\n b\r\n\r\n",
    "a body that is deep": _JSON + b"Content-Length: 100000\r\n\r\n"
    + b"[" * 100_000,
    "a body that is one number": _JSON + b"Content-Length: 9000\r\n\r\n"
    + b"9" * 9000,
    "a body that is not UTF-8": _JSON + b"Content-Length: 4\r\n\r\n\xff\xfe\x00\x00",
    "an endless cursor": b"GET /v1/jobs?cursor=" + b"9" * 5000 + b" HTTP/1.1\r\nHost: m\r\n\r\n",
    "a wait without end": b"GET /v1/jobs/x/wait?timeout=inf HTTP/1.1\r\nHost: m\r\n\r\n",
    "an index of 5,000 digits": b"GET /v1/jobs/x/outputs/" + b"9" * 5000 + b" HTTP/1.1\r\nHost: m\r\n\r\n",
}  # fmt: skip


def exchange(path: Path, data: bytes, *, first: float = 1.0, patience: float = PATIENCE) -> bytes:
    """Send *data* and return all that comes back.

    Our half stays open until something has come, or for *first* seconds: what was sent may be no whole request.

    Raises:
        TimeoutError: the other side neither answered nor ended within *patience* seconds.

    """
    deadline, answer = time.monotonic() + patience, bytearray()
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.settimeout(patience)
        sock.connect(str(path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
            sock.sendall(data)
        sock.settimeout(first)
        with contextlib.suppress(TimeoutError):
            answer += sock.recv(65536)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(patience)
        while chunk := sock.recv(65536):
            answer += chunk
            if time.monotonic() > deadline:
                raise TimeoutError
    return bytes(answer)


def judged(path: Path, name: str, data: bytes, *, first: float = 1.0, patience: float = PATIENCE) -> list[str]:
    """Return what is wrong with the answer to *data*: a hang, an undeclared error, or something that is no HTTP."""
    try:
        answer = exchange(path, data, first=first, patience=patience)
    except TimeoutError:
        return [f"{name}: neither an answer nor an end within {patience:g} s"]
    if not answer:
        return []  # the connection was ended: that is an answer too
    match = _STATUS.match(answer)
    if match is None:
        return [f"{name}: {answer[:60]!r} is no HTTP"]
    status = int(match[1])
    return [f"{name}: {status}"] if status >= 500 and status not in DECLARED else []


def responsive(path: Path, *, during: str, patience: float = PATIENCE) -> list[str]:
    """Return what is wrong if an honest client is not served now."""
    try:
        answer = exchange(path, _LAST, first=patience, patience=patience)
    except (TimeoutError, OSError) as error:
        return [f"an honest client was not served during {during}: {type(error).__name__}"]
    return [] if answer.startswith(b"HTTP/1.1 200 ") else [f"an honest client got {answer[:40]!r} during {during}"]


def streams(count: int, *, seed: int) -> Iterator[bytes]:
    """Yield *count* streams of bytes: noise, and requests with bytes put in, taken out, changed and doubled."""
    chance = random.Random(f"{seed}-streams")
    models = [_GET, _POST + _JOB, *(data for data in MALFORMED.values() if len(data) < 2000)]
    for _ in range(count):
        if chance.random() < 0.2:
            yield chance.randbytes(chance.randrange(1, 2000))
            continue
        data = bytearray(chance.choice(models))
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.choice((0, 0, 1, 1, 4, 40))] = chance.choice(
                (b"", b"\r\n", b"\0", b":", chance.randbytes(3), bytes(data[:at][-20:]), b"\r\n\r\n" + _GET)
            )
        # An endless stream is an honest answer, but not one to wait for.
        yield bytes(data).replace(b"/events", b"/eventz").replace(b"/shutdown", b"/shutdowm") or b"\0"


def pipelining(path: Path, *, count: int = 100) -> list[str]:
    """Send many requests at once; each is answered, in order."""
    try:
        answer = _until_closed(path, _GET * (count - 1) + _LAST)
    except TimeoutError:
        return ["pipelined requests were not answered"]
    answered = [int(status) for status in _STATUS.findall(answer)]
    return [] if answered == [200] * count else [f"{count} pipelined requests got {len(answered)} answers"]


def _until_closed(path: Path, data: bytes) -> bytes:
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(data)
        while chunk := sock.recv(65536):
            answer += chunk
    return bytes(answer)


@contextlib.contextmanager
def slow_senders(path: Path, *, count: int) -> Iterator[list[socket.socket]]:
    """Hold *count* connections open, each with half a request sent."""
    socks = []
    try:
        for number in range(count):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            sock.sendall(_POST[: 5 + number % (len(_POST) - 5)] if number % 2 else _POST + _JOB[:5])
            socks.append(sock)
        yield socks
    finally:
        for sock in socks:
            sock.close()


@contextlib.contextmanager
def never_reading(path: Path, *, count: int, requests: int = 200) -> Iterator[None]:
    """Hold *count* connections that ask for far more than fits into the socket and read none of it."""
    socks = []
    try:
        for number in range(count):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
            sock.connect(str(path))
            what = b"/openapi.json" if number % 2 else b"/v1/events"
            with contextlib.suppress(BlockingIOError):
                sock.sendall((b"GET " + what + b" HTTP/1.1\r\nHost: m\r\n\r\n") * requests)
            socks.append(sock)
        yield
    finally:
        for sock in socks:
            sock.close()


def ended_by_the_other_side(socks: Sequence[socket.socket], *, within: float) -> int:
    """Send a byte a second on each connection and return how many were ended within *within* seconds."""
    living, deadline = set(socks), time.monotonic() + within
    while living and time.monotonic() < deadline:
        for sock in list(living):
            try:
                sock.sendall(b"x")
            except OSError:
                living.discard(sock)
        time.sleep(1.0)
    return len(socks) - len(living)


def slope(samples: Sequence[tuple[int, int]]) -> float:
    """Return by how much the second number of *samples* grows for each unit of the first (least squares)."""
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0
