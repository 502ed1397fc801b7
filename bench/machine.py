"""Where the figures are taken: the machine, the versions, the BLAS, the commit; and an interpreter for children."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Run by the children's interpreter: what MLX runs on, and which BLAS is mapped once it has multiplied.
_PROBE = """
import json, os, re
import mlx.core as mx
mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
maps = open("/proc/self/maps").read() if os.path.exists("/proc/self/maps") else ""
info = getattr(mx, "device_info", None) or mx.metal.device_info
try:
    facts = {key: str(value) for key, value in info().items()}
except Exception as error:
    facts = {"error": str(error)}
gpu = mx.default_device() == mx.Device(mx.gpu)
print(json.dumps({"device": "gpu" if gpu else "cpu", "device_info": facts,
    "blas": sorted(set(re.findall(r"/\\S*blas\\S*", maps)))}))
"""


def path_to_ours() -> None:
    """Let this process import what lies in the checkout, also where it is not installed."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))


def preload(blas: str | None) -> None:
    """Start this very command again with *blas* preloaded, unless it is; for benchmarks that run MLX themselves."""
    if blas and os.environ.get("LD_PRELOAD") != blas:
        os.environ.update(model_variables(blas))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves


def model_variables(blas: str | None) -> dict[str, str]:
    """Return what processes with models get on top of the environment, both ours and theirs."""
    # Without a compiler MLX cannot fuse on Linux' CPU, and with one it gains nothing that pays for the waiting.
    plain = sys.platform == "linux" and not has_cuda() and "MLX_DISABLE_COMPILE" not in os.environ
    return ({"LD_PRELOAD": blas} if blas else {}) | ({"MLX_DISABLE_COMPILE": "1"} if plain else {})


def environment_of_models(blas: str | None) -> dict[str, str]:
    """Return the whole environment of a process with a model; nothing there asks the hub."""
    return {**os.environ, **model_variables(blas), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@functools.cache
def has_cuda() -> bool:
    """Tell whether MLX was installed with CUDA."""
    names = {str(one.metadata["Name"]).lower() for one in importlib.metadata.distributions()}
    if any(name.startswith(("mlx-cuda", "mlx_cuda")) for name in names):
        return True
    return probe(None)["device"] == "gpu"


@functools.cache
def probe(blas: str | None) -> dict[str, Any]:
    """Ask a process as the models get it what MLX runs on."""
    environ = {**os.environ, **({"LD_PRELOAD": blas} if blas else {})}
    done = subprocess.run([interpreter(), "-c", _PROBE], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"MLX does not run here:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


@functools.cache
def interpreter() -> str:
    """Return a Python that finds everything even when it ignores PYTHONPATH, as mlxd's runners do.

    Where the packages come by PYTHONPATH alone, an environment in a temporary folder points to them.
    """
    check = [sys.executable, "-I", "-c", "import daemon, mlx_lm, importlib.metadata as m; m.version('mlxd')"]
    if not subprocess.run(check, check=False, capture_output=True).returncode:
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="mlxd-bench-python-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    venv.create(folder, system_site_packages=True, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    here = str(Path(__file__).parent)
    paths = [str(Path(one).resolve()) for one in sys.path if one and Path(one).is_dir() and one != here]
    (site / "bench.pth").write_text("\n".join(dict.fromkeys([*paths, str(ROOT)])) + "\n")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("mlxd")
        return str(folder / "bin" / "python")
    info = site / "mlxd-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlxd\nVersion: 0.0.0\n")
    return str(folder / "bin" / "python")


def conditions(*, blas: str | None, note: str = "", at: str = "") -> dict[str, Any]:
    """Return all that a reading needs to be told with; *at* is the commit, where the checkout does not know it."""
    found = probe(blas)
    return {
        "device": found["device"],
        "device_info": found["device_info"],
        "note": note,
        "machine": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": _versions("mlx", "mlx-lm", "mlx-whisper", "huey"),
        "blas": _blas(found["blas"], blas),
        "blas_asked": blas,
        "environment": {key: os.environ[key] for key in sorted(os.environ) if key.startswith(("MLX_", "OMP_"))}
        | model_variables(blas),
        "commit": at or commit(),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "load_before": os.getloadavg()[0],
    }


def commit() -> str:
    """Return the checkout's commit, with a plus if files under version control were changed since; "" outside git."""
    if shutil.which("git") is None:
        return ""
    told = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip()


def sentence(facts: Mapping[str, Any]) -> str:
    """Tell the conditions in a line or two."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    where = facts["note"] or facts["processor"] or facts["machine"]
    gpu = facts["device_info"].get("device_name", "") if facts["device"] == "gpu" else ""
    blas = f", BLAS {facts['blas']}" if facts["device"] == "cpu" else ""
    return (
        f"{where}{f' ({gpu})' if gpu and gpu not in where else ''}, {facts['cores']} cores, "
        f"{facts['memory'] / 1e9:.0f} GB, {facts['machine']}, Python {facts['python']}, {versions}{blas}, "
        f"commit {facts['commit'] or 'unknown'}"
    )


def _blas(mapped: Sequence[str], asked: str | None) -> str:
    """Name the library that MLX calls; the first one in the process wins, and that is the preloaded one."""
    if asked:
        if str(Path(asked).resolve()) not in {str(Path(one).resolve()) for one in mapped}:
            raise SystemExit(f"{asked} was not loaded.")
        return next((Path(one).name for one in mapped if "openblas" in Path(one).name), Path(asked).name)
    return ", ".join(Path(one).name for one in mapped) or "the system's"


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    if sys.platform == "darwin":
        told = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return told.stdout.strip()
    return platform.processor()
