"""Fakes for runners and the scheduler: a runtime without MLX as a single-file plugin, an engine without a process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.models.launch import Launch, PluginPlace
from daemon.models.leases import Lease, Waiter
from daemon.models.references import ResolvedModel
from daemon.models.residents import Residents
from jobs.model import Lane

#: What the plugin does is said by each request's "do" and by the load options.
STUB = """
import os, signal, sys, time
import pluggy

hookimpl = pluggy.HookimplMarker("mlxd")


class Session:
    def __init__(self, options):
        self.info = {"pid": os.getpid(), "options": dict(options), "env": dict(os.environ)}
        self.requests = {}

    @property
    def busy(self):
        return bool(self.requests)

    def submit(self, request_id, request):
        if request.get("do") == "refuse":
            raise ValueError("not with me")
        if request.get("do") == "odd":
            raise KeyError("odd")
        self.requests[request_id] = dict(request)

    def cancel(self, request_id):
        self.requests.pop(request_id, None)

    def step(self):
        for request_id, request in list(self.requests.items()):
            do = request.get("do")
            if do == "die":
                print("last words", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            elif do == "run out":
                print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
                os.abort()
            elif do == "raise":
                raise RuntimeError("the session is broken")
            elif do == "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif do == "hang":
                if request.setdefault("told", False):
                    time.sleep(600)
                request["told"] = True
                yield request_id, "token", {"text": "x"}
                continue
            elif do == "print":
                print("garbage " * 100, flush=True)
                os.write(1, b"\\x00\\xff{not json}\\n")
            elif do == "nan":
                del self.requests[request_id]
                yield request_id, "done", {"value": float("nan")}
                continue
            elif do == "quiet" and request["steps"] > 0:
                request["steps"] -= 1
                time.sleep(0.01)
                continue
            elif do == "forever":
                yield request_id, "token", {"text": "x"}
                time.sleep(0.001)
                continue
            del self.requests[request_id]
            yield request_id, "token", {"text": "a"}
            yield request_id, "done", {"text": "a", "lane": request["lane"]}

    def close(self):
        print("closed", file=sys.stderr, flush=True)


class Stub:
    name = "stub"
    summary = "A runtime for tests"

    def estimate(self, model, options):
        from plugins.runtime import Estimate
        return Estimate(1, 1)

    def load(self, model, options):
        if message := options.get("raise"):
            raise ValueError(message)
        if options.get("exit"):
            sys.exit(3)
        if options.get("hang"):
            (model / "loading").write_text("")  # a pipe, if somebody waits for this
            time.sleep(600)
        if options.get("garbage"):
            print("{}" * 50, flush=True)
        if options.get("lower"):
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return Session(options)


@hookimpl
def mlxd_register_runtimes(register):
    register(Stub())
"""


def stub_launch(folder: Path, *, runtime: str = "stub", **more) -> Launch:
    """Return how to launch the stub, its plugin file written into *folder*."""
    folder.mkdir(exist_ok=True)
    (folder / "stub.py").write_text(STUB)
    place = PluginPlace(files=folder, entry_points=False)
    return Launch(runtime=runtime, model=folder, label="the stub", plugins=place, **more)


class FakeCall:
    """A call that has ended."""

    def __init__(self, request, lane):
        self.request, self.lane = request, lane

    def result(self):
        return {"lane": self.lane.value, **self.request}

    def cancel(self):
        """Nothing is under way."""


class FakeEngine:
    """An engine without a process: loading succeeds unless told otherwise."""

    def __init__(self, model: ResolvedModel, *, on_exit, on_memory) -> None:
        self.model, self.on_exit, self.on_memory = model, on_exit, on_memory
        self.info: dict[str, Any] = {"model": model.ref}
        self.pid = 4242
        self.failure: Exception | None = None
        self.calls: list[str] = []
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.on_wishes: Callable[[dict[str, Any]], None] | None = None
        self.ran_out = False
        self.memory: int | None = None

    def start(self) -> None:
        self.calls.append("start")
        if self.failure is not None:
            raise self.failure

    def submit(self, request, *, on_event=None, lane=Lane.NORMAL, alone=False, holder=None):
        return FakeCall(dict(request), lane)

    def stop(self, timeout: float) -> None:
        self.calls.append("stop")

    def kill(self) -> None:
        self.calls.append("kill")

    def order(self, op, **what):
        self.orders.append((op, what))

    def heard(self, op):
        """Return what it was last told of this kind, None if nothing."""
        return next((what for kind, what in reversed(self.orders) if kind == op), None)


class House:
    """`Residents` driven by hand: time, background work and posted events happen when the test says so."""

    def __init__(self, budget: int = 100, **more) -> None:
        self.time = 1000.0
        self.engines: list[FakeEngine] = []
        self.work: list[Callable[[], None]] = []
        self.posted: list[Callable[[], None]] = []
        self.failures: dict[str, Exception] = {}
        self.residents = Residents(
            spawn=self._spawn,
            budget=budget,
            clock=lambda: self.time,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            post=self.posted.append,
            background=self.work.append,
            **more,
        )

    def _spawn(self, model, *, on_exit, on_memory):
        engine = FakeEngine(model, on_exit=on_exit, on_memory=on_memory)
        engine.failure = self.failures.get(model.ref)
        self.engines.append(engine)
        return engine

    def ask(self, ref: str, need: int = 60, *, lane: Lane = Lane.NORMAL, say=None, **more) -> Waiter:
        """Let somebody ask for a model; returns at once."""
        model = ResolvedModel(ref=ref, runtime="lm", path=Path("/models") / ref, **more)
        waiter = Waiter(model, lane=lane, estimate=need, say=say)
        self.residents.arrive(waiter)
        self.settle()
        return waiter

    def settle(self) -> None:
        """Handle what was posted, as the scheduler's thread does."""
        while self.posted:
            self.posted.pop(0)()
            self.residents.settle()
        self.residents.settle()

    def run(self) -> None:
        """Let all background work end, and everything that follows from it."""
        while self.work or self.posted:
            while self.work:
                self.work.pop(0)()
            self.settle()

    def has(self, ref: str, need: int = 60, **more) -> Lease:
        """Return a lease on *ref*, loaded if need be."""
        waiter = self.ask(ref, need, **more)
        self.run()
        return waiter.result()

    @property
    def loaded(self) -> list[str]:
        """Names of what takes memory."""
        return [model.resolved.ref for model in self.residents.models.values()]
