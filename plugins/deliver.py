"""The task ``deliver``: tells somebody that a job has ended, as a ``[[notify]]`` entry of the configuration says.

The daemon makes these jobs. A try that fails is tried again by the ledger's rules; the entry is looked up anew each
time, so addresses and secrets stand in the configuration only, and mending one there mends the deliveries that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from jobs.errors import InvalidRequest
from jobs.failpoints import reach
from plugins.hookspecs import hookimpl
from plugins.task import Task, TaskContext

#: The task's name.
DELIVER: Final = "deliver"

#: Who sends: the entry, what is told, the context. Raises `RequestFailed` for what may pass.
Send = Callable[[Mapping[str, Any], Mapping[str, Any], TaskContext], str]


class DeliverParams(BaseModel):
    """What to tell whom."""

    model_config = ConfigDict(extra="forbid")

    notify: str = Field(min_length=1, description="Name of the [[notify]] entry.")
    about: dict[str, Any] = Field(
        default={"job": "test", "task": "test", "state": "succeeded", "outputs": [], "error": None},
        description="What to tell; default: a test message.",
    )


class Deliver:
    """See `plugins.task.Task`. *senders* is kind -> who sends."""

    name = DELIVER
    summary = "Tell somebody that a job has ended, as a [[notify]] entry says."
    params: type[BaseModel] = DeliverParams

    def __init__(self, senders: Mapping[str, Send]) -> None:
        self._senders = senders

    def run(self, ctx: TaskContext, params: DeliverParams) -> Mapping[str, Any]:
        """Send once.

        Raises:
            InvalidRequest: the entry is gone, or can never work on this machine.
            RequestFailed: it did not work; it is tried again.

        """
        targets: Mapping[str, Mapping[str, Any]] = ctx.settings.get("targets", {})
        if params.notify not in targets:
            raise InvalidRequest(
                f"There is no [[notify]] entry called {params.notify!r} in the configuration (any more).",
                notify=params.notify,
            )
        target = targets[params.notify]
        ctx.check()
        told = self._senders[target["kind"]](target, params.about, ctx)
        reach("notice.sent")
        return {"text": told}


@hookimpl
def mlxd_register_tasks(register: Callable[[Task], None]) -> None:
    """Offer the task."""
    from plugins import deliver_programs, deliver_webhook

    register(
        Deliver(
            {
                "notification": deliver_programs.notification,
                "command": deliver_programs.command,
                "shortcut": deliver_programs.shortcut,
                "webhook": deliver_webhook.webhook,
            }
        )
    )
