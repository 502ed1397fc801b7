"""The folder of kept beginnings: one cap over everything in it, whoever writes and whoever died while writing."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys

import pytest

from plugins.lm_prefix_disk_folder import MOST_FILES, Held, PrefixFolder

ONE, TWO = "1" * 32, "2" * 32


def _write(folder, key, size, *, used=None):
    """Write a file of *size* bytes; *used* is the time of its last use."""
    file, part = folder.reserve(key, size)
    with file:
        file.write(b"x" * size)
        path = folder.publish(part)
    if used is not None:
        os.utime(path, (used, used))
    return path


def test_the_least_recently_used_of_all_models_goes_first(tmp_path):
    """The cap is over all models; being used counts, the order of writing does not."""
    folder = PrefixFolder(tmp_path / "prefixes", 300, left_free=0)
    oldest, old, new = (_write(folder, key, 100, used=at) for key, at in ((ONE, 10), (TWO, 20), (ONE, 30)))
    assert folder.used(oldest)
    newest = _write(folder, TWO, 100)

    assert [path.exists() for path in (oldest, old, new, newest)] == [True, False, True, True]
    assert folder.held() == Held(300, 3)
    assert not folder.used(old)


def test_what_is_too_large_for_the_cap_is_not_begun(tmp_path):
    """It would only drive everything else out."""
    folder = PrefixFolder(tmp_path / "prefixes", 300, left_free=0)
    kept = _write(folder, ONE, 100)
    assert folder.reserve(ONE, 301) is None
    assert kept.exists()


def test_what_is_being_written_counts_and_is_nobodys_to_delete(tmp_path):
    """Two writers together stay below the cap, before either has written a byte."""
    folder = PrefixFolder(tmp_path / "prefixes", 300, left_free=0)
    file, part = folder.reserve(ONE, 200)
    with file:
        assert folder.held() == Held(200, 1)
        assert PrefixFolder(folder.root, 300, left_free=0).reserve(TWO, 101) is None
        assert part.exists()
        assert folder.names(ONE) == []
    _write(folder, TWO, 300)
    assert not part.exists()


DIE_WHILE_WRITING = """
import os, pathlib, signal, sys
from plugins.lm_prefix_disk_folder import PrefixFolder
file, _ = PrefixFolder(pathlib.Path(sys.argv[1]), 300, left_free=0).reserve(sys.argv[2], 250)
file.write(b"half")
file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_dead_writer_left_is_swept(tmp_path):
    """Killed in the middle of a write: its space is free for the next one, and nobody ever finds it."""
    root = tmp_path / "prefixes"
    child = subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, str(root), ONE], timeout=60, check=False)
    folder = PrefixFolder(root, 300, left_free=0)
    assert child.returncode == -signal.SIGKILL
    assert (folder.held(), folder.names(ONE)) == (Held(250, 1), [])

    _write(folder, TWO, 100)
    assert folder.held() == Held(100, 1)


def test_a_lowered_cap_holds_from_the_next_start(tmp_path):
    """`trim` deletes what is too much, the oldest first."""
    folder = PrefixFolder(tmp_path / "prefixes", 300, left_free=0)
    paths = [_write(folder, ONE, 100, used=at) for at in (10, 20, 30)]
    PrefixFolder(folder.root, 150, left_free=0).trim()
    assert [path.exists() for path in paths] == [False, False, True]


def test_the_disk_is_not_filled(tmp_path):
    """Room is left to others, whatever the cap says."""
    folder = PrefixFolder(tmp_path / "prefixes", 300, left_free=1 << 60)
    assert folder.reserve(ONE, 100) is None


def test_the_number_of_files_is_bounded(tmp_path):
    """Looking through tiny ones must not take long either."""
    folder = PrefixFolder(tmp_path / "prefixes", 1 << 30, left_free=0)
    _write(folder, ONE, 1, used=10)
    for number in range(MOST_FILES - 1):
        (folder.root / ONE / f"{number}.safetensors").touch()
    _write(folder, ONE, 1)
    assert folder.held().files == MOST_FILES


def test_only_the_owner_can_read_and_names_say_nothing(tmp_path):
    """0700 and 0600; a name is random, a folder's is the model's hash."""
    folder = PrefixFolder(tmp_path / "prefixes", 300, left_free=0)
    path = _write(folder, ONE, 100)
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (folder.root, path.parent, path)]
    assert modes == [0o700, 0o700, 0o600]
    assert path.stem != _write(folder, ONE, 100).stem


def test_a_folder_that_is_not_ones_own_is_refused(tmp_path):
    """Others may look into it, or it is a link: nothing is written."""
    root = tmp_path / "prefixes"
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    with pytest.raises(PermissionError):
        PrefixFolder(root, 300, left_free=0).reserve(ONE, 100)
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(PermissionError):
        PrefixFolder(tmp_path / "link", 300, left_free=0).reserve(ONE, 100)


def test_clearing_leaves_nothing_and_disturbs_no_writer(tmp_path):
    """All is gone, and says how much it was; who was just writing finds his file gone, and the next one begins anew."""
    folder = PrefixFolder(tmp_path / "prefixes", 300, left_free=0)
    _write(folder, ONE, 100)
    file, part = folder.reserve(TWO, 100)
    with file:
        assert folder.clear() == Held(200, 2)
        with pytest.raises(FileNotFoundError):
            folder.publish(part)
    assert folder.held() == Held(0, 0)
    _write(folder, TWO, 100)
    assert PrefixFolder(tmp_path / "nowhere", 300).clear() == Held(0, 0)


def test_writers_wait_for_each_other(tmp_path):
    """Making room is one writer's at a time: the lock is held meanwhile."""
    folder = PrefixFolder(tmp_path / "prefixes", 300, left_free=0)
    _write(folder, ONE, 100)
    with (folder.root / "lock").open() as other:
        with folder._locked(), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
