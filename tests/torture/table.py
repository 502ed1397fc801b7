"""The campaign's table, for a terminal and for Markdown, and its JSON."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torture.row import Outcome, Row, percentile

COLUMNS = ("fault", "tries", "acknowledged", "lost", "doubled", "recovery p99 / worst", "control caught", "verdict")


def record(row: Row, outcome: Outcome, *, seconds: float, seed: int) -> dict[str, Any]:
    """Return everything about one row as JSON."""
    worst = max(outcome.recoveries, default=math.nan)
    p99 = percentile(outcome.recoveries, 0.99)
    return {
        "number": row.number,
        "row": row.name,
        "fault": row.fault,
        "promise": row.promise,
        "passed": outcome.passed,
        "tries": outcome.tries,
        "acknowledged": outcome.acknowledged,
        "lost": outcome.lost,
        "doubled": outcome.doubled,
        "recovery_p99_s": None if math.isnan(p99) else round(p99, 3),
        "recovery_worst_s": None if math.isnan(worst) else round(worst, 3),
        "broken": list(outcome.broken),
        "controls": [
            {"name": control.name, "caught": control.caught, "evidence": control.evidence}
            for control in outcome.controls
        ],
        "measured": dict(outcome.measured),
        "notes": list(outcome.notes),
        "seconds": round(seconds, 1),
        "seed": seed,
        "commit": commit(),
    }


def commit() -> str:
    """Return the commit that was attacked, with "+" behind it if files differ from it; "" outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],  # noqa: S607 - the person's own git
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one row's cells, in the order of `COLUMNS`."""
    p99, worst = found["recovery_p99_s"], found["recovery_worst_s"]
    caught = [control["caught"] for control in found["controls"]]
    return (
        found["fault"],
        f"{found['tries']:,}",
        f"{found['acknowledged']:,}",
        str(found["lost"]),
        str(found["doubled"]),
        "" if worst is None else f"{p99:.2f} / {worst:.2f} s",
        f"{sum(caught)} of {len(caught)}",
        "held" if found["passed"] else "BROKEN",
    )


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the table in Markdown, in the order of the rows' numbers."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *map(cells, sorted(records, key=lambda one: one["number"]))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def details(found: Mapping[str, Any]) -> str:
    """Return what a terminal says below the table about one row: its figures, controls, notes and breaches."""
    lines = [f"{found['row']}: {found['promise']} ({found['seconds']:.0f} s, seed {found['seed']})"]
    lines += [f"  {name} = {value}" for name, value in found["measured"].items()]
    for control in found["controls"]:
        verdict = "caught" if control["caught"] else "NOT CAUGHT"
        lines.append(f"  control, {control['name']}: {verdict}; {control['evidence']}")
    lines += [f"  note: {note}" for note in found["notes"]]
    lines += [f"  BROKEN: {sentence}" for sentence in found["broken"][:20]]
    return "\n".join(lines)


def summary(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the campaign's last lines: how many rows held, and why each other broke. Who reads a log reads its end."""
    broken = [one for one in records if not one["passed"]]
    lines = [f"{len(records) - len(broken)} of {len(records)} rows held."]
    return "\n".join(lines + [f"BROKEN: {one['row']}: {'; '.join(_breaches(one))}" for one in broken])


def _breaches(found: Mapping[str, Any]) -> list[str]:
    told = [f"{found[name]} {name}" for name in ("lost", "doubled") if found[name]]
    told += found["broken"][:3]
    told += [f"not caught: {one['name']}" for one in found["controls"] if not one["caught"]]
    return told or ["nothing was tried, or no control"]


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the table and what stands behind each row of it, in Markdown."""
    ordered = sorted(records, key=lambda one: one["number"])
    return "\n\n".join([markdown(ordered), *map(_section, ordered)]) + "\n"


def _section(found: Mapping[str, Any]) -> str:
    """Return one row's promise, figures, controls, notes and breaches in Markdown."""
    took = f"{found['seconds'] / 60:.0f} min, seed {found['seed']}, commit {found['commit'] or 'unknown'}"
    lines = [f"### {found['row']}", "", f"{found['promise']} ({took})", ""]
    lines += [f"- BROKEN: {sentence}" for sentence in found["broken"][:20]]
    lines += [f"- Control, {one['name']}: {_verdict(one)}. {one['evidence']}" for one in found["controls"]]
    lines += [f"- Note: {note}" for note in found["notes"]]
    figures = ", ".join(f"{name} {value}" for name, value in found["measured"].items())
    return "\n".join(lines + ([f"- Figures: {figures}"] if figures else []))


def _verdict(control: Mapping[str, Any]) -> str:
    return "caught" if control["caught"] else "NOT CAUGHT"
