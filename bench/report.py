"""`python bench/report.py`: the tables of docs/performance.md from the JSON files that the benchmarks kept.

For each area and device the newest reading of each row counts, so a row that was repeated alone takes the place of the
older one; under each table stands where and how its rows were taken.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import sentence
from results import RESULTS, cells_of
from targets import AREAS, TARGETS

DEVICES = {"cpu": "on a CPU", "gpu": "on a GPU"}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", type=Path, nargs="*", default=[RESULTS], help="JSON files, or folders of them")
    parser.add_argument("--device", choices=sorted(DEVICES), help="only what was taken on this")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the tables between this page's comments instead")
    parser.add_argument("--facts", action="store_true", help="print what else is known of each row, as where time went")
    parser.add_argument("--missed", action="store_true", help="only the rows that missed their target")
    options = parser.parse_args()
    runs = sorted(_read(options.places), key=lambda run: str(run["taken"]))
    if options.facts:
        facts(runs)
        return
    page = options.into.read_text(encoding="utf-8") if options.into else ""
    for device in [options.device] if options.device else list(DEVICES):
        found = "\n".join(tables(runs, device, missed=options.missed))
        if options.into and found:
            page = put(page, device, found)
        elif found:
            print(found)
    if options.into:
        options.into.write_text(page, encoding="utf-8")


def facts(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print the facts of every row, newest run last; lists of readings are cut short."""
    for run in runs:
        for row in run["rows"]:
            shown = {key: value for key, value in row["facts"].items() if not isinstance(value, list)}
            verdict = row["verdict"] or "no target"
            if shown:
                print(f"{run['taken']} {run['device']} {row['key']} ({verdict}): {json.dumps(shown)}")


def tables(runs: Sequence[Mapping[str, Any]], device: str, *, missed: bool) -> Iterator[str]:
    """Yield the tables of *device*."""
    for area in AREAS:
        chosen = [run for run in runs if (run["area"], run["device"]) == (area, device)]
        if text := table(area, device, chosen, missed=missed):
            yield text


def put(page: str, device: str, text: str) -> str:
    """Return *page* with *text* between ``<!-- figures: cpu -->`` (or gpu) and ``<!-- end of figures -->``."""
    before, begin, rest = page.partition(f"<!-- figures: {device} -->\n")
    _, end, after = rest.partition("<!-- end of figures -->")
    if not end:
        raise SystemExit(f"The page has no pair of comments for the figures of a {device}.")
    return f"{before}{begin}\n{text}\n{end}{after}"


def table(area: str, device: str, runs: Sequence[Mapping[str, Any]], *, missed: bool = False) -> str:
    """Return the Markdown table of *area* on *device* from *runs*, oldest first; "" if there is nothing to show."""
    found: dict[str, tuple[Mapping[str, Any], int]] = {}
    for number, run in enumerate(runs):
        found |= {row["key"]: (row, number) for row in run["rows"]}
    wanted = [one for one in TARGETS if one.area == area and one.key in found]
    if missed:
        wanted = [one for one in wanted if found[one.key][0]["verdict"] == "missed"]
    if not wanted:
        return ""
    used = sorted({found[one.key][1] for one in wanted})
    lines = [
        f"### {AREAS[area][1]}, {DEVICES[device]}\n",
        "| ours / theirs | ours | theirs | ratio (rounds; ours against itself) | target | |",
        "|---|---|---|---|---|---|",
        *(_line(found[one.key][0], used.index(found[one.key][1]), several=len(used) > 1) for one in wanted),
        "",
        *(_source(runs[number], index, several=len(used) > 1) for index, number in enumerate(used)),
    ]
    return "\n".join(lines)


def _line(row: Mapping[str, Any], index: int, *, several: bool) -> str:
    ours, theirs, figure = cells_of(row)
    mark = f" [{index + 1}]" if several else ""
    note = f"; {row['note']}" if row.get("note") else ""
    verdict = f"**{row['verdict']}**" if row["verdict"] == "missed" else row["verdict"]
    return f"| {row['what']}{note}{mark} | {ours} | {theirs} | {figure} | {row['target']} | {verdict} |"


def _source(run: Mapping[str, Any], index: int, *, several: bool) -> str:
    mark = f"[{index + 1}] " if several else ""
    settings = ", ".join(f"{key} {value}" for key, value in run["options"].items())
    gates = " ".join(f"Gate: {one['what']}: {one['detail']}." for one in run["gates"])
    return (
        f"{mark}`{run['command']}` on {run['taken'][:10]}, {run['seconds']:.0f} s: {sentence(run)}; {settings}. "
        f"{gates} Load average before {run['load_before']:.1f}.\n"
    )


def _read(places: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for place in places:
        for path in sorted(place.glob("*.json")) if place.is_dir() else [place]:
            told = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(told, dict) and {"area", "rows", "device"} <= told.keys():  # older readings were lists
                yield told


if __name__ == "__main__":
    main()
