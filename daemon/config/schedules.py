"""``[[schedules]]`` in the configuration, and what a schedule that is added at run time may say: the same."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from daemon.config.folders import Switch, expand
from daemon.config.units import Seconds
from daemon.schedules.catchup import CatchUp
from daemon.schedules.overlap import Overlap
from daemon.schedules.timing import Cron, Every, Once, Timing, instant, spelled
from daemon.schedules.zones import zone
from jobs.model import Frozen, Lane

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_SOONEST = 1.0


def _moment(value: Any) -> datetime:
    """Take a TOML date and time, or ISO text; without an offset it is meant in the schedule's time zone."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip())
        except ValueError:
            pass
    raise ValueError('a date and time: "2027-01-31T08:00", or with an offset "2027-01-31T08:00+01:00"')


def _expression(value: str) -> str:
    spelled(value)
    return value


def _zone_name(value: str) -> str:
    zone(value)
    return value


def _folder(value: Any, info: ValidationInfo) -> Path | None:
    if value is None or isinstance(value, Path):
        return value
    if isinstance(value, str) and value:
        return Path(os.path.normpath(expand(value, info)))
    raise ValueError("a path")


class ScheduleConfig(Frozen):
    """``[[schedules]]``: a job that comes at its time. Exactly one of *cron*, *every* and *at* says when."""

    #: What it is called; unique.
    name: str = Field(min_length=1, max_length=64, pattern=_NAME)
    #: Five fields (minute, hour, day of month, month, day of week), or ``@daily`` and its like.
    cron: Annotated[str, AfterValidator(_expression)] | None = None
    #: Time between two jobs.
    every: Annotated[Seconds, Field(ge=_SOONEST)] | None = None
    #: The one time.
    at: Annotated[datetime, BeforeValidator(_moment)] | None = None
    #: Whose clocks *cron* and *at* mean. Default: this machine's.
    timezone: Annotated[str, AfterValidator(_zone_name)] | None = None
    #: Each time is put off by up to so much, always by the same for the same time.
    jitter: Annotated[Seconds, Field(le=86_400)] = 0.0
    #: What happens to times that were missed.
    catch_up: CatchUp = CatchUp.ONCE
    #: What was missed longer ago is not caught up.
    catch_up_window: Seconds = 31 * 86_400.0
    #: Most jobs that ``catch_up = "all"`` makes at once.
    limit: Annotated[int, Field(strict=True, ge=1, le=1000)] = 10
    #: What happens when the job before is not done.
    overlap: Overlap = Overlap.SKIP
    #: The task to run.
    task: str = Field(min_length=1, max_length=64, pattern=_NAME)
    #: Its parameters.
    params: dict[str, Any] = Field(default_factory=dict)
    #: Lane of the jobs.
    lane: Lane = Lane.BATCH
    #: Within the lane higher runs first.
    priority: Annotated[int, Field(strict=True, ge=-100, le=100)] = 0
    #: Folder of the outputs. Default: ``results/schedule-<name>``, the same for all its jobs.
    output: Annotated[Path | None, BeforeValidator(_folder)] = None
    #: Whether it fires at all.
    enabled: Switch = True

    @field_validator("output", mode="after")
    @classmethod
    def _whole(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("an absolute path")
        return value

    @model_validator(mode="after")
    def _one_timing(self) -> Self:
        given = [key for key in ("cron", "every", "at") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of cron, every and at; given: {', '.join(given) or 'none'}")
        return self

    @property
    def zone(self) -> tzinfo:
        """Return the time zone."""
        return zone(self.timezone)

    @property
    def fingerprint(self) -> str:
        """Return what tells two timings apart; the zone counts where clocks do."""
        if self.every is not None:
            return f"every {self.every:g}"
        if self.cron is not None:
            return f"cron {' '.join(self.cron.split())} {self.zone}"
        return f"at {self.moment.isoformat()}"

    @property
    def moment(self) -> datetime:
        """Return the time that *at* says."""
        assert self.at is not None  # noqa: S101 - asked only then
        return self.at.astimezone(UTC) if self.at.tzinfo else instant(self.at, self.zone)

    def timing(self, anchor: datetime) -> Timing:
        """Return when it fires; intervals count from *anchor*."""
        if self.cron is not None:
            return Cron(self.cron, self.zone)
        if self.every is not None:
            return Every(timedelta(seconds=self.every), anchor)
        return Once(self.moment)

    @property
    def when(self) -> str:
        """Return the timing for people."""
        if self.cron is not None:
            return self.cron
        if self.every is not None:
            return f"every {_words(self.every)}"
        return f"at {self.moment.astimezone(self.zone).isoformat(' ', 'seconds')}"


def _words(seconds: float) -> str:
    """Return a duration as the configuration takes it: ``1h30m``."""
    parts, left = [], seconds
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        whole, left = divmod(left, size)
        if whole:
            parts.append(f"{whole:.0f}{unit}")
    return "".join([*parts, f"{left:g}s"] if left or not parts else parts)
