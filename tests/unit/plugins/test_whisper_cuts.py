"""Where a recording is cut: in pauses, late, and nowhere else."""

import numpy as np

from plugins import whisper_cuts as cuts
from plugins.mel import HOP, WINDOW

RATE = 16_000
HALF_MINUTE = WINDOW * HOP


def _talk(*pauses, room=0.0):
    """Return half a minute of loud noise with *pauses* (beginning, end in seconds) as quiet as the *room*."""
    chance = np.random.default_rng(0)
    sound = chance.normal(size=HALF_MINUTE) * 3000
    for start, end in pauses:
        sound[int(start * RATE) : int(end * RATE)] = 0
    return (sound + chance.normal(size=HALF_MINUTE) * room).astype(np.int16)


def _cut(sound):
    found = cuts.cut(cuts.loudness(sound))
    return None if found is None else found / 100


def test_the_latest_good_pause_is_taken():
    """Of two equally long ones the later; a long one before a short one that is later; nothing before ten seconds."""
    assert 26 < _cut(_talk((21, 21.8), (26, 26.8))) < 26.8
    assert 21 < _cut(_talk((21, 21.8), (26, 26.25))) < 21.8
    assert 26 < _cut(_talk((12, 13), (26, 26.25))) < 26.25
    assert 12 < _cut(_talk((12, 13))) < 13
    assert _cut(_talk((5, 6))) is None


def test_a_window_begins_shortly_before_the_next_words():
    """In a long pause the cut lies near its end: a window's first timestamp is one second at most."""
    assert 27.4 < _cut(_talk((20, 28))) < 28
    # One that goes on beyond the half minute is cut at its end, or in its middle.
    assert 29 < _cut(_talk((29, 30))) < 30


def test_a_pause_is_quiet_for_its_room():
    """Pauses are found in silence and in noise, whatever the loudness, and beside digital silence elsewhere."""
    for room in (0, 5, 200):
        for gain in (1.0, 0.05):
            sound = (_talk((22, 22.6), room=room) * gain).astype(np.int16)
            assert 22 < _cut(sound) < 22.6
    sound = _talk((22, 22.6), room=100)
    sound[:RATE] = 0
    assert 22 < _cut(sound) < 22.6


def test_without_pauses_there_is_no_cut():
    """Steady noise, a hum, silence, and gaps between sounds of a word have none."""
    assert _cut(_talk()) is None
    assert _cut(np.zeros(HALF_MINUTE, np.int16)) is None
    assert _cut((np.sin(np.arange(HALF_MINUTE) / 20) * 9000).astype(np.int16)) is None
    assert _cut(_talk(*((start, start + 0.1) for start in np.arange(1, 29, 0.5)))) is None


def test_the_rest_of_a_window_is_quiet_by_the_windows_own_measure():
    """What follows the last words counts as nothing only if no frame of it is above the pauses."""
    loud = cuts.loudness(_talk((25, 30)))
    assert cuts.is_quiet(loud[2600:], loud)
    assert not cuts.is_quiet(loud[2400:], loud)
    steady = cuts.loudness(_talk())
    assert not cuts.is_quiet(steady[2600:], steady)
