"""What a benchmark prints and keeps: a table as it comes, and one JSON file with the conditions in it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contest import Contest, Spread
from machine import conditions, sentence
from targets import BY_KEY

RESULTS = Path(__file__).parent / "results"


def arguments(description: str | None, *, rounds: int = 9) -> argparse.ArgumentParser:
    """Return a parser with what every area understands."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds that count (default: {rounds})")
    parser.add_argument("--warm", type=int, default=1, help="rounds before them that do not count (default: 1)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="rows whose key contains one of these")
    parser.add_argument("--blas", metavar="LIBRARY", help="preload this BLAS in every process with a model (Linux CPU)")
    parser.add_argument("--device-note", default="", metavar="TEXT", help="what the machine is, for the table")
    parser.add_argument("--commit", default="", metavar="HASH", help="the checkout's commit, where git cannot tell")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the JSON goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the JSON here instead")
    return parser


class Results:
    """The rows of one area. *facts* are told with the conditions: the model's size, what was set."""

    def __init__(self, area: str, options: argparse.Namespace, **facts: Any) -> None:
        self.area = area
        self.rows: list[dict[str, Any]] = []
        self.gates: list[dict[str, Any]] = []
        self._options = options
        self.about = conditions(blas=options.blas, note=options.device_note, at=options.commit)
        self.device = str(self.about["device"])
        self._facts = {key: str(value) if isinstance(value, Path) else value for key, value in facts.items()}
        self._taken = datetime.now(UTC)
        # Told to end, it ends as if interrupted: no daemon, no server and no model's folder is left behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        print(f"{area}: {sentence(self.about)}\n{', '.join(f'{k} {v}' for k, v in self._facts.items())}", flush=True)

    def wants(self, *keys: str) -> bool:
        """Tell whether one of *keys* is to be measured."""
        return not self._options.only or any(word in key for word in self._options.only for key in keys)

    def gate(self, what: str, *, passed: bool, detail: str) -> None:
        """Note whether the answers are right; if not, no figure counts and the benchmark ends."""
        self.gates.append({"what": what, "passed": passed, "detail": detail})
        print(f"gate: {what}: {detail}", flush=True)
        if not passed:
            raise SystemExit(f"{what}: {detail}. Nothing was measured: the answers are not right.")

    def duel(self, key: str, result: Contest, *, unit: str = "tok/s", note: str = "", **facts: Any) -> None:
        """Print and keep a comparison whose ratio is ours / theirs."""
        row = {"ours": asdict(result.ours), "theirs": asdict(result.theirs), "ratio": asdict(result.ratio)}
        null = None if result.null is None else asdict(result.null)
        self._add(key, {**row, "null": null, "rounds": result.rounds}, unit, note, facts)

    def value(
        self, key: str, figure: Spread | float, *, unit: str, note: str = "", rounds: int = 1, **facts: Any
    ) -> None:
        """Print and keep a figure that is compared with nothing."""
        spread = figure if isinstance(figure, Spread) else Spread(figure, figure, figure)
        self._add(key, {"value": asdict(spread), "rounds": rounds}, unit, note, facts)

    def _add(self, key: str, row: dict[str, Any], unit: str, note: str, facts: Mapping[str, Any]) -> None:
        target = BY_KEY[key]
        row = {"key": key, "what": target.what, "unit": unit, **row, "note": note, "facts": dict(facts)}
        row["target"] = target.text(self.device)
        row["verdict"] = target.verdict(row.get("ratio") or row["value"], self.device)
        self.rows.append(row)
        print(line(row), flush=True)
        self._write()  # at once: whatever ends this program does not take the rows with it

    def save(self) -> Path:
        """Write everything down and say where."""
        path = self._write()
        print(f"\nkept in {path}")
        return path

    def _write(self) -> Path:
        name = f"{self.area}-{self.device}-{self._taken:%Y%m%dT%H%M%SZ}.json"
        path = self._options.json or self._options.results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {
            "area": self.area,
            "taken": self._taken.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self._taken).total_seconds(), 1),
            **self.about,
            "load_after": os.getloadavg()[0],
            "options": self._facts,
            "gates": self.gates,
            "rows": self.rows,
        }
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return path


def line(row: Mapping[str, Any]) -> str:
    """Return a row for the terminal."""
    cells = [f"{row['what']:<66}", *cells_of(row), row["target"], row["verdict"]]
    return "  ".join(cell for cell in cells if cell)


def cells_of(row: Mapping[str, Any]) -> Sequence[str]:
    """Return ours, theirs and the ratio, or the figure alone, as text."""
    if "ratio" not in row:
        return "", "", f"{spread(row['value'], row['unit'])}"
    null = f"; alone {spread(row['null'])}" if row.get("null") else ""
    ours, theirs = (f"{number(row[arm]['median'])} {row['unit']}" for arm in ("ours", "theirs"))
    return ours, theirs, f"{spread(row['ratio'])} of {row['rounds']}{null}"


def spread(figures: Mapping[str, float], unit: str = "") -> str:
    """Return a median with its extremes."""
    unit = unit and f" {unit}"
    if figures["low"] == figures["high"]:
        return f"{number(figures['median'])}{unit}"
    return f"{number(figures['median'])}{unit} ({number(figures['low'])} to {number(figures['high'])})"


def number(figure: float) -> str:
    """Return *figure* with as many digits as mean something."""
    size = abs(figure)
    return (
        f"{figure:.0f}" if size >= 100 else f"{figure:.1f}" if size >= 10 else f"{figure:.{2 if size >= 0.1 else 3}f}"
    )
