"""`[[schedules]]` as it is read from the file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from fakes_schedules import utc

from daemon.config.model import Config, load
from daemon.paths import find_home
from jobs.errors import ConfigError


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(f'[[schedules]]\nname = "s"\ntask = "t"\n{text}\n')
    return load(path, home=find_home({"MLXD_HOME": str(tmp_path)}), environ={"HOME": "/home/ada"})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ('at = "2027-01-31T08:00"\ntimezone = "Europe/Berlin"', "2027-01-31T07:00"),
        ("at = 2027-01-31T08:00:00\ntimezone = 'America/New_York'", "2027-01-31T13:00"),
        ('at = "2027-01-31T08:00+05:30"\ntimezone = "Europe/Berlin"', "2027-01-31T02:30"),
        # It does not exist, and it exists twice.
        ('at = "2027-03-28T02:30"\ntimezone = "Europe/Berlin"', "2027-03-28T01:00"),
        ('at = "2027-10-31T02:30"\ntimezone = "Europe/Berlin"', "2027-10-31T00:30"),
    ],
)
def test_single_times(tmp_path: Path, text: str, moment: str) -> None:
    """TOML's own and text, with an offset or meant in the time zone."""
    (schedule,) = read(tmp_path, text).schedules
    assert schedule.moment == utc(moment)
    assert schedule.timing(utc("2020-01-01")).after(utc("2020-01-01")) == utc(moment)


def test_a_changed_meaning_has_another_fingerprint(tmp_path: Path) -> None:
    """The timing counts, spaces do not; the zone counts for clocks, not for intervals."""
    prints = [
        read(tmp_path, text).schedules[0].fingerprint
        for text in (
            'cron = "0 3 * * *"\ntimezone = "UTC"',
            'cron = "0  3 * * * "\ntimezone = "UTC"',
            'cron = "0 3 * * *"\ntimezone = "Asia/Tokyo"',
            'every = "1h"\ntimezone = "UTC"',
            'every = "60m"\ntimezone = "Asia/Tokyo"',
        )
    ]
    assert prints[0] == prints[1] != prints[2]
    assert prints[3] == prints[4]


def test_what_people_read(tmp_path: Path) -> None:
    """Durations as the configuration takes them, and paths from home or the file's folder."""
    (schedule,) = read(tmp_path, 'every = "36h90s"\noutput = "~/out"').schedules
    assert (schedule.when, schedule.output) == ("every 1d12h1m30s", Path("/home/ada/out"))
    assert timedelta(seconds=schedule.every) == timedelta(hours=36, seconds=90)
    assert read(tmp_path, 'cron = "@daily"\noutput = "out"').schedules[0].output == tmp_path / "out"


@pytest.mark.parametrize(
    ("text", "key", "wanted"),
    [
        ('at = "soon"', "schedules[0].at", "a date and time"),
        ("at = 5", "schedules[0].at", "a date and time"),
        ('every = "0.5s"', "schedules[0].every", "1"),
        ('cron = "@daily"\noutput = 3', "schedules[0].output", "a path"),
        ('cron = "99 * * * *"', "schedules[0].cron", "bad minute"),
        ('cron = "@daily"\ncatch_up = "some"', "schedules[0].catch_up", "once"),
        ('cron = "@daily"\n[[schedules]]\nname = "s"\ntask = "t"\ncron = "@daily"', "", "come twice: s"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, key: str, wanted: str) -> None:
    """Each is told with its key and what is wanted."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert key in caught.value.message
    assert wanted in caught.value.message
