"""``python -m fuzz``: fuzz every target and every planted bug; a line of JSON for each. Ends with 1 on a find."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import deque
from collections.abc import Iterator

from fuzz import engine


def found(seconds: float, control: float, seed: int, names: list[str], jobs: int) -> Iterator[engine.Found]:
    """Yield what came of every target, *seconds* each, and of its planted bugs, *control* seconds each."""
    # Only what is imported here is looked at by atheris; everything else would slow it down.
    with _instrumented():
        from fuzz import files, messages, texts
    targets = [*messages.TARGETS, *files.TARGETS, *texts.TARGETS]
    wanted = [target for target in targets if not names or target.name in names]
    work = [(one, bug, control if bug else seconds) for one in wanted for bug in ("", *one.planted)]
    running: deque = deque()
    for target, bug, budget in work:
        running.append(engine.forked(target, bug, seconds=budget, seed=seed))
        if len(running) == jobs:
            yield running.popleft()()
    while running:
        yield running.popleft()()


def _instrumented() -> contextlib.AbstractContextManager[object]:
    if not engine.HERE:
        return contextlib.nullcontext()
    import atheris

    return atheris.instrument_imports(
        include=["jobs", "daemon", "plugins", "tomllib", "fuzz"], enable_loader_override=False
    )


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="only these (all)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target (10)")
    parser.add_argument("--control", type=float, default=10.0, help="for each planted bug (10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (2)")
    asked = parser.parse_args()
    bad = False
    for one in found(asked.seconds, asked.control, asked.seed, asked.targets, asked.jobs):
        sys.stdout.write(json.dumps({**one._asdict(), "culprit": one.culprit.decode("latin-1")}) + "\n")
        sys.stdout.flush()
        bad |= bool(one.failure) != bool(one.bug)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
