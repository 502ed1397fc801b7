"""`make bench`: every area after the other, each in a process of its own, then the tables.

What is not understood here is handed on to every area: `python bench/run.py --rounds 5 --blas LIBRARY`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from targets import AREAS

HERE = Path(__file__).parent


def main() -> int:
    """Run what was asked for; an area that fails does not keep the others from being measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--areas", nargs="+", choices=list(AREAS), default=list(AREAS), help="measure only these")
    options, handed_on = parser.parse_known_args()
    failed = []
    for area in options.areas:
        script = HERE / AREAS[area][0].split("/")[-1]
        print(f"\n==> {area}: python bench/{script.name} {' '.join(handed_on)}", flush=True)
        if not script.exists() or subprocess.run([sys.executable, script, *handed_on], check=False).returncode:
            failed.append(area)
    subprocess.run([sys.executable, HERE / "report.py"], check=False)
    if failed:
        print(f"Not measured: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
