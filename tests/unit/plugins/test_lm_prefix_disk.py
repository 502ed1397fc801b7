"""Beginnings on the disk: written when they were of use, read as they were, and dropped when anything is wrong."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins import lm_caches, mlx_process
from plugins.lm_prefix_disk import Place, PrefixDisk, place
from plugins.lm_prefix_disk_folder import BYTES, FOLDER, PrefixFolder
from plugins.lm_prefix_disk_writer import Writer
from plugins.lm_prefixes import Prefixes, array

pytestmark = pytest.mark.models

KEY = "1" * 32
TOKENS = list(range(5, 105))


def _plain(tokens=0, *, seed=0, layers=2):
    """Return a plain cache with *tokens* random keys and values in each layer, and room for more."""
    import mlx.core as mx
    from mlx_lm.models.cache import KVCache

    made = [KVCache() for _ in range(layers)]
    if tokens:
        keys = mx.random.split(mx.random.key(seed), len(made))
        for layer, key in zip(made, keys, strict=True):
            layer.update_and_fetch(*mx.random.normal((2, 1, 2, tokens, 8), key=key, dtype=mx.bfloat16))
        lm_caches.evaluate(made)
    return made


def _rotating(tokens=0):
    import mlx.core as mx
    from mlx_lm.models.cache import RotatingKVCache

    made = [RotatingKVCache(max_size=32)]
    for at in range(tokens):
        made[0].update_and_fetch(*mx.full((2, 1, 2, 1, 8), at, dtype=mx.float16))
    return made


def _quantised(tokens=0):
    import mlx.core as mx
    from mlx_lm.models.cache import QuantizedKVCache

    made = [QuantizedKVCache(group_size=32, bits=8)]
    if tokens:
        made[0].update_and_fetch(*mx.random.normal((2, 1, 2, tokens, 32), key=mx.random.key(3)))
    return made


def _hybrid(tokens=0):
    import mlx.core as mx
    from mlx_lm.models.cache import ArraysCache, CacheList, KVCache

    made = [ArraysCache(2), CacheList(KVCache(), KVCache())]
    if tokens:
        made[0][0] = mx.random.normal((1, 3, 8), key=mx.random.key(1))
        for layer in made[1].caches:
            layer.update_and_fetch(*mx.random.normal((2, 1, 2, tokens, 8), key=mx.random.key(2)))
    return made


def _same(one, other):
    import mlx.core as mx
    from mlx.utils import tree_flatten

    def flat(cache):
        return tree_flatten([content(layer) for layer in cache])

    def content(layer):
        if hasattr(layer, "caches"):
            return [content(inner) for inner in layer.caches]
        return layer.keys_and_values() if getattr(layer, "keys", None) is not None else layer.state

    pairs = list(zip(flat(one), flat(other), strict=True))
    return all(a == b and (mx.array_equal(x, y) if isinstance(x, mx.array) else x == y) for (a, x), (b, y) in pairs)


@pytest.fixture(name="folder")
def _folder(tmp_path):
    mlx_process.prepare()
    return PrefixFolder(tmp_path / "prefixes", 10**7, left_free=0)


def _disk(folder, *, fresh=_plain, key=KEY, **kwargs):
    return PrefixDisk(Place(folder, key), fresh=fresh, **kwargs)


def _write(folder, tokens, cache, **kwargs):
    """Let a session write one beginning, and end."""
    disk = _disk(folder, **kwargs)
    disk.offer(array(tokens), cache, "")
    _written(disk)


def _written(disk):
    while disk.busy:
        disk.pump(wait=True)
    disk.close()


def _read(disk, tokens, *, more_than=0, space=""):
    """Return the cache for *tokens* and how many of them it has."""
    loading = disk.find(array(tokens), space, more_than=more_than)
    return (None, 0) if loading is None else (_whole(loading), loading.length)


def _whole(loading):
    while (cache := loading.advance(1)) is None:
        pass
    return cache


@pytest.mark.parametrize("made", [_plain, _rotating, _quantised, _hybrid])
def test_every_kind_of_cache_comes_back_as_it_was(folder, made):
    """Bit by bit, by another session of the same model; what cannot be cut serves only whole."""
    cache = made(len(TOKENS))
    _write(folder, TOKENS, cache, fresh=made)
    found, length = _read(_disk(folder, fresh=made), [*TOKENS, 1])
    assert length == len(TOKENS)
    assert _same(found, cache)
    cut = _read(_disk(folder, fresh=made), [*TOKENS[:80], 1])[1]
    assert cut == (80 if lm_caches.trimmable(cache) else 0)


def test_a_beginning_of_it_is_found_too(folder):
    """Cut to what two prompts have in common; the last token of a prompt is always left over."""
    _write(folder, TOKENS, _plain(100))
    disk = _disk(folder)
    cache, length = _read(disk, [*TOKENS[:80], 1, 2])
    assert (length, cache[0].offset) == (80, 80)
    assert _read(disk, TOKENS)[1] == 99
    assert disk.find(array(TOKENS[:80]), "", more_than=79) is None
    assert disk.find(array([1, *TOKENS]), "", more_than=0) is None
    assert disk.find(array([*TOKENS, 1]), "adapter", more_than=0) is None
    assert _disk(folder, key="2" * 32).find(array([*TOKENS, 1]), "", more_than=0) is None


def test_only_what_was_of_use_again_is_written(folder):
    """Kept in memory costs the disk nothing; the first time it is found it is written, as far as it was of use."""
    disk = _disk(folder)
    prefixes = Prefixes(10**7, keeper=disk)
    prefixes.keep(TOKENS, _plain(100))
    assert not disk.busy
    prefixes.find([*TOKENS[:90], 1])
    _written(disk)
    found = _disk(folder)
    assert _read(found, [*TOKENS, 1])[1] == 90


def test_a_conversation_is_written_again_when_it_has_grown(folder):
    """A little more is not worth writing all of it; much more is, and what it serves for as well goes."""
    _write(folder, TOKENS, _plain(100))
    longer = [*TOKENS, *range(200, 220)]
    _write(folder, longer[:105], _plain(105))
    assert folder.held().files == 1
    assert _read(_disk(folder), [*longer, 1])[1] == 100
    _write(folder, longer * 2, _plain(240))
    assert folder.held().files == 1
    assert _read(_disk(folder), [*longer, *longer, 1])[1] == 240


def test_the_same_is_written_once(folder):
    """Offered while it waits or when it is there, it is only marked as used."""
    disk = _disk(folder)
    for length in (100, 70, 100):
        disk.offer(array(TOKENS[:length]), _plain(length), "")
    _written(disk)
    assert folder.held().files == 1
    again = _disk(folder)
    again.offer(array(TOKENS), _plain(100), "")
    assert not again.busy


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_damaged_file_is_dropped_and_never_believed(folder, seed):
    """Torn, zeroed, flipped, another's: the prompt is computed, the file is gone, and nobody hears of it."""
    folder.clear()
    _write(folder, TOKENS, _plain(100, seed=7))
    (path,) = folder.names(KEY)
    chance, data = random.Random(seed), bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    match chance.randrange(4):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data = data[:at]
        case 2:
            data[at:] = bytes(len(data) - at)
        case _:
            data[at:at] = b"x"
    unchanged = bytes(data) == path.read_bytes()
    path.write_bytes(data)

    disk = _disk(folder)
    loading = disk.find(array([*TOKENS, 1]), "", more_than=0)
    if loading is not None and not unchanged:
        with pytest.raises((OSError, ValueError)):
            _whole(loading)
        loading.forget()
    assert path.exists() == unchanged


def test_another_models_cache_is_refused(folder):
    """Were the key not enough: the kinds of layers and their number must be those of the model's own cache."""
    for made in (_rotating, _quantised, _hybrid):
        folder.clear()
        _write(folder, TOKENS, _plain(100))
        loading = _disk(folder, fresh=made).find(array([*TOKENS, 1]), "", more_than=0)
        with pytest.raises(ValueError, match="another kind"):
            _whole(loading)


def test_what_went_meanwhile_is_no_mistake(folder):
    """Another runner made room while this one was reading: an error that the reader knows, then nothing to be found."""
    _write(folder, TOKENS, _plain(100))
    disk = _disk(folder)
    loading = disk.find(array([*TOKENS, 1]), "", more_than=0)
    loading.advance(1)
    folder.clear()
    with pytest.raises(FileNotFoundError):
        loading.advance(1)
    assert disk.find(array([*TOKENS, 1]), "", more_than=0) is None


def test_what_takes_longer_to_read_than_to_compute_is_neither_written_nor_read(folder):
    """Seconds of computing are known, those of reading reckoned; what takes no time to speak of is always read."""
    big = _plain(100)
    _write(folder, TOKENS, big, cost=lambda tokens: tokens * 1.0)
    dear = _disk(folder, cost=lambda _: 0.001)
    assert dear.find(array([*TOKENS, 1]), "", more_than=0) is not None
    dear._rate = 1000.0
    assert dear.find(array([*TOKENS, 1]), "", more_than=0) is None
    dear.offer(array([*TOKENS[:70], *TOKENS]), _plain(170), "")
    assert not dear.busy


class _Stuck(PrefixFolder):
    """A disk that does not answer until it is told to."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.answer = threading.Event()

    def reserve(self, key, size):
        assert self.answer.wait(30)
        return super().reserve(key, size)


def test_a_slow_disk_holds_nobody_up_and_takes_no_memory(tmp_path):
    """The owner's calls return whatever the disk does, and only a few pieces wait for it."""
    folder = _Stuck(tmp_path / "prefixes", 10**7, left_free=0)
    disk = _disk(folder)
    disk.offer(array(TOKENS), _plain(100, layers=20), "")
    for _ in range(100):
        disk.pump()
    assert disk.busy
    assert disk._writer._queue.qsize() < 10
    folder.answer.set()
    _written(disk)
    assert folder.held().files == 1


def test_a_disk_that_fails_is_left_alone(tmp_path):
    """Nothing is raised where answers are made, and nothing is tried again."""
    (tmp_path / "prefixes").write_text("a file where the folder should be")
    disk = _disk(PrefixFolder(tmp_path / "prefixes", 10**7, left_free=0))
    disk.offer(array(TOKENS), _plain(100), "")
    _written(disk)
    assert not disk._writer.works
    disk.offer(array(TOKENS), _plain(100), "")
    assert not disk.busy


def test_an_end_in_the_middle_leaves_nothing_half(tmp_path):
    """What was not handed over when the session ends is not written, and not there."""
    folder = PrefixFolder(tmp_path / "prefixes", 10**7, left_free=0)
    writer = Writer(folder)
    disk = _disk(folder, writer=writer)
    disk.offer(array(TOKENS), _plain(100), "")
    disk.pump()
    disk.pump()
    disk.close()
    assert folder.held().files == 0


def test_no_place_without_a_folder_and_a_cap(tmp_path):
    """Nothing said, or a cap of 0, and nothing is kept."""
    (tmp_path / "config.json").write_text("{}")
    assert place({}, tmp_path, {}) is None
    assert place({FOLDER: "/x", BYTES: "0"}, tmp_path, {}) is None
    assert place({FOLDER: "/x", BYTES: "many"}, tmp_path, {}) is None
    found = place({FOLDER: "/x", BYTES: "5"}, tmp_path, {})
    assert (str(found.folder.root), found.folder.limit, len(found.key)) == ("/x", 5, 32)
