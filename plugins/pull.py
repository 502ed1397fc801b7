"""The task ``pull``: fetches a model from the Hugging Face hub into the hub's own cache.

The fetching is done by a child process (`plugins.pull_child`): the daemon imports no hub library, and a cancelled job
ends the download at once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from jobs.errors import InvalidRequest, RequestFailed
from plugins.hookspecs import hookimpl
from plugins.task import Task, TaskContext

_HUB_ID: Final = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]{1,128})?", re.ASCII)


class PullParams(BaseModel):
    """What to fetch."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="A hub id: org/name, with @revision for one that is not the newest.")

    @field_validator("model")
    @classmethod
    def _hub_id(cls, value: str) -> str:
        if not _HUB_ID.fullmatch(value) or ".." in value:
            raise ValueError(
                "must be a hub id: org/name or org/name@revision (demo models and folders are here already)"
            )
        return value


def _command(repo: str, revision: str) -> list[str]:
    # -I: neither the current folder nor PYTHONPATH may put another module in the place of ours.
    return [sys.executable, "-I", "-m", "plugins.pull_child", repo, revision]


class PullTask:
    """See `plugins.task.Task`. *command* makes the child's command line."""

    name = "pull"
    summary = "Fetch a model from the Hugging Face hub (safetensors and its configuration, never code)."
    params: type[BaseModel] = PullParams

    def __init__(self, command: Callable[[str, str], Sequence[str]] = _command) -> None:
        self._command = command

    def run(self, ctx: TaskContext, params: PullParams) -> Mapping[str, Any]:
        """Fetch, telling how many bytes are here.

        Raises:
            InvalidRequest: there is no such model, or it must not be read with the token there is.
            RequestFailed: the network or the disk failed; what is here already is kept for the next attempt.

        """
        repo, _, revision = params.model.partition("@")
        with subprocess.Popen(
            self._command(repo, revision or "main"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as child:
            try:
                return self._follow(ctx, child, params.model)
            finally:
                child.kill()  # when it has ended by itself this does nothing

    def _follow(self, ctx: TaskContext, child: subprocess.Popen[bytes], model: str) -> Mapping[str, Any]:
        for message in _messages(child):
            ctx.check()
            if "error" in message:
                kind = InvalidRequest if message.get("final") else RequestFailed
                raise kind(f"{model} could not be fetched: {message['error']}", model=model)
            if "path" in message:
                return {"text": message["path"], "path": message["path"], "model": model, "bytes": message["bytes"]}
            ctx.progress(message["done"], message["total"], unit="bytes", message=f"fetching {model}")
        raise RequestFailed(
            f"{model} could not be fetched: the fetching process ended with {child.wait()}.", model=model
        )


def _messages(child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the child's messages; a library that prints does not disturb."""
    for line in child.stdout or ():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict) and message.keys() & {"error", "path", "done"}:
            yield message


@hookimpl
def mlxd_register_tasks(register: Callable[[Task], None]) -> None:
    """Offer the task."""
    register(PullTask())
