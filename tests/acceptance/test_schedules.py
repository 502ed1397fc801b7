"""A spawned daemon keeps its schedules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fakes_acceptance import SpawnedDaemon


def test_a_schedule_fires_and_outlives_a_kill(daemon: SpawnedDaemon) -> None:
    """By the second, and once in a second's time; after kill -9 the schedules are there, and nothing fired twice."""
    daemon.configure('[[schedules]]\nname = "conf"\nevery = "1s"\ntask = "noop"\n')
    daemon.start()
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    daemon.json("schedule", "add", "once", "noop", "--at", soon, "--param", "text=late")
    jobs = daemon.until(
        lambda: [job for job in daemon.client.jobs(source="schedule", rule="once") if job.terminal], "the one job"
    )
    assert jobs[0].result == {"text": "late"}
    assert jobs[0].outputs[0].path.parent == daemon.home / "results" / "schedule-once"
    daemon.until(lambda: len(list(daemon.client.jobs(source="schedule", rule="conf"))) >= 2, "two by the second")
    daemon.kill()
    daemon.start()

    shown = {one["name"]: one for one in daemon.json("schedule", "list")}
    assert (shown["once"]["state"], shown["conf"]["state"]) == ("over", "active")
    daemon.json("schedule", "pause", "conf")
    fires = [job.source.detail for job in daemon.client.jobs(source="schedule", rule="conf")]
    assert len(fires) == len(set(fires))
    assert len(list(daemon.client.jobs(source="schedule", rule="once"))) == 1
