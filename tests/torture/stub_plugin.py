"""A single-file plugin without MLX: a task and a runtime whose results follow from the job's key alone.

It is copied into a home's plugin folder; the home is found from there. Each execution leaves lines in the home's
``executions.log``: ``begin|step|end KEY FENCE PID MONOTONIC [STEP]``, the key percent-encoded, each line one write.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pluggy
from pydantic import BaseModel

hookimpl = pluggy.HookimplMarker("mlxd")

HOME = Path(__file__).absolute().parents[1]


def expected(key: str, size: int = 64) -> str:
    """Return the text of the stub for *key*: *size* characters that nothing but the key decides."""
    blocks = (hashlib.sha256(f"{key}:{number}".encode()).hexdigest() for number in range(size // 64 + 1))
    return "".join(blocks)[:size]


def expected_output(key: str, index: int, size: int = 64) -> bytes:
    """Return the content of the stub's output file number *index*."""
    return (expected(f"{key}#{index}", size) + "\n").encode()


class Params(BaseModel):
    """What a stub job may be asked for."""

    #: Decides the result; with `file` and no key it is the SHA-256 of the file's content.
    key: str = ""
    file: Path | None = None
    #: Each step ends with a checkpoint if there are several.
    steps: int = 1
    #: Characters of the text and of each output.
    size: int = 64
    #: How long the job takes in all, seconds.
    seconds: float = 0.0
    #: How many files it writes.
    outputs: int = 1
    #: The model whose runner makes the text, e.g. "stub:a"; None: made by the task itself, in the daemon.
    model: str | None = None
    #: Misfortune in the runner, see `misbehave`; without a model the task itself raises ("raise") or hangs ("hang").
    behave: str = ""
    #: The misfortune comes only in attempts (fences) up to this one; 0: in every one.
    until_fence: int = 0


class Stub:
    """The task."""

    name, summary, params = "stub", "Makes a text out of a key.", Params
    #: So that the daemon knows which model a job will ask for.
    runtime = "stub"

    def run(self, ctx: Any, params: Params) -> Mapping[str, Any]:
        """Do the steps that are left, then write the files."""
        read = params.file.read_bytes() if params.file else None
        key = params.key or hashlib.sha256(read or b"").hexdigest()
        fence, text = ctx.job.fence, None
        note("begin", key, fence)
        for step in range((ctx.saved or {}).get("done", 0), params.steps):
            ctx.check()
            text = self._step(ctx, params, key, params.seconds / params.steps)
            note("step", key, fence, step)
            if params.steps > 1:
                ctx.checkpoint({"done": step + 1})
                ctx.progress(step + 1, params.steps, unit="steps")
        if text is None:  # an earlier attempt died after the last step
            text = self._step(ctx, params, key, 0.0)
        for index in range(params.outputs):
            ctx.output(f"{ctx.stem or 'stub'}-{index}.txt", expected_output(key, index, params.size))
        note("end", key, fence)
        return {"text": text, "key": key, "size": params.size, "input_bytes": None if read is None else len(read)}

    def _step(self, ctx: Any, params: Params, key: str, seconds: float) -> str:
        """Return the text, made by the runner or here, after *seconds*."""
        behave = "" if params.until_fence and ctx.job.fence > params.until_fence else params.behave
        if params.model is not None:
            request = {"key": key, "size": params.size, "seconds": seconds, "behave": behave}
            with ctx.models(params.model, runtime="stub") as model:
                return str(model.submit(request, on_event=lambda *_: None).result()["text"])
        if behave == "raise":
            raise RuntimeError("the stub was told to raise")
        deadline = time.monotonic() + (600 if behave == "hang" else seconds)
        while (left := deadline - time.monotonic()) > 0:
            ctx.check()
            time.sleep(min(left, 0.01))
        return expected(key, params.size)


def note(what: str, key: str, fence: int, *more: object) -> None:
    """Append one line to the log of executions."""
    line = " ".join(map(str, (what, quote(key, safe=""), fence, os.getpid(), f"{time.monotonic():.6f}", *more)))
    file = os.open(HOME / "executions.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


class Session:
    """A loaded stub: tells a token every few milliseconds until the request's time is over.

    It also answers what the `batch` and `generate` tasks ask a language model: the prompt is the key, each takes the
    option "item_seconds" and leaves a line ``item PROMPT 0 PID MONOTONIC`` when it is done.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.info = {"pid": os.getpid(), **options}
        self._item_seconds = float(options.get("item_seconds", 0.02))
        self._requests: dict[str, dict[str, Any]] = {}

    @property
    def busy(self) -> bool:
        """Whether there is a request."""
        return bool(self._requests)

    def submit(self, request_id: str, request: Mapping[str, Any]) -> None:
        """Take a request: key, size, seconds, behave; or a prompt, or a chat."""
        asked = dict(request)
        if "key" not in asked:
            asked |= {"key": asked.get("prompt") or asked["messages"][-1]["content"], "seconds": self._item_seconds}
            asked["item"] = True
        self._requests[request_id] = {**asked, "until": time.monotonic() + asked.get("seconds", 0.0)}

    def cancel(self, request_id: str) -> None:
        """Forget it."""
        self._requests.pop(request_id, None)

    def step(self) -> Any:
        """Tell a token of every request, and the end of those whose time is over."""
        for request_id, request in list(self._requests.items()):
            misbehave(str(request.get("behave", "")))
            if time.monotonic() < request["until"]:
                yield request_id, "token", {"text": "x"}
                continue
            del self._requests[request_id]
            if request.get("item"):
                note("item", request["key"], 0)
            text = expected(request["key"], request.get("size", 64))
            yield request_id, "done", {"text": text, "finish_reason": "stop", "completion_tokens": 1}
        if self._requests:
            time.sleep(0.005)

    def close(self) -> None:
        """Nothing to give back."""


_EATEN: list[bytearray] = []


def misbehave(how: str) -> None:
    """Do what breaks a runner: "exit1", "hang", "stop", "eat", or a signal's name ("SIGABRT", "SIGSEGV", "SIGKILL")."""
    if how.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[how])
        time.sleep(60)
    elif how == "poison":
        os.abort()
    elif how == "exit1":
        os._exit(1)
    elif how == "hang":
        time.sleep(600)
    elif how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "eat":
        while True:
            _EATEN.append(bytearray(os.urandom(1)) * (16 * 1024 * 1024))


class StubRuntime:
    """The runtime."""

    name, summary = "stub", "A runtime without MLX."

    def estimate(self, model: Path, options: Mapping[str, Any]) -> Any:
        """Say what the options say: "bytes", by default next to nothing."""
        from plugins.runtime import Estimate

        return Estimate(int(options.get("bytes", 1)), 1)

    def load(self, model: Path, options: Mapping[str, Any]) -> Session:
        """Load, which takes "load_seconds" of the options."""
        note("load", model.name, 0)
        deadline = time.monotonic() + options.get("load_seconds", 0.0)
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        misbehave(str(options.get("behave", "")))
        return Session(options)


@hookimpl
def mlxd_register_tasks(register: Any) -> None:
    """Offer the task."""
    register(Stub())


@hookimpl
def mlxd_register_runtimes(register: Any) -> None:
    """Offer the runtime."""
    register(StubRuntime())
