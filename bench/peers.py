"""What the daemon is compared with, started as a person would: mlx-lm's own server, its command, its library."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from machine import environment_of_models, interpreter

#: Seconds that a peer may take to load its model or to answer.
PATIENCE = 900.0
#: Seconds from which on connecting to a port of this machine means that its backlog was full: the kernel tries again.
SLOW = 0.5


class Library:
    """`bench/peer.py` as a child: stream_generate and BatchGenerator."""

    def __init__(self, model: Path, *, blas: str | None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = subprocess.Popen(
            [interpreter(), str(Path(__file__).with_name("peer.py")), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment_of_models(blas),
            text=True,
        )
        self._read()

    def ask(self, do: str, texts: Sequence[str], most: int, rows: int = 1) -> tuple[float, list[str]]:
        """Return the seconds and the answers."""
        assert self._child.stdin is not None  # noqa: S101 - it was asked for
        print(json.dumps({"do": do, "texts": texts, "most": most, "rows": rows}), file=self._child.stdin, flush=True)
        told = self._read()
        return float(told["seconds"]), list(told["texts"])

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None  # noqa: S101 - it was asked for
        line = self._child.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"mlx-lm's child ended:\n{self._errors.read().decode('utf-8', 'replace')[-2000:]}")
        return dict(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        assert self._child.stdin is not None  # noqa: S101 - it was asked for
        self._child.stdin.close()
        self._child.wait(PATIENCE)
        self._errors.close()


class Server:
    """`mlx_lm.server` on a port of this machine, with room for *rows* answers at once."""

    def __init__(self, model: Path, *, blas: str | None, rows: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._model = str(model)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        command = [interpreter(), "-m", "mlx_lm", "server", "--model", self._model, "--port", str(self._port)]
        self._child = subprocess.Popen(
            [*command, "--decode-concurrency", str(rows), "--log-level", "WARNING"],
            stdout=self._errors,
            stderr=self._errors,
            env=environment_of_models(blas),
        )
        self._lock = threading.Lock()
        #: Connections that it refused or dropped, and that were tried again; those that waited for its backlog of five.
        self.refused = self.waited = 0
        self.complete("a", 1)  # the model is loaded then
        self.refused = self.waited = 0

    def complete(self, text: str, most: int) -> dict[str, Any]:
        """Return its answer to *text*."""
        response = self._post({"prompt": text, "max_tokens": most, "stream": False})
        answer = json.loads(response.read())
        response.close()
        return {"text": answer["choices"][0]["text"], **answer["usage"]}

    def first(self, text: str, most: int) -> float:
        """Return the seconds until the first piece of the answer to *text*; read the rest of it, too."""
        began = time.perf_counter()
        response = self._post({"prompt": text, "max_tokens": most, "stream": True})
        seconds = 0.0
        for line in response:
            if line.startswith(b"data:") and not seconds:
                seconds = time.perf_counter() - began
        response.close()
        return seconds

    def all(
        self, texts: Sequence[str], most: int, clients: int, *, stop: Callable[[], bool] = lambda: False
    ) -> list[dict[str, Any]]:
        """Answer *texts* with so many clients, each of which asks for the next one when it has its answer."""
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(lambda text: {} if stop() else self.complete(text, most), texts))

    def _post(self, what: dict[str, Any]) -> http.client.HTTPResponse:
        """Send a completion; a connection that is refused (its backlog holds five) is tried again."""
        body = json.dumps({"model": self._model, "temperature": 0.0, **what})
        deadline = time.monotonic() + PATIENCE
        while True:
            self._check()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            began = time.monotonic()
            try:
                connection.connect()
                if time.monotonic() - began > SLOW:
                    with self._lock:
                        self.waited += 1
                connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine) as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise SystemExit("mlx_lm.server does not answer.") from error
                with self._lock:
                    self.refused += 1
                time.sleep(0.02)
                continue
            if response.status != http.client.OK:
                raise SystemExit(f"mlx_lm.server answered {response.status}: {response.read()[:500]!r}")
            return response

    def _check(self) -> None:
        if self._child.poll() is not None:
            self._errors.seek(0)
            raise SystemExit(f"mlx_lm.server ended:\n{self._errors.read().decode('utf-8', 'replace')[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._child.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        self._child.kill()
        self._child.wait()
        self._errors.close()


def command_line(model: Path, text: str, most: int, *, blas: str | None) -> tuple[float, float, str]:
    """Run `python -m mlx_lm generate`; return the seconds until its first text, until its end, and the text."""
    command = [interpreter(), "-m", "mlx_lm", "generate", "--model", str(model), "--prompt", text]
    command += ["--max-tokens", str(most), "--temp", "0", "--ignore-chat-template"]
    return first_output(command, environment_of_models(blas), after=b"==========\n")


def first_output(command: Sequence[str], environ: dict[str, str], *, after: bytes = b"") -> tuple[float, float, str]:
    """Return the seconds until *command* prints something behind *after*, until it ends, and all it printed there."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=errors, env={**environ, "PYTHONUNBUFFERED": "1"}
        )
        assert child.stdout is not None  # noqa: S101 - it was asked for
        said, first = b"", 0.0
        while True:
            select.select([child.stdout], [], [])
            piece = os.read(child.stdout.fileno(), 1 << 16)
            said += piece
            if not first and _behind(said, after):
                first = time.perf_counter() - began
            if not piece:
                break
        child.stdout.close()
        if child.wait():
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read().decode('utf-8', 'replace')[-2000:]}")
    return first, time.perf_counter() - began, _behind(said, after).decode("utf-8", "replace")


def _behind(said: bytes, mark: bytes) -> bytes:
    return said.partition(mark)[2] if mark else said
