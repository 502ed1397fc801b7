"""The task `batch`: a folder of prompts, a JSONL or a CSV file in; one output an item and a manifest.

1. All items share one lease; *concurrency* of them are in flight, so that the runtime can batch them.
2. Whatever is finished is on disk and in the checkpoint: the next attempt does the rest only.
3. An item that fails is asked again *retries* times, then stands in the manifest with its reason; the job fails when
   every item did (or with *on_error*).
4. When the runner dies, every item in flight may have killed it. They come last and each alone on the model; the one
   that kills its runner a third time fails, the others are done. When nothing but deaths comes of it, the model is to
   blame, and the job goes by the daemon's rules.
5. Results appear as they are made: each item's own file whole, at once, with an event ``item`` for whoever follows.
   ``results.jsonl`` and the manifest come at the end, because a file that grows is never whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from jobs.errors import InvalidInput, InvalidRequest, MlxdError, RequestFailed, RunnerDied
from jobs.names import numbered
from plugins.batch_items import chosen_items
from plugins.batch_params import Line, Params, line_of
from plugins.batch_record import Finished, Record, manifest, results_lines
from plugins.chat import Message
from plugins.generate import TEXT
from plugins.generation import Reply, Sampling, chat, parts_body, parts_file, read_reply
from plugins.hookspecs import hookimpl
from plugins.inputs import opening, read_text
from plugins.items import Item
from plugins.task import Call, ModelHandle, Task, TaskContext

#: What spoils one item and not the batch.
_ITEM_ERRORS: Final = (InvalidRequest, RequestFailed)
#: Runner deaths after which an item has failed; from the first one on it is asked alone.
_DEADLY: Final = 3
#: So many items in a row that failed like this, with none answered in between, are the model's doing.
_HOPELESS: Final = 3
#: Up to so many finished items each one is checkpointed; beyond, once a second, or writing would grow with the square.
_SMALL: Final = 500


class Batch:
    """Asks a language model many things at once. *clock* counts seconds."""

    name = "batch"
    summary = "Run a folder of prompts, a JSONL or a CSV file through a language model"
    params: type[BaseModel] = Params

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    def run(self, ctx: TaskContext, params: Params) -> dict[str, Any]:
        """Do every item that is not done yet, write the manifest and return the counts."""
        items = chosen_items(params, **opening(ctx.job.placement))
        ctx.input_read()
        run = _Run(ctx, params, items, clock=self._clock)
        run.finish_open_items()
        return run.conclude()


class _Run:
    """One attempt at one batch. Everything but `_answer` happens on the job's thread."""

    def __init__(self, ctx: TaskContext, params: Params, items: list[Item], *, clock: Callable[[], float]) -> None:
        self._ctx = ctx
        self._params = params
        self._items = items
        self._clock = clock
        self._prefix = f"{ctx.stem}." if ctx.stem else ""
        self._schema = params.schema_for_request()
        self._record = Record.restored(ctx.saved, ctx.directory, {item.key for item in items})
        self._calls: dict[str, Call] = {}
        self._ending = False
        self._started = clock()
        self._saved_at = float("-inf")
        self._tokens = 0
        self._killers = 0

    def finish_open_items(self) -> None:
        """Generate for every item that is not finished, as they come, *concurrency* at a time."""
        todo = deque(self._within_limit([item for item in self._items if not self._settled(item)]))
        self._tell()
        try:
            while todo:
                with self._ctx.models(self._params.model, runtime="lm", **self._params.lease) as model:
                    self._record.model = self._params.model or model.info.get("ref")
                    self._flow(model, todo)
        except MlxdError:
            # A stale fence refuses this, and then there is nothing to save: the job is somebody else's.
            with suppress(MlxdError):
                self._save(now=True)
            raise

    def _within_limit(self, todo: list[Item]) -> list[Item]:
        """Leave what is beyond the limit; what earlier attempts did counts too."""
        if self._params.limit is None:
            return todo
        room = max(0, self._params.limit - len(self._record.done))
        self._record.left.update(item.key for item in todo[room:])
        return todo[:room]

    def _settled(self, item: Item) -> bool:
        if item.key in self._record.done or self._found(item):
            return True
        if item.problem is not None:
            self._fail(item, InvalidInput(item.problem))
            return True
        if self._record.deaths.get(item.key, 0) >= _DEADLY:
            self._fail(item, _deadly(self._record.deaths[item.key]))
            return True
        if self._params.only_new and item.file is not None and self._up_to_date(item, item.file):
            self._record.skipped.add(item.key)
            return True
        return False

    def _found(self, item: Item) -> bool:
        """Tell whether an earlier attempt has written the item's file, but was killed before its next checkpoint."""
        if item.problem is not None:
            return False
        for suffix in (".txt", ".json"):
            name = f"{self._folder(item)}{item.output}{suffix}"
            written, beside = self._ctx.written(name), self._ctx.written(parts_file(name))
            if written is not None:
                parts = _relative(beside.path, self._ctx.directory) if beside is not None else ""
                place = _relative(written.path, self._ctx.directory)
                self._record.done[item.key] = Finished(place, None, None, "", parts)
                return True
        return False

    def _up_to_date(self, item: Item, file: Path) -> bool:
        """Tell whether an output is younger than its prompt; what a changed prompt gave lies beside it as ``(2)``."""
        suffix = ".json" if self._params.wants_json else ".txt"
        wanted = self._ctx.directory / f"{item.output}{suffix}"
        try:
            changed = file.stat().st_mtime
            for number in count(1):
                if wanted.with_name(numbered(wanted.name, number)).stat().st_mtime >= changed:
                    return True
        except OSError:
            pass
        return False

    def _flow(self, model: ModelHandle, todo: deque[Item]) -> None:
        """Do *todo* until nothing is left, or until the runner has died: what it left undone is in *todo* again."""
        self._ending, alive = False, True
        pool = ThreadPoolExecutor(self._params.concurrency, thread_name_prefix="mlxd-batch")
        flying: dict[Future[tuple[Reply, dict[str, Any]]], Item] = {}
        try:
            while True:
                self._ctx.check()
                self._fly(model, todo if alive else deque(), pool, flying)
                if not flying:
                    return
                ended = wait(flying, return_when=FIRST_COMPLETED).done
                alive = alive and not any(isinstance(future.exception(), RunnerDied) for future in ended)
                # Before anything is written: the model works on the next ones while the disk works on these.
                self._fly(model, todo if alive else deque(), pool, flying, landing=len(ended))
                for future in ended:
                    item = flying.pop(future)
                    if not self._land(item, future):
                        todo.append(item)
                self._save()
                self._tell()
        finally:
            self._ending = True
            for call in list(self._calls.values()):
                call.cancel()
            pool.shutdown(wait=True, cancel_futures=True)
            self._rescue(flying)

    def _fly(
        self,
        model: ModelHandle,
        todo: deque[Item],
        pool: ThreadPoolExecutor,
        flying: dict[Future[tuple[Reply, dict[str, Any]]], Item],
        *,
        landing: int = 0,
    ) -> None:
        """Ask for more of *todo* while there is room; *landing* of those in *flying* have been answered."""
        while todo and len(flying) - landing < self._params.concurrency:
            item = todo.popleft()
            flying[pool.submit(self._answer, model, item)] = item

    def _rescue(self, flying: dict[Future[tuple[Reply, dict[str, Any]]], Item]) -> None:
        """Keep what was answered while the job was made to stop: the next attempt need not ask it again."""
        for future, item in flying.items():
            if not future.cancelled() and future.exception() is None:
                # A stale fence or a full disk: then it is asked again, and whatever stopped the job is the news.
                with suppress(MlxdError):
                    self._take(item, *future.result())

    def _answer(self, model: ModelHandle, item: Item) -> tuple[Reply, dict[str, Any]]:
        """Ask for one item and wait; on a thread of the pool."""
        self._ctx.check()
        params, asked = self._asked(item)
        schema = self._schema if params.json_schema == self._params.json_schema else params.schema_for_request()
        request = params.request(asked, schema=schema, stream=False)
        request |= {"raw": True} if isinstance(params, Line) and params.raw else {}
        call = model.submit(request, alone=item.key in self._record.deaths)
        self._calls[item.key] = call
        if self._ending:  # it came too late for the round of cancelling in `_flow`
            call.cancel()
        try:
            done = call.result()
        finally:
            self._calls.pop(item.key, None)
        return read_reply(params, done), done

    def _asked(self, item: Item) -> tuple[Sampling, str | Sequence[Message]]:
        if item.file is not None:
            text = read_text(item.file, limit=self._params.max_input_bytes, follow=False).strip()
            prompt = (self._params.template or TEXT).replace(TEXT, text)
            return self._params, chat(prompt, self._params.system)
        line = line_of(item, self._params)
        if line.raw:
            return line, line.prompt or ""
        own = line.system is not None or any(one.role == "system" for one in line.messages or ())
        return line, chat(line.messages or line.prompt or "", line.system if own else self._params.system)

    def _land(self, item: Item, future: Future[tuple[Reply, dict[str, Any]]]) -> bool:
        """Take what came of an item; False if it is to be asked again."""
        try:
            reply, done = future.result()
        except RunnerDied as error:
            if not self._died(item, error):
                return False
        except _ITEM_ERRORS as error:
            asked = self._record.attempts.get(item.key, 1)
            if asked <= self._params.retries and _may_help(error, self._params):
                self._record.attempts[item.key] = asked + 1
                return False
            self._fail(item, error)
        else:
            self._take(item, reply, done)
        return True

    def _died(self, item: Item, error: RunnerDied) -> bool:
        """Take down that the runner died under *item*, unless it never got there; False if it is to be asked again."""
        if error.innocent:
            return False
        deaths = self._record.deaths[item.key] = self._record.deaths.get(item.key, 0) + 1
        self._save(now=True)
        if deaths < _DEADLY or error.facts.get("requests", 1) > 1:
            return False
        self._killers += 1
        if self._killers >= _HOPELESS:
            raise error
        self._record.attempts[item.key] = deaths
        self._fail(item, _deadly(deaths, error))
        return True

    def _take(self, item: Item, reply: Reply, done: dict[str, Any]) -> None:
        name = f"{self._folder(item)}{item.output}{reply.suffix}"
        # Before the answer: what is found of it after a crash is then all of it.
        beside = self._ctx.output(parts_file(name), parts_body(reply)) if self._has_parts(reply) else None
        written = self._ctx.output(name, reply.body)
        self._tokens += int(done.get("completion_tokens") or 0)
        self._killers = 0
        finished = Finished.of(_relative(written.path, self._ctx.directory), done)
        if beside is not None:
            finished = finished._replace(parts=_relative(beside.path, self._ctx.directory))
        self._record.done[item.key] = finished
        self._ctx.emit("item", self._record.entry(item))

    def _has_parts(self, reply: Reply) -> bool:
        """Whether an answer gets a second file; thoughts that nobody asked for do not clutter a folder."""
        return reply.asked_beside or (bool(reply.beside) and self._params.file is not None)

    def _folder(self, item: Item) -> str:
        return "" if item.file is not None else self._prefix

    def _fail(self, item: Item, error: MlxdError) -> None:
        if self._params.on_error == "fail":
            raise type(error)(f"Item {item.id}: {error.message}", **error.facts)
        self._record.failed[item.key] = error
        self._ctx.emit("item", self._record.entry(item))

    def _save(self, *, now: bool = False) -> None:
        moment = self._clock()
        if now or len(self._record.done) <= _SMALL or moment - self._saved_at >= 1.0:
            self._ctx.checkpoint(self._record.saved())
            self._saved_at = moment

    def _tell(self) -> None:
        record, elapsed = self._record, self._clock() - self._started
        finished = len(record.done) + len(record.failed) + len(record.skipped)
        total = len(self._items) - len(record.left)
        speed = f", {self._tokens / elapsed:.0f} tokens/s" if elapsed > 0 and self._tokens else ""
        failed = f", {len(record.failed)} failed" if record.failed else ""
        self._ctx.progress(finished, total, unit="items", message=f"{finished} of {total} items{failed}{speed}")

    def conclude(self) -> dict[str, Any]:
        """Write results and manifest and return the counts; raise the first item's error if none succeeded."""
        record = self._record
        if self._params.file is not None:
            created = int(self._ctx.job.created_at.timestamp())
            lines = results_lines(self._items, record, self._ctx.directory, job=self._ctx.job.id, created=created)
            self._ctx.output(f"{self._prefix}results.jsonl", lines)
        summary = record.summary(len(self._items))
        content = manifest(self._items, record, {"job": self._ctx.job.id, **summary})
        written = self._ctx.output(f"{self._prefix}manifest.json", content)
        self._save(now=True)
        total = len(self._items) - len(record.left)
        if total and len(record.failed) == total:
            first = next(record.failed[item.key] for item in self._items if item.key in record.failed)
            raise type(first)(f"All {total} items failed; the first: {first.message}", **first.facts)
        return {"text": record.sentence(), **summary, "manifest": str(written.path)}


def _may_help(error: MlxdError, params: Params) -> bool:
    """Tell whether asking again may help: a model that draws nothing gives the same unusable answer again."""
    unusable = "text" in error.facts
    return error.retryable and not (unusable and (params.temperature == 0 or params.seed is not None))


def _deadly(deaths: int, error: RunnerDied | None = None) -> RequestFailed:
    said = f" The last time: {error.message}" if error is not None else ""
    return RequestFailed(f"Its runner died {deaths} times, the last time with nothing else to do.{said}")


def _relative(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


@hookimpl
def mlxd_register_tasks(register: Callable[[Task], None]) -> None:
    """Offer `batch`."""
    register(Batch())
