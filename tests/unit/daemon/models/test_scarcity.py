"""Whether a runner ended for lack of memory."""

import signal

import pytest

from daemon.models.scarcity import Scarcity
from daemon.models.watermarks import Level


def scarcity(*kills, level=Level.NORMAL):
    """Return one that reads *kills* one after the other, the last one for ever."""
    left = list(kills)
    return Scarcity(kills=lambda: left.pop(0) if len(left) > 1 else left[0], level=lambda: level)


@pytest.mark.parametrize(
    "words",
    [
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc",
        "libc++abi: terminating: [METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPU)",
        "RuntimeError: [metal::malloc] Resource limit (499000) exceeded.",
        "[malloc] Unable to allocate 17592186044416 bytes.",
        "cudaMallocAsync(&p, size, s) failed: out of memory",
    ],
)
def test_last_words_are_believed(words):
    """What the allocators of MLX, Metal, CUDA and C++ print before the process is aborted."""
    assert scarcity(0).explains(-signal.SIGABRT, words)
    assert scarcity(0).explains(0, words) is False, "it ended as it should"


def test_a_kill_is_explained_by_the_kernels_count():
    """SIGKILL while Linux counts one more kill for lack of memory; not if nothing was counted since it was heard."""
    killed = -signal.SIGKILL
    assert scarcity(3, 4).explains(killed, "")
    assert not scarcity(3, 3).explains(killed, "")
    assert not scarcity(None, None).explains(killed, "")
    assert not scarcity(3, 4).explains(-signal.SIGSEGV, "")
    heard = scarcity(3, 4, 4)
    heard.note()
    assert not heard.explains(killed, "")


def test_a_kill_under_pressure_is_a_kill_for_lack_of_memory():
    """MacOS says no more than that."""
    assert scarcity(None, level=Level.WARN).explains(-signal.SIGKILL, "")
