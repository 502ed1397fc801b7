"""What jobs did, kept: sidecars beside their outputs, recipes in the ledger, and recorded results given back.

The order in one job: hash the input, look for the same work, otherwise run the task; then the sidecars (each as durable
and whole as the output it lies beside), then the recipe, and only then does the executor record the success.
Nothing here can fail a job: what cannot be kept is logged.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from daemon import reuse
from daemon.config.model import OutputsConfig
from daemon.context import RunContext
from daemon.hashing import Inputs, hash_inputs
from daemon.models.identity import identify, same
from daemon.models.references import ResolvedModel
from jobs import provenance
from jobs.errors import InvalidInput, LedgerUnavailable, MlxdError, OutputError, StaleFence
from jobs.failpoints import reach
from jobs.ledger import Ledger
from jobs.model import Job
from jobs.provenance import UsedModel
from plugins.inputs import opening
from plugins.task import Task

log = logging.getLogger(__name__)

#: Distributions that have a say in what a model answers.
_DECISIVE: Final = ("mlxd", "mlx", "mlx-lm", "mlx-whisper")
#: Longest file name, bytes.
_LONGEST: Final = 255


@cache
def versions() -> Mapping[str, str]:
    """Return the installed versions of what decides a result, without importing any of it."""
    found = {}
    for name in _DECISIVE:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class _Case(NamedTuple):
    """One attempt of one job, as far as it is to be kept."""

    job: Job
    params: BaseModel
    context: RunContext
    inputs: Inputs
    #: Of its recipe; None: the same work may give another result.
    key: str | None


class Records:
    """Runs tasks and keeps what they did. *resolver* gives what turns a model's name and runtime into a folder."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        settings: Callable[[], OutputsConfig],
        defaults: Callable[[str], Mapping[str, Any]],
        resolver: Callable[[], Callable[[str | None, str], ResolvedModel]],
        task: Callable[[str], Task],
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._defaults = defaults
        self._resolver = resolver
        self._task = task
        self._clock = clock

    def run(
        self, job: Job, params: BaseModel, context: RunContext, run: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return what *run* returns, or what it returned when the same work was done before."""
        settings, task = self._settings(), self._task(job.task)
        beside = settings.provenance if job.provenance is None else job.provenance
        # In mlxd's own results folder the ledger knows everything; a sidecar there is for whoever asks for it.
        beside = beside and (job.placement.directory is not None or bool(job.provenance))
        reusing = reuse.wanted(job, settings.reuse) and _repeatable(task)
        if not (beside or reusing):
            return run()
        context.identify = self._identify
        inputs = hash_inputs(params, **opening(job.placement), check=context.check)
        case = _Case(job, params, context, inputs, self._key(job, task, context, inputs))
        known = self._recorded(case) if reusing else None
        result = run() if known is None else known
        if isinstance(result, Mapping):
            self._keep(case, result, beside=beside)
        return result

    def _key(self, job: Job, task: Task, context: RunContext, inputs: Inputs) -> str | None:
        if not _repeatable(task) or inputs.params is None:
            return None
        file = inputs.input.path if inputs.input else None
        work = reuse.Work(
            task=job.task,
            params=inputs.params,
            versions={**versions(), "task": _stamp(task)},
            beside=file is not None and Path(file).parent == context.directory,
        )
        return reuse.key(work)

    def _identify(self, ref: str | None, runtime: str, info: Mapping[str, Any]) -> UsedModel | None:
        """Say which model was leased; None where that cannot be told."""
        try:
            return identify(self._resolver()(ref, runtime), ref, info)
        except (MlxdError, OSError) as error:
            log.warning("Which model %s is cannot be told: %s", ref or runtime, error, extra={"action": "unidentified"})
            return None

    # The same work, done before.

    def _recorded(self, case: _Case) -> dict[str, Any] | None:
        if case.key is None:
            return None
        for old, details in self._ledger.recorded(case.key):
            found = self._outputs(old, details)
            if old.id != case.job.id and found is not None and self._same_models(details):
                return self._give(case, old, details, found)
        return None

    def _same_models(self, details: Mapping[str, Any]) -> bool:
        """Tell whether the models of a recorded job would be the ones used today."""
        for one in details["models"]:
            then = UsedModel.model_validate(one)
            now = self._identify(then.ref, then.runtime, {})
            if now is None or not same(then, now):
                return False
        return True

    def _outputs(self, old: Job, details: Mapping[str, Any]) -> dict[str, bytes] | None:
        """Return the content of a recorded job's outputs by name, None if one is not as it was."""
        names: Mapping[str, str] = details["names"]
        known = {str(output.path): output for output in old.outputs}
        if set(names.values()) != set(known) or sum(one.size for one in old.outputs) > reuse.MOST_BYTES:
            return None
        found = {}
        for name, path in names.items():
            try:
                content = Path(path).read_bytes()
            except OSError:
                return None
            if hashlib.sha256(content).hexdigest() != known[path].sha256:
                return None
            found[name] = content
        return found

    def _give(self, case: _Case, old: Job, details: Mapping[str, Any], found: Mapping[str, bytes]) -> dict[str, Any]:
        """Write the recorded outputs under the new job's names and return the result told with them."""
        before = reuse.layout(old, Path(details["directory"]))
        after = reuse.layout(case.job, case.context.directory)
        paths = {}
        for name, content in found.items():
            paths[details["names"][name]] = str(case.context.output(reuse.renamed(name, before, after), content).path)
        case.context.used.extend(UsedModel.model_validate(one) for one in details["models"])
        result = dict(old.result or {})
        log.info("Done before, by job %s.", old.id, extra={"action": "reused", **case.job.log_context})
        return {**reuse.retold(result, paths), "reused_from": result.get("reused_from") or old.id}

    # Keeping.

    def _keep(self, case: _Case, result: Mapping[str, Any], *, beside: bool) -> None:
        inputs = case.inputs.checked()
        try:
            if beside:
                self._write_sidecars(case, inputs, result)
                reach("sidecar.written")
            if case.key is not None and inputs.params is not None and case.context.repeatable(self._task):
                details = {
                    "directory": str(case.context.directory),
                    "names": {name: str(path) for name, path in case.context.names().items()},
                    "models": [one.model_dump(mode="json") for one in case.context.used],
                }
                key, job = case.key, case.job
                case.context.persist(lambda: self._ledger.record_recipe(job.id, job.fence, key, details))
        except (StaleFence, LedgerUnavailable):
            raise
        except (MlxdError, OSError) as error:
            log.warning("What made it could not be kept: %s", error, extra={"action": "unkept", **case.job.log_context})

    def _write_sidecars(self, case: _Case, inputs: Inputs, result: Mapping[str, Any]) -> None:
        outputs = case.context.outputs
        if not outputs:
            return
        params, defaults = case.job.params, dict(self._defaults(case.job.task))
        in_force = case.params.model_dump(mode="json")
        made = provenance.made_by(
            case.job,
            params=provenance.kept_params(params),
            defaults=defaults,
            hashes=provenance.text_hashes(in_force),
            input=inputs.input,
            models=tuple(case.context.used),
            versions=dict(versions()),
            seed=in_force.get("seed"),
            usage=provenance.usage(result),
            done=self._clock(),
            reused_from=result.get("reused_from"),
        )
        for output, content in provenance.sidecars(made, outputs):
            path = provenance.sidecar_of(output.path)
            if len(path.name.encode()) > _LONGEST:
                raise OutputError(f"{output.path.name} is too long a name for a provenance file beside it.")
            _make_way(path, case.context)
            case.context.put_beside(path, content)


def _make_way(path: Path, context: RunContext) -> None:
    """Remove a sidecar whose output is gone, for its name is taken by ours now; refuse to touch anything else."""
    if not path.exists() or context.wrote(path):
        return
    try:
        provenance.read(path)
    except InvalidInput as error:
        raise OutputError(f"{path} is there already and is not ours.", path=str(path)) from error
    path.unlink()


def _repeatable(task: Task) -> bool:
    return bool(getattr(task, "repeatable", False))


def _stamp(task: Task) -> str:
    """Return a text that changes with the code of *task*: a plugin may be edited without a new version."""
    file = getattr(sys.modules.get(type(task).__module__), "__file__", None)
    try:
        status = Path(file).stat() if file else None
    except OSError:
        status = None
    return f"{status.st_size},{status.st_mtime_ns}" if status else ""
