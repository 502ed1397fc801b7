"""What a process that runs MLX needs, once: bounded memory, no wired limit, and how much is in use.

Call `prepare` before the first import of mlx_lm or mlx_whisper; a runner does so before it loads a runtime.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

#: Freed buffers that MLX may keep for reuse, bytes. Its own limit on a Mac is nearly all of the memory.
CACHE_LIMIT: Final = 1024**3


def prepare(*, memory: int | None = None, cache: int | None = None) -> None:
    """Set MLX's limits, in bytes, and switch off what takes a Mac down. Does nothing where MLX is not installed."""
    try:
        import mlx.core as mx
    except ImportError:
        return  # a runtime of somebody else's may need no MLX at all
    # Wiring memory (mlx-lm does so for each generation) is what ends in kernel panics: "completeMemory() prepare count
    # underflow", mlx #3186; never calling it held for hours where calling it panicked in minutes.
    mx.set_wired_limit = _no_wired_limit  # type: ignore[assignment]
    before = mx.set_cache_limit(cache or CACHE_LIMIT)
    if cache is None and before < CACHE_LIMIT:
        mx.set_cache_limit(before)
    if memory is not None:
        mx.set_memory_limit(memory)
    if on_cpu() and "MLX_DISABLE_COMPILE" not in os.environ:
        # On Linux without a GPU each fused kernel is compiled by g++ at run time, half a second apiece.
        mx.disable_compile()


def on_cpu() -> bool:
    """Whether MLX computes on the CPU here."""
    import mlx.core as mx

    return bool(mx.default_device() == mx.Device(mx.cpu))


def active_bytes() -> int:
    """Return what MLX has allocated and kept, in bytes; 0 as long as nobody imported it."""
    mx = sys.modules.get("mlx.core")
    return 0 if mx is None else int(mx.get_active_memory() + mx.get_cache_memory())


def _no_wired_limit(_limit: Any) -> int:
    return 0
