"""What a process that runs MLX needs, once: bounded memory, no wired limit, and how much is in use.

Call `prepare` before the first import of mlx_lm or mlx_whisper; a runner does so before it loads a runtime.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Final

#: Freed buffers that MLX may keep for reuse until the runner has got its share, bytes. Its own limit on a Mac is nearly
#: all of the memory.
CACHE_LIMIT: Final = 1024**3
#: The least it may keep afterwards: without any, a GPU spends its time on giving memory back and asking for it again.
LEAST_CACHE: Final = 64 * 1024**2

# What libraries and systems say when memory has run out: MLX's allocators, Metal's command buffers, CUDA, C++.
_OUT_OF_MEMORY: Final = re.compile(
    r"unable to allocate|bad_alloc|out of memory|outofmemory|insufficient memory|memoryallocation"
    r"|maximum allowed buffer size|cannot allocate memory|resource limit \(\d+\) exceeded",
    re.IGNORECASE,
)


#: MLX with CUDA keeps a plan for each pair of lengths that attention was computed with, 256 in all; one that is lacking
#: takes 60 ms to make and about 2 MB. A hundred prompts of lengths that had been there before took 9 s on an H200, with
#: these figures 3 s (mlx 0.32.4, 8B). It also counts what was lacking over the process's whole life, and may call twice
#: the cache's size an error ("Cache thrashing", ``lru_cache.h``): a fuse that is not for a process that stays.
#: Read when the device is first used; on a Mac nobody reads them.
_LASTING: Final = {
    "MLX_ENABLE_CACHE_THRASHING_CHECK": "0",
    "MLX_CUDA_SDPA_CACHE_SIZE": "1024",
    "MLX_CUDA_GRAPH_CACHE_SIZE": "1024",
}
_OWN_LIMIT: Final[list[int]] = []


def prepare(*, memory: int | None = None, cache: int | None = None, wired: bool = False) -> None:
    """Set MLX's limits, in bytes, and switch off what takes a Mac down. Does nothing where MLX is not installed.

    With *wired* a Mac keeps the model's memory from being paged out, up to what Metal recommends.
    """
    for name, value in _LASTING.items():
        os.environ.setdefault(name, value)
    try:
        import mlx.core as mx
    except ImportError:
        return  # a runtime of somebody else's may need no MLX at all
    # Wiring memory (mlx-lm does so for each generation) is what ends in kernel panics: "completeMemory() prepare count
    # underflow", mlx #3186; never calling it held for hours where calling it panicked in minutes.
    if wired and not on_cpu():
        mx.set_wired_limit(min(memory or device_bytes(), device_bytes()))
    mx.set_wired_limit = _no_wired_limit  # type: ignore[assignment]
    before = mx.set_cache_limit(cache or CACHE_LIMIT)
    if cache is None and before < CACHE_LIMIT:
        mx.set_cache_limit(before)
    if memory is not None:
        _limit_memory(memory)
    if on_cpu() and "MLX_DISABLE_COMPILE" not in os.environ:
        # On Linux without a GPU each fused kernel is compiled by g++ at run time, half a second apiece.
        mx.disable_compile()


def on_cpu() -> bool:
    """Whether MLX computes on the CPU here."""
    import mlx.core as mx

    return bool(mx.default_device() == mx.Device(mx.cpu))


def _limit_memory(memory: int) -> None:
    """Let MLX take *memory* bytes, but never more than it would by itself: a GPU may hold less than the machine."""
    import mlx.core as mx

    _OWN_LIMIT.append(int(mx.get_memory_limit()))  # the first one is MLX's own
    mx.set_memory_limit(min(memory, _OWN_LIMIT[0], device_bytes()))
    del _OWN_LIMIT[1:]


def device_bytes() -> int:
    """Return what the device that MLX computes on can hold, bytes; more than any machine has where it does not say."""
    import mlx.core as mx

    told = mx.device_info()
    found = [told[key] for key in ("max_recommended_working_set_size", "memory_size", "total_memory") if key in told]
    return int(min(found, default=1 << 56))


def share_out(memory: int, *, cache: int) -> None:
    """Let MLX take *memory* bytes in all, of which freed buffers may be *cache*; on a CPU its own limits stay.

    There it keeps 32 MB at most, and more was no faster that could be told from noise.
    """
    mx = sys.modules.get("mlx.core")
    if mx is not None and not on_cpu():
        _limit_memory(memory)
        mx.set_cache_limit(max(LEAST_CACHE, cache))


def give_back() -> None:
    """Give freed buffers back to the system, if anybody imported MLX."""
    mx = sys.modules.get("mlx.core")
    if mx is not None:
        mx.clear_cache()


def cached_bytes() -> int:
    """Return what MLX keeps of freed buffers, bytes; 0 as long as nobody imported it."""
    mx = sys.modules.get("mlx.core")
    return 0 if mx is None else int(mx.get_cache_memory())


def out_of_memory(error: BaseException | str) -> bool:
    """Tell whether *error*, or what a process printed last, says that memory has run out."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def active_bytes() -> int:
    """Return what MLX has allocated and kept, in bytes; 0 as long as nobody imported it."""
    mx = sys.modules.get("mlx.core")
    return 0 if mx is None else int(mx.get_active_memory() + mx.get_cache_memory())


def _no_wired_limit(_limit: Any) -> int:
    return 0
