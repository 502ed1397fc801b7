"""Routes about jobs."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, StreamingResponse

from daemon.api.sse import EventStream
from daemon.api.submission import Submission, accepted
from daemon.events import LAGGED, SETTLED, STATE, Subscription
from daemon.views import ServiceFacade
from jobs.errors import JobNotFound
from jobs.model import Job, Lane, OutputFile, State

#: Seconds one request may wait for a job; who wants longer asks again.
MAX_WAIT: Final = 3600.0

_CREATED: Final = 201
_OK: Final = 200
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    _OK: {
        "description": "Server-sent events; `data` is JSON.",
        # As OpenAPI 3.2 says it: the schema of each event, not of the endless text.
        "content": {
            "text/event-stream": {
                "itemSchema": {
                    "type": "object",
                    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
                    "required": ["event", "data"],
                }
            }
        },
    }
}
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    _OK: {
        "description": "The file; its type is guessed from its name.",
        "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def get_service(request: Request) -> ServiceFacade:
    """Return what the application asks."""
    service: ServiceFacade = request.app.state.service
    return service


Service = Annotated[ServiceFacade, Depends(get_service)]
Wait = Annotated[float | None, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the job's end.")]

router = APIRouter(prefix="/v1", tags=["jobs"])


class JobPage(BaseModel):
    """Some jobs, newest first."""

    jobs: list[Job]
    #: Give it as ``cursor`` to get the following ones; null at the end.
    next: str | None


class OutputList(BaseModel):
    """The files a job wrote; fetch one by its index or its name."""

    outputs: list[OutputFile]


@router.post(
    "/jobs", status_code=_CREATED, responses={_OK: {"model": Job, "description": "The key was known: this is its job."}}
)
async def submit(
    service: Service,
    new: Submission,
    response: Response,
    wait: Wait = None,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Job:
    """Write a job down and answer with it; with ``wait`` answer when it has ended, or when the time is up."""
    job_spec = new.new_job()
    if idempotency_key is not None and job_spec.idempotency_key is None:
        job_spec = job_spec.model_copy(update={"idempotency_key": idempotency_key})
    job, created = await run_in_threadpool(service.submit, job_spec)
    response.status_code, headers = accepted(job, created=created)
    response.headers.update(headers)
    return job if wait is None else await _settled(service, job, wait)


@router.get("/jobs")
def find(
    service: Service,
    *,
    state: Annotated[list[State] | None, Query()] = None,
    task: str | None = None,
    lane: Lane | None = None,
    source: str | None = None,
    rule: str | None = None,
    parent: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
) -> JobPage:
    """List jobs, newest first."""
    jobs = service.find(
        states=tuple(state or ()),
        task=task,
        lane=lane,
        source=source,
        rule=rule,
        parent=parent,
        limit=limit + 1,
        before=None if cursor is None else int(cursor),
    )
    more = len(jobs) > limit
    return JobPage(jobs=jobs[:limit], next=str(jobs[limit - 1].seq) if more else None)


@router.get("/jobs/{job_id}")
def get(service: Service, job_id: str) -> Job:
    """Return a job by its id or a unique beginning of it."""
    return service.get(job_id)


@router.get("/jobs/{job_id}/wait")
async def wait(
    service: Service,
    job_id: str,
    timeout: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 30.0,  # noqa: ASYNC109 - a query
) -> Job:
    """Answer when the job is terminal, blocked or quarantined, or after ``timeout`` seconds as it is then."""
    return await _settled(service, await run_in_threadpool(service.get, job_id), timeout)


@router.post("/jobs/{job_id}/cancel")
def cancel(service: Service, job_id: str) -> Job:
    """Take a job back."""
    return service.cancel(job_id)


@router.post("/jobs/{job_id}/retry")
def retry(service: Service, job_id: str) -> Job:
    """Release a blocked or quarantined job, or repeat an ended one as a new job."""
    return service.retry(job_id)


@router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses=_STREAM)
async def follow(service: Service, job_id: str) -> EventStream:
    """Stream a job's events: its state first, then what happens until it is terminal."""
    job = await run_in_threadpool(service.get, job_id)  # the whole id, and 404 before the stream begins
    events = service.hub.subscribe(job.id)
    try:
        return EventStream(events, await run_in_threadpool(service.get, job.id))
    except BaseException:
        events.close()
        raise


@router.get("/events", response_class=StreamingResponse, responses=_STREAM)
async def follow_all(service: Service) -> EventStream:
    """Stream the events of all jobs."""
    return EventStream(service.hub.subscribe())


@router.get("/jobs/{job_id}/outputs")
def outputs(service: Service, job_id: str) -> OutputList:
    """List the files a job wrote."""
    return OutputList(outputs=list(service.get(job_id).outputs))


@router.get("/jobs/{job_id}/outputs/{which:path}", response_class=FileResponse, responses=_FILE)
def output(service: Service, job_id: str, which: str) -> FileResponse:
    """Return one file that the job wrote, by its index or its name. Nothing else is ever opened."""
    path = _recorded(service.get(job_id), which)
    if path.is_symlink() or not path.is_file():
        raise JobNotFound(f"The file {path} is not there any more.", path=str(path))
    return FileResponse(path, filename=path.name, headers={"X-Content-Type-Options": "nosniff"})


async def _settled(service: ServiceFacade, job: Job, seconds: float) -> Job:
    """Wait for the job's end without holding a thread."""
    deadline = time.monotonic() + seconds
    with service.hub.subscribe(job.id, replay=False) as events:
        while True:
            job = await run_in_threadpool(service.get, job.id)
            if job.state in SETTLED or not await _news(events, deadline):
                break
        return job if job.state in SETTLED else await run_in_threadpool(service.get, job.id)


async def _news(events: Subscription, deadline: float) -> bool:
    """Wait until the state may have changed; False when the time is up or the daemon stops."""
    while (left := deadline - time.monotonic()) > 0:
        event = await events.aget(left)
        if event is None or event.kind in (STATE, LAGGED):
            return event is not None
    return False


def _recorded(job: Job, which: str) -> Path:
    """Find an output by index, whole name or last part of its name; what is not recorded does not exist."""
    if which.isdecimal() and int(which) < len(job.outputs):
        return job.outputs[int(which)].path
    wanted = PurePosixPath(which).parts
    for output_file in job.outputs:
        if wanted and output_file.path.parts[-len(wanted) :] == wanted:
            return output_file.path
    raise JobNotFound(f"Job {job.id} wrote no file {which!r}.")
