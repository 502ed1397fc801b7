"""The runtime ``whisper``: speech to text by mlx-whisper, without ffmpeg and without torch.

Options: ``dtype`` (auto, float32, float16), ``batch`` (windows of half a minute that are decoded together at most;
default 16, fewer if their caches would take more than two gigabytes), ``one_step_in`` (lane -> of how many steps it
gets one at least: `plugins.lm_turns`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from plugins.estimate import estimate_whisper, read_config, whisper_batch
from plugins.hookspecs import hookimpl
from plugins.lm_turns import Turns, bounds_of
from plugins.runtime import Estimate, Runtime, Session

_TIMING: Final = "mlx_whisper.timing"


class WhisperRuntime:
    """Whisper models in mlx-whisper's format."""

    name = "whisper"
    summary = "Speech to text (mlx-whisper): any audio or video in, segments and words out."

    def estimate(self, model: Path, options: Mapping[str, Any]) -> Estimate:
        """Reckon from the headers and the configuration."""
        return estimate_whisper(model, options)

    def warm(self) -> None:
        """Import what a load needs; a runner that waits for a model does so beforehand."""
        with timing_put_off():
            importlib.import_module("mlx_whisper.load_models")
        importlib.import_module("plugins.whisper_session")

    def load(self, model: Path, options: Mapping[str, Any]) -> Session:
        """Load *model* and return its session."""
        with timing_put_off():
            from mlx_whisper.load_models import load_model
        import mlx.core as mx

        from plugins.mlx_process import on_cpu
        from plugins.precision import dequantised, settle
        from plugins.whisper_session import WhisperSession

        dtype = str(options.get("dtype", "auto"))
        if dtype not in ("auto", "float32", "float16"):
            raise ValueError(f"The option dtype of whisper must be auto, float32 or float16, not {dtype!r}.")
        half = dtype == "float16" or (dtype == "auto" and not on_cpu())
        net = load_model(str(model), dtype=mx.float16 if half else mx.float32)
        # The decoder insists on one format throughout, whatever the file holds.
        net = settle(net, "float16" if half else "auto" if on_cpu() else "float32", dequantise=dequantised)
        turns = Turns(bounds_of(options))
        batch = whisper_batch(read_config(model), options)
        about = {"model_type": "whisper", "files": _files(model)}
        return WhisperSession(net, half=half, batch=batch, turns=turns, about=about)


def _files(model: Path) -> str:
    """Return what tells a model's files from others: a checkpoint holds for the very same ones."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(model.iterdir())]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def timing_put_off() -> Iterator[None]:
    """Keep ``import mlx_whisper`` from importing numba and scipy (2 s, 120 MB): only word timestamps need them."""
    if "mlx_whisper" in sys.modules:
        yield
        return
    stub: Any = types.ModuleType(_TIMING)
    stub.add_word_timestamps = None  # the one name that mlx_whisper.transcribe imports; ours is the only window loop
    sys.modules[_TIMING] = stub
    try:
        yield
    finally:
        sys.modules.pop(_TIMING, None)


@hookimpl
def mlxd_register_runtimes(register: Callable[[Runtime], None]) -> None:
    """Offer the runtime."""
    register(WhisperRuntime())
