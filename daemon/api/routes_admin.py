"""Routes about models, folders, plugins and the daemon itself."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from daemon.api.routes_jobs import Service
from daemon.health.findings import Finding
from daemon.views import FolderStatus, Health, ModelStatus, PluginStatus, ReloadReport, TaskInfo
from jobs.model import Frozen, Job

router = APIRouter(prefix="/v1")
#: Prometheus looks for this at the root.
metrics_router = APIRouter()


class ModelChoice(Frozen):
    """Which model."""

    #: An alias, ``demo:lm``, a path or a hub id.
    ref: str = Field(min_length=1, max_length=4096)


class LoadRequest(ModelChoice):
    """Which model to load, and how."""

    #: Name of the runtime; None lets the configuration or the model's folder decide.
    runtime: str | None = None
    #: Keep it until it is unloaded by hand; None leaves that as it is.
    pin: bool | None = None


class ModelList(BaseModel):
    """Models."""

    models: list[ModelStatus]


class Unloaded(BaseModel):
    """Whether there was something to unload."""

    unloaded: bool


class FolderList(BaseModel):
    """Watched folders."""

    folders: list[FolderStatus]


class Rescanned(BaseModel):
    """What a look through all folders found."""

    files: int


class PluginList(BaseModel):
    """Plugins."""

    plugins: list[PluginStatus]


class TaskList(BaseModel):
    """Kinds of jobs."""

    tasks: list[TaskInfo]


class FindingList(BaseModel):
    """What an examination found."""

    findings: list[Finding]


class Stopping(BaseModel):
    """The daemon's last words."""

    status: str = "draining"


@router.get("/models", tags=["models"])
def models(service: Service) -> ModelList:
    """List the models that are configured or resident."""
    return ModelList(models=service.models())


@router.post("/models/load", tags=["models"])
async def load(service: Service, request: Request, wanted: LoadRequest) -> ModelStatus:
    """Load a model and answer when it is ready."""
    return await anyio.to_thread.run_sync(
        lambda: service.load(wanted.ref, runtime=wanted.runtime, pin=wanted.pin), limiter=request.app.state.slow
    )


@router.post("/models/unload", tags=["models"])
async def unload(service: Service, request: Request, wanted: ModelChoice) -> Unloaded:
    """Unload a model as soon as nobody uses it."""
    done = await anyio.to_thread.run_sync(service.unload, wanted.ref, limiter=request.app.state.slow)
    return Unloaded(unloaded=done)


@router.post("/models/pull", tags=["models"], status_code=201)
def pull(service: Service, wanted: ModelChoice) -> Job:
    """Submit the job that fetches a model."""
    return service.pull(wanted.ref)


@router.get("/folders", tags=["folders"])
def folders(service: Service) -> FolderList:
    """List the watched folders."""
    return FolderList(folders=service.folders())


@router.post("/folders/rescan", tags=["folders"])
async def rescan(service: Service, request: Request) -> Rescanned:
    """Look through all watched folders now."""
    return Rescanned(files=await anyio.to_thread.run_sync(service.rescan, limiter=request.app.state.slow))


@router.get("/plugins", tags=["plugins"])
def plugins(service: Service) -> PluginList:
    """List the plugins, broken ones too."""
    return PluginList(plugins=service.plugins())


@router.get("/tasks", tags=["plugins"])
def tasks(service: Service) -> TaskList:
    """List the kinds of jobs with the JSON schema of their parameters."""
    return TaskList(tasks=service.tasks())


@router.get("/config", tags=["daemon"])
def config(service: Service) -> dict[str, Any]:
    """Return the configuration in force."""
    return service.config()


@router.post("/reload", tags=["daemon"])
async def reload(service: Service, request: Request) -> ReloadReport:
    """Read the configuration again."""
    return await anyio.to_thread.run_sync(service.reload, limiter=request.app.state.slow)


@router.get("/health", tags=["daemon"])
def health(service: Service) -> Health:
    """Return the daemon at a glance; the answer is 200 also when ``status`` is not ``ok``."""
    return service.health()


@router.get("/doctor", tags=["daemon"])
async def doctor(service: Service, request: Request) -> FindingList:
    """Examine the set-up from inside the daemon; a folder that does not answer costs its deadline of 10 s."""
    found = await anyio.to_thread.run_sync(service.doctor, limiter=request.app.state.slow)
    return FindingList(findings=found)


@router.post("/shutdown", tags=["daemon"], status_code=202)
def shutdown(service: Service) -> Stopping:
    """Begin to drain and stop."""
    service.shutdown()
    return Stopping()


@metrics_router.get("/metrics", tags=["daemon"], response_class=Response)
def metrics(service: Service) -> Response:
    """Return Prometheus' text format."""
    return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")
