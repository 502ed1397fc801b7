"""Routes about watched folders: try out, pause, resume; and taking back what was made of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field

from daemon.api.routes_jobs import Service
from daemon.views import FolderStatus, FolderTest, RevertReport
from jobs.model import Frozen

router = APIRouter(prefix="/v1", tags=["folders"])


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("must be an absolute path")
    return path


Place = Annotated[Path, AfterValidator(_absolute), Field(json_schema_extra={"pattern": "^/"})]


class FolderChoice(Frozen):
    """Which folder."""

    path: Place


class TestRequest(Frozen):
    """What to try out."""

    __test__ = False  # not pytest's

    #: A watched folder, or a file or folder in one.
    path: Place
    #: Most files that are listed.
    limit: int = Field(default=500, ge=1, le=10_000)


@router.post("/folders/test")
async def test(service: Service, request: Request, wanted: TestRequest) -> FolderTest:
    """Tell what would become of a file or folder; nothing is written."""
    return await anyio.to_thread.run_sync(
        lambda: service.folder_desk.test(wanted.path, limit=wanted.limit), limiter=request.app.state.slow
    )


@router.post("/folders/pause")
def pause(service: Service, wanted: FolderChoice) -> FolderStatus:
    """Take nothing of a watched folder until it is resumed."""
    return service.folder_desk.pause(wanted.path)


@router.post("/folders/resume")
def resume(service: Service, wanted: FolderChoice) -> FolderStatus:
    """Go on with a watched folder."""
    return service.folder_desk.resume(wanted.path)


@router.post("/jobs/{job_id}/revert")
async def revert(service: Service, request: Request, job_id: str) -> RevertReport:
    """Bring a job's input back and put its outputs into the trash."""
    return await anyio.to_thread.run_sync(service.folder_desk.revert, job_id, limiter=request.app.state.slow)
