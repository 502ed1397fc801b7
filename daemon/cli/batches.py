"""What `mlxd submit batch` can do beside submitting: go on with an earlier batch, and say beforehand what one takes."""

from __future__ import annotations

import json
from typing import Any, Final

from daemon.cli.console import Exit, absolute, note, write, write_json
from daemon.cli.transport import Transport, job_path, pages
from jobs.errors import InvalidInput, InvalidParams, MlxdError

#: Finished batches that are asked how fast they went.
_LOOK_BACK: Final = 20
_MINUTE: Final = 60
_HOUR: Final = 3600


def only_failed(transport: Transport, which: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return *body* so that it does what failed or was left in the batch *which*: a job's id, or a manifest's path.

    What the command line did not say is as it was in that batch, its input and its folder among it.

    Raises:
        InvalidInput: there is no such manifest.
        InvalidParams: it is no batch, or it has not ended.

    """
    path = absolute(which)
    if path.is_file():
        manifest, job_id = str(path), _job_of(path.read_bytes(), which)
    else:
        manifest, job_id = None, which
    try:
        old = transport.ask("GET", job_path(job_id))
    except MlxdError:
        if manifest is None:
            raise
        return {**body, "params": {**body["params"], "only_failed": manifest}}
    if old["task"] != "batch":
        raise InvalidParams(f"Job {old['id']} is no batch but {old['task']!r}.")
    manifest = manifest or _manifest_of(old)
    params, said = dict(old["params"]), body["params"]
    if {"file", "folder"} & set(said):
        params.pop("file", None)
        params.pop("folder", None)
    for name in ("limit", "only_failed"):
        params.pop(name, None)
    kept = {name: value for name, value in old["placement"].items() if name in ("directory", "stem") and value}
    return {
        **body,
        "params": {**params, **said, "only_failed": manifest},
        "placement": {**kept, **body["placement"]},
        "parent": old["id"],
    }


def _job_of(manifest: bytes, which: str) -> str:
    try:
        return str(json.loads(manifest)["job"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{which} is no manifest of a batch.") from error


def _manifest_of(job: dict[str, Any]) -> str:
    told = (job["result"] or {}).get("manifest")
    found = [output["path"] for output in job["outputs"] if output["path"].endswith("manifest.json")]
    if told or found:
        return str(told or found[-1])
    raise InvalidParams(f"Job {job['id']} is {job['state']} and has no manifest; `mlxd retry` repeats a whole job.")


def show_estimate(transport: Transport, body: dict[str, Any], *, as_json: bool) -> int:
    """Print what the batch in *body* would take; nothing is submitted."""
    from pydantic import ValidationError

    from plugins.batch_estimate import estimate, pace
    from plugins.batch_items import chosen_items
    from plugins.batch_params import Params

    try:
        params = Params.model_validate(body["params"])
    except ValidationError as error:
        problems = "; ".join(one["msg"] for one in error.errors())
        raise InvalidParams(f"This batch cannot be submitted: {problems}.") from error
    items = chosen_items(params, follow=True)
    try:
        jobs = list(pages(transport, {"task": "batch", "state": ["succeeded"]}, limit=_LOOK_BACK))
    except MlxdError:  # no daemon, no past: the counting is done here all the same
        jobs = []
    found = estimate(items, params, pace(jobs, params.model))
    if as_json:
        write_json(found)
    else:
        _draw(found)
    return Exit.OK


def _draw(found: dict[str, Any]) -> None:
    write(f"{found['items']} items" + (f", {found['left']} left for later" if found["left"] else ""))
    if found["broken"]:
        write(f"{found['broken']} that cannot be done, the first: {found['problems'][0]}")
    write(f"about {found['prompt_tokens']:,} tokens to read")
    likely = f"about {found['completion_tokens']:,}" if found["completion_tokens"] is not None else "unknown how many"
    write(f"{likely} tokens to write, {found['completion_tokens_most']:,} at most")
    if found["seconds"] is None:
        note("How long it takes is not known: no batch of this model has been done here yet.")
    else:
        based = found["based_on"]
        write(f"about {_span(found['seconds'])} (as {based['items']} items in {based['batches']} batches before)")


def _span(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"
