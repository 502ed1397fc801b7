"""The whole contract between mlxd and a plugin: three hooks.

A plugin need not import mlxd: ``hookimpl = pluggy.HookimplMarker("mlxd")`` is enough. Registering must be cheap:
import MLX inside ``Runtime.load`` (which runs in a runner process), never at module level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from jobs.model import Job
    from plugins.runtime import Runtime
    from plugins.task import Task

#: Name of the pluggy project, and of the entry-point group.
PROJECT = "mlxd"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def mlxd_register_tasks(register: Callable[[Task], None]) -> None:
    """Offer tasks: call *register* once for each."""


@hookspec
def mlxd_register_runtimes(register: Callable[[Runtime], None]) -> None:
    """Offer runtimes: call *register* once for each."""


@hookspec
def mlxd_job_finished(job: Job) -> None:
    """Hear of a *job* that reached a terminal state. Called on a worker thread; what it raises is logged."""
