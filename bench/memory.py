"""`python bench/memory.py`: what a reload costs beside reading the files, and what a hundred of them leave behind.

The reload is timed by whoever asks for it: from the request over the socket to the answer that the model is ready. Bare
is `mx.load` and `mx.eval` of the same files in a process that has imported MLX long ago. Both find the files in the
page cache. Between two reloads the daemon is left alone for a while, as it is after an eviction: its spare runner is
ready by then.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contest import Contest, paired
from house import House, running
from machine import environment_of_models, interpreter, path_to_ours
from results import Results, arguments
from weights import SIZES, save_model

path_to_ours()

from daemon.cli.client import Client  # noqa: E402 - the checkout has to be found first

_BARE = """
import glob, sys, time
import mlx.core as mx
mx.eval(mx.zeros(1) + 1)
for line in sys.stdin:
    began = time.perf_counter()
    found = [mx.load(path) for path in sorted(glob.glob(line.strip() + "/model*.safetensors"))]
    mx.eval(found)
    print(time.perf_counter() - began, flush=True)
    del found
    mx.clear_cache()
"""

#: Seconds until a new spare runner has imported what it needs, and has nothing left to do.
READY_S = 8.0
#: Cycles before the ones that count: what is kept once for all is there by then.
FIRST = 10


@contextmanager
def bare(blas: str | None) -> Iterator[subprocess.Popen[str]]:
    """Give a process that loads the folders it is told and says how long it took."""
    with subprocess.Popen(
        [interpreter(), "-c", _BARE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment_of_models(blas),
        text=True,
    ) as process:
        yield process
        process.kill()


def load_bare(process: subprocess.Popen[str], folder: Path) -> float:
    """Return the seconds of a bare load."""
    if process.stdin is None or process.stdout is None:
        raise SystemExit("The bare loader has no pipes.")
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def reloads(folder: Path, options: argparse.Namespace, *, spare: bool, ready: float) -> Contest:
    """Return reloads through the daemon beside bare loads."""
    pairs = []
    ours = "" if spare else "spare = false"
    with running(f'[models]\nbig = "{folder}"', blas=options.blas, runner=ours) as house, bare(options.blas) as process:
        client = Client(house.socket)
        client.load("big", runtime="lm")
        for _ in range(options.warm + options.rounds):
            unload(client, "big")
            time.sleep(ready)
            began = time.perf_counter()
            client.load("big", runtime="lm")
            took = time.perf_counter() - began
            # The spare for the next round is begun two seconds after a load; bare must not run beside it.
            time.sleep(ready)
            pairs.append((took, load_bare(process, folder)))
    return paired(pairs[options.warm :])


def unload(client: Client, ref: str) -> None:
    """Unload a model and wait until it is gone."""
    client.unload(ref)
    while any(model.pid for model in client.models() if model.ref == ref):
        time.sleep(0.01)


def reload_rows(results: Results, options: argparse.Namespace) -> None:
    """Compare a reload with reading the files, with and without a spare runner."""
    if not results.wants("memory.reload", "memory.cold"):
        return
    place = Path(tempfile.mkdtemp(prefix="mlxd-bench-weights-"))
    try:
        folder = options.model or place / options.size
        if options.model is None:
            save_model(options.size, folder)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        note = f"{size / 1e9:.2f} GB from the page cache"
        if results.wants("memory.reload"):
            found = reloads(folder, options, spare=True, ready=options.ready)
            results.duel("memory.reload", found, unit="s", note=note)
        if results.wants("memory.cold"):
            results.duel("memory.cold", reloads(folder, options, spare=False, ready=1.0), unit="s", note=note)
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Vitals:
    """What the daemon has of the system."""

    def __init__(self, house: House) -> None:
        import psutil

        from daemon.models.footprint import exact

        process = psutil.Process(house.pid)
        self.memory = (exact(house.pid) or 0) / 1e6
        self.descriptors = process.num_fds()
        #: What they are, where the system says: the last parts of paths, and kinds such as "socket".
        self.open = _open_in(house.pid)
        self.threads = process.num_threads()
        self.children = len(process.children(recursive=True))
        shared = Path("/dev/shm")  # noqa: S108 - looked at, not written to
        # Segments are files; folders there are other programs' scratch places.
        self.shared = sum(1 for one in shared.iterdir() if one.is_file()) if shared.is_dir() else 0


def cycle_rows(results: Results, options: argparse.Namespace) -> None:
    """Load and unload the demo models, each with a request, and see what is left."""
    if not results.wants("memory.left"):
        return
    with running(blas=options.blas, runner="spare = false" if options.no_spare else "") as house:
        client = Client(house.socket)
        first = None
        for number in range(FIRST + options.cycles):
            client.load("demo:lm")
            client.wait(client.submit("generate", {"prompt": "Buy milk.", "max_tokens": 4})[0].id, timeout=300)
            unload(client, "demo:lm")
            client.load("demo:whisper", runtime="whisper")
            unload(client, "demo:whisper")
            if number + 1 == FIRST:
                first = settled(house)
        last = settled(house)
    if first is None:
        raise SystemExit("There was no cycle to compare with.")
    note = f"{2 * options.cycles} loads and unloads after {2 * FIRST}"
    results.value("memory.left_bytes", last.memory - first.memory, unit="MB", note=note)
    for what in ("descriptors", "threads", "children", "shared"):
        more = f"; more: {_told(last.open - first.open)}" if what == "descriptors" and last.open - first.open else ""
        results.value(f"memory.left_{what}", getattr(last, what) - getattr(first, what), unit="", note=note + more)


def _open_in(pid: int) -> Counter[str]:
    """Return what the process has open, by name; nothing where there is no ``/proc``."""
    names: Counter[str] = Counter()
    for one in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # closed meanwhile
            names[one.readlink().name.partition(":")[0]] += 1
    return names


def _told(names: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items()))


def settled(house: House) -> Vitals:
    """Return what there is when nothing is on its way out any more; the spare is ended after a minute."""
    time.sleep(70)
    return Vitals(house)


def main() -> None:
    """Measure what was asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--size", choices=SIZES, default="medium", help="shape of the model with random weights")
    parser.add_argument("--model", type=Path, help="a model's folder instead")
    parser.add_argument("--cycles", type=int, default=50, help="of two loads and unloads each (default: 50)")
    parser.add_argument("--ready", type=float, default=READY_S, help=f"pause before a load (default: {READY_S:g} s)")
    parser.add_argument("--no-spare", action="store_true", help="cycles without a spare runner")
    options = parser.parse_args()
    results = Results("memory", options, size=options.model or options.size, cycles=options.cycles, ready=options.ready)
    reload_rows(results, options)
    cycle_rows(results, options)
    results.save()


if __name__ == "__main__":
    main()
