"""Routes about schedules."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, model_validator

from daemon.api.routes_jobs import Service
from daemon.api.submission import check_json
from daemon.config.schedules import ScheduleConfig
from daemon.schedules.views import Backfilled, ScheduleDetails, ScheduleStatus, Span, Upcoming
from jobs.model import Job

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])


class NewSchedule(ScheduleConfig):
    """A schedule as it arrives."""

    @model_validator(mode="before")
    @classmethod
    def _sound(cls, raw: Any) -> Any:
        """Refuse what JSON can carry and a database cannot."""
        check_json(raw)
        return raw


class ScheduleList(BaseModel):
    """Schedules."""

    schedules: list[ScheduleStatus]


@router.get("")
def schedules(service: Service) -> ScheduleList:
    """List the schedules."""
    return ScheduleList(schedules=service.schedules.all())


@router.post("", status_code=201)
def add(service: Service, new: NewSchedule) -> ScheduleStatus:
    """Add a schedule; it is kept across restarts."""
    said = {name: getattr(new, name) for name in ScheduleConfig.model_fields}
    return service.schedules.add(ScheduleConfig.model_construct(_fields_set=set(new.model_fields_set), **said))


@router.get("/{name}")
def show(service: Service, name: str) -> ScheduleDetails:
    """Return one schedule with its past and its future."""
    return service.schedules.show(name)


@router.delete("/{name}", status_code=204, response_class=Response)
def remove(service: Service, name: str) -> None:
    """Forget a schedule that was added; its jobs stay."""
    service.schedules.remove(name)


@router.post("/{name}/pause")
def pause(service: Service, name: str) -> ScheduleStatus:
    """Let a schedule rest."""
    return service.schedules.pause(name)


@router.post("/{name}/resume")
def resume(service: Service, name: str) -> ScheduleStatus:
    """Let a schedule go on."""
    return service.schedules.resume(name)


@router.post("/{name}/run", status_code=201)
def run(service: Service, name: str) -> Job:
    """Make its job now."""
    return service.schedules.run(name)


@router.get("/{name}/next")
def upcoming(service: Service, name: str, count: Annotated[int, Query(ge=1, le=100)] = 5) -> Upcoming:
    """Return its next times."""
    return service.schedules.next(name, count)


@router.post("/{name}/backfill")
def backfill(service: Service, name: str, span: Span) -> Backfilled:
    """Make the jobs of past times that did not become any."""
    return service.schedules.backfill(name, span.start, span.end)
