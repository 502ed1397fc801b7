"""Prometheus text."""

from __future__ import annotations

from daemon.health.metrics import render
from daemon.views import Health, ModelStatus, Residency
from jobs.model import State


def test_every_family_has_help_type_and_samples() -> None:
    """The text has each family once, every state of jobs, and labels that are escaped."""
    model = ModelStatus(ref='a"b\\c\nd', runtime="lm", state=Residency.READY, memory_bytes=5, leases=2)
    health = Health(version="1", pid=1, uptime_s=2.5, home="/h", counts={State.QUEUED: 3}, models=(model,))
    lines = render(health, followers=4).splitlines()

    assert 'mlxd_jobs{state="queued"} 3' in lines
    assert 'mlxd_jobs{state="failed"} 0' in lines
    assert r'mlxd_model_leases{model="a\"b\\c\nd",runtime="lm"} 2' in lines
    assert "mlxd_event_followers 4" in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) == len([line for line in lines if line.startswith("# HELP")])
