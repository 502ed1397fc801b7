"""A campaign: run rows, print the table, keep the JSON, end with 1 if anything broke."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from torture import rows
from torture.row import Outcome, Row, Tier
from torture.table import details, markdown, page, record, summary


def every_row() -> list[Row]:
    """Return all rows in the table's order."""
    names = [module.name for module in pkgutil.iter_modules(rows.__path__) if not module.name.startswith("_")]
    return sorted(map(one_row, names), key=lambda row: row.number)


def one_row(name: str) -> Row:
    """Return the row called *name*."""
    row: Row = importlib.import_module(f"torture.rows.{name.replace('-', '_')}").ROW
    return row


def run_one(name: str, tier: Tier, seed: int) -> dict[str, Any]:
    """Run the row called *name* in a fresh folder; what it raises is a broken row, never the end of the campaign."""
    row = one_row(name)
    # Short, because a socket's path may have 103 bytes, and macOS's own temporary folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="mt-", dir="/tmp"))
    began = time.monotonic()
    try:
        outcome = row.run(tier, seed=seed, folder=folder, say=lambda text: _say(row.name, text))
    except Exception:  # noqa: BLE001 - see above
        outcome = Outcome(tries=0, broken=[traceback.format_exc()])
    found = record(row, outcome, seconds=time.monotonic() - began, seed=seed)
    if outcome.passed:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        found["notes"].append(f"left for inspection: {folder}")
    return found


def _say(name: str, text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {name}: {text}\n")
    sys.stderr.flush()


def _run_all(names: list[str], tier: Tier, seed: int, jobs: int) -> Iterator[dict[str, Any]]:
    """Run rows, *jobs* at a time, each in a process of its own; yield what came of them as it comes."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(run_one, name, tier, seed) for name in names]):
            yield done.result()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--tier", type=Tier, choices=list(Tier), default=Tier.SHORT, help="how many tries (short)")
    parser.add_argument("--rows", default="", help="only these rows, by name, with commas between")
    parser.add_argument("--seed", type=int, default=1, help="repeats a campaign (1)")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, of those that are not timed (1)")
    parser.add_argument("--keep", type=Path, default=Path("build/torture"), help="where the JSON goes")
    parser.add_argument("--list", action="store_true", help="say what rows there are")
    parser.add_argument("--report", action="store_true", help="run nothing; print what is kept, as Markdown")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the campaign."""
    asked = _parser().parse_args(argv)
    found = every_row()
    if asked.list:
        sys.stdout.writelines(f"{row.number:3} {row.name:20} {row.fault}\n" for row in found)
        return 0
    wanted = [name for name in asked.rows.split(",") if name] or [row.name for row in found]
    if unknown := set(wanted) - {row.name for row in found}:
        sys.stderr.write(f"There is no row {', '.join(sorted(unknown))}. --list names them all.\n")
        return 2
    keep = asked.keep / asked.tier
    if asked.report:
        sys.stdout.write(page([json.loads(path.read_text()) for path in sorted(keep.glob("*.json"))]))
        return 0
    keep.mkdir(parents=True, exist_ok=True)
    timed = [name for name in wanted if getattr(one_row(name), "timed", False)]
    records = []
    for jobs, names in ((1, timed), (asked.jobs, [name for name in wanted if name not in timed])):
        for result in _run_all(names, asked.tier, asked.seed, jobs):
            _say(result["row"], f"{'held' if result['passed'] else 'BROKEN'} after {result['seconds']:.0f} s")
            (keep / f"{result['row']}.json").write_text(json.dumps(result, indent=1) + "\n")
            records.append(result)
    sys.stdout.write(markdown(records) + "\n\n" + "\n\n".join(map(details, records)) + "\n\n" + summary(records) + "\n")
    return 0 if all(one["passed"] for one in records) else 1
