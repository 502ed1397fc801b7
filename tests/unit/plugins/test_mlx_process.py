"""What every process that runs MLX is given: limits, and how its errors are read."""

import os
import sys

import pytest

from plugins import mlx_process


@pytest.mark.models
def test_a_limit_never_exceeds_mlxs_own():
    """A share beyond what the device holds leaves MLX's own limit; a smaller one counts, also after a larger one."""
    import mlx.core as mx

    own = mx.get_memory_limit()
    try:
        mlx_process.prepare(memory=1 << 60)
        most = mx.get_memory_limit()
        assert most <= max(own, mlx_process._OWN_LIMIT[0])
        mlx_process.prepare(memory=10**9)
        assert mx.get_memory_limit() == 10**9
        mlx_process.prepare(memory=1 << 60)
        assert mx.get_memory_limit() == most
    finally:
        mx.set_memory_limit(own)


@pytest.mark.parametrize(
    ("words", "short"),
    [
        (MemoryError(), True),
        (RuntimeError("[malloc] Unable to allocate 17592186044416 bytes."), True),
        (
            RuntimeError(
                "[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum allowed "
                "buffer size of 8 bytes."
            ),
            True,
        ),
        (RuntimeError("Command buffer execution failed: Insufficient Memory (00000008:kIOGPU)"), True),
        (RuntimeError("cudaMallocAsync failed: out of memory"), True),
        (ValueError("[matmul] Last dimension of first input with shape (1,2) must match"), False),
        (KeyError("memory"), False),
    ],
)
def test_an_error_is_read_for_lack_of_memory(words, short):
    """The allocators' sentences are known; other errors are not taken for one."""
    assert mlx_process.out_of_memory(words) is short


def test_a_runner_that_stays_is_not_ended_for_what_its_caches_lack(monkeypatch):
    """The fuse is out and the caches are larger before MLX is used; what a person has set counts more."""
    for name in mlx_process._LASTING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLX_CUDA_SDPA_CACHE_SIZE", "64")
    monkeypatch.setitem(sys.modules, "mlx.core", None)  # importing it fails: nothing else is set here
    mlx_process.prepare()
    assert os.environ["MLX_ENABLE_CACHE_THRASHING_CHECK"] == "0"
    assert os.environ["MLX_CUDA_GRAPH_CACHE_SIZE"] == "1024"
    assert os.environ["MLX_CUDA_SDPA_CACHE_SIZE"] == "64"
