"""The numbers of a running daemon in Prometheus' text exposition format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daemon.views import Health, Residency
from jobs.model import State

_LEVELS: Final = {"normal": 0, "warn": 1, "critical": 2}


def render(health: Health, *, followers: int) -> str:
    """Return *health* and the number of event *followers* as metrics."""
    return "\n".join([*_lines(health, followers), ""])


def _lines(health: Health, followers: int) -> Iterator[str]:
    yield from _family("mlxd_info", "gauge", "Version of the running daemon.", [({"version": health.version}, 1)])
    yield from _family("mlxd_uptime_seconds", "gauge", "Seconds since the start.", [({}, health.uptime_s)])
    yield from _family(
        "mlxd_jobs",
        "gauge",
        "Jobs in the ledger by state.",
        [({"state": state.value}, health.counts.get(state, 0)) for state in State],
    )
    resident = [model for model in health.models if model.state is Residency.READY]
    yield from _family(
        "mlxd_model_memory_bytes",
        "gauge",
        "Memory of each resident model's runner.",
        [({"model": model.ref, "runtime": model.runtime}, model.memory_bytes or 0) for model in resident],
    )
    yield from _family(
        "mlxd_model_leases",
        "gauge",
        "Requests that keep a resident model loaded.",
        [({"model": model.ref, "runtime": model.runtime}, model.leases) for model in resident],
    )
    memory = health.memory
    yield from _family(
        "mlxd_memory_bytes",
        "gauge",
        "The budget for models, what they use without caches, the daemon's own resident set, the runners' footprint.",
        [
            ({"kind": "budget"}, memory.budget_bytes or 0),
            ({"kind": "used"}, memory.used_bytes or 0),
            ({"kind": "daemon"}, memory.daemon_bytes or 0),
            ({"kind": "footprint"}, memory.footprint_bytes or 0),
        ],
    )
    yield from _family(
        "mlxd_memory_level",
        "gauge",
        "How short memory is: 0 normal, 1 warn, 2 critical.",
        [({}, _LEVELS.get(memory.level, 0))],
    )
    yield from _family("mlxd_problems", "gauge", "Things that need a person.", [({}, len(health.problems))])
    yield from _family("mlxd_event_followers", "gauge", "Clients that follow live events.", [({}, followers)])


def _family(name: str, kind: str, text: str, samples: list[tuple[dict[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
