"""Jobs that wait for their hour, and a command that hears of their end, with the daemon as people run it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from fakes_acceptance import SpawnedDaemon

from jobs.model import State


def test_a_job_waits_for_its_hour_and_its_end_is_told(daemon: SpawnedDaemon) -> None:
    """Outside its hours the job waits and says until when; a reload lets it go, it runs, and a command is told."""
    soon, later = (f"{datetime.now().astimezone() + timedelta(hours=hours):%H:%M}" for hours in (2, 3))
    hook = f"""
        [[notify]]
        tasks = "noop"
        command = ["/bin/sh", "-c", "cat > '{daemon.home}/told.json'"]
    """
    daemon.configure(f'[lanes.batch]\nbetween = "{soon}-{later}"\n{hook}')
    daemon.start()
    job_id = daemon.ok("submit", "noop", "--lane", "batch").strip()
    reason = f"it is not between {soon} and {later}, goes on at {soon}"
    daemon.until(lambda: daemon.json("show", job_id)["waiting"], "the job to say why it waits")

    job = daemon.json("show", job_id)
    assert (job["state"], job["attempts"], job["waiting"]) == ("queued", 0, reason)
    assert f"waiting: {reason}" in daemon.ok("jobs")
    assert f"batch: waiting: {reason}" in daemon.ok("status")

    daemon.configure(hook)
    daemon.ok("reload")
    assert daemon.wait(job_id).state is State.SUCCEEDED
    (delivery,) = daemon.until(lambda: daemon.json("jobs", "--source", "notify"), "a delivery")
    assert daemon.wait(delivery["id"]).state is State.SUCCEEDED
    told = json.loads((daemon.home / "told.json").read_text())
    assert (told["job"], told["state"], "result" in told) == (job_id, "succeeded", False)
