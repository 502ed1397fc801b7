"""Reading ahead and planning windows: bounded, complete, and resumable by the samples themselves."""

import itertools
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from fakes_sound import tone, write_wav

from plugins.audio import RATE
from plugins.mel import HOP, REACH, WINDOW
from plugins.whisper_plan import Plan
from plugins.whisper_reader import AHEAD, Begin, End, Reader


def _talk(seconds):
    """Return a tone, different every second, with pauses of 0.6 s."""
    sound = np.concatenate([tone(1, pitch=200 + 37 * second) for second in range(seconds)])
    for end in range(9, seconds, 9):
        sound[int((end - 0.6) * RATE) : end * RATE] = 0
    return sound


class Ear:
    """A reader whose news can be waited for."""

    def __init__(self, path, **more):
        self._news = threading.Event()
        self.reader = Reader(path, heard=self._news.set, **more)

    def take(self):
        while (told := self.reader.take()) is None:
            assert self._news.wait(20)
            self._news.clear()
        return told

    close = property(lambda self: self.reader.close)


def _all(ear):
    told = [ear.take()]
    while not isinstance(told[-1], End | ValueError):
        told.append(ear.take())
    return told


def _windows(plan, *, most=100):
    """Plan to the end; open windows are said to have been told whole."""
    made = []
    while not plan.finished and len(made) < most:
        if (stretch := plan.next()) is not None:
            made.append(stretch)
            if not stretch.closed:
                plan.go_on(stretch.size)
    return made


def test_pieces_come_in_order_with_an_end(tmp_path):
    """All samples, once, and what the whole is."""
    sound = _talk(35)
    told = _all(Ear(write_wav(tmp_path / "a.wav", sound)))
    assert isinstance(told[0], Begin)
    assert (told[0].duration, told[0].sample, told[0].resumed) == (35.0, 0, False)
    assert np.array_equal(np.concatenate(told[1:-1]), sound)
    assert told[-1] == End(len(sound), [])


def test_the_reader_stops_when_nobody_takes_and_when_it_is_closed(tmp_path):
    """Only so many pieces wait, however long the recording is; closing ends the thread wherever it is."""
    news = threading.Semaphore(0)
    reader = Reader(write_wav(tmp_path / "a.wav", tone(300)), heard=news.release)
    for _ in range(AHEAD):
        assert news.acquire(timeout=20)
    assert not news.acquire(timeout=0.05)
    assert reader._thread.is_alive()
    reader.close()
    reader.join(20)
    assert not reader._thread.is_alive()
    assert reader.take() is None


def test_a_reader_decodes_in_its_turn_only_and_keeps_it_from_nobody_while_it_waits(tmp_path):
    """It goes on each time something was taken; while enough waits the turn is free, and at the end."""
    turn, turns, free = threading.Lock(), [], threading.Semaphore(0)

    @contextmanager
    def mine():
        with turn:
            turns.append(len(turns))
            yield
        free.release()

    ear = Ear(write_wav(tmp_path / "a.wav", tone(300)), turn=mine)
    assert free.acquire(timeout=20)
    assert turns == [0]
    with turn:  # somebody else's: what was taken is not replaced meanwhile
        taken = [ear.take() for _ in range(AHEAD)]
        assert ear.reader.take() is None
    while not isinstance(taken[-1], End):
        taken.append(ear.take())
    assert sum(map(len, taken[1:-1])) == 300 * RATE
    ear.reader.join(20)
    assert turn.acquire(timeout=0)


def test_what_is_no_sound_is_told_as_an_error(tmp_path):
    """The sentence is the decoder's."""
    (tmp_path / "a.wav").write_text("text " * 50)
    (error,) = _all(Ear(tmp_path / "a.wav"))
    assert "holds text" in str(error)
    plan = Plan(Ear(tmp_path / "gone.wav"), cutting=True)
    with pytest.raises(ValueError, match="No such file"):
        plan.next()


@pytest.mark.parametrize("cutting", [True, False])
def test_windows_cover_the_recording(tmp_path, cutting):
    """One begins where the last one ends; each has the samples it looks at, and those before them."""
    sound = _talk(100)
    plan = Plan(Ear(write_wav(tmp_path / "a.wav", sound)), cutting=cutting)
    windows = _windows(plan)
    assert windows[0].seek == 0
    for one, following in itertools.pairwise(windows):
        assert following.seek == one.seek + one.size
        assert one.size <= WINDOW
    assert windows[-1].seek + windows[-1].size == 10_000
    assert [one.closed for one in windows] == ([True] * (len(windows) - 1) + [False] if cutting else [False] * 4)
    for one in windows:
        start = one.seek * HOP
        assert one.before == min(REACH, start)
        assert np.array_equal(one.samples, sound[start - one.before : (one.seek + one.size) * HOP + REACH])
    assert plan.duration == 100.0
    # No more of the recording is kept than a window needs and the pieces that came.
    assert len(plan._samples) < 45 * RATE


def test_the_rest_of_a_window_is_a_window(tmp_path):
    """What follows its first frames looks at the same samples as if it had been planned so."""
    sound = _talk(40)
    plan = Plan(Ear(write_wav(tmp_path / "a.wav", sound)), cutting=True)
    rest = plan.next().rest(700)
    assert rest.seek == 700
    assert np.array_equal(rest.samples[: REACH + 1000], sound[700 * HOP - REACH : 700 * HOP + 1000])


@pytest.mark.parametrize("cutting", [True, False])
def test_a_plan_goes_on_from_a_mark(tmp_path, cutting):
    """From any mark on the windows are those of an undisturbed plan, samples and marks alike."""
    path = write_wav(tmp_path / "a.wav", _talk(100))
    plan, marks, whole = Plan(Ear(path), cutting=cutting), [], []
    while not plan.finished:
        if (stretch := plan.next()) is not None:
            whole.append(stretch)
            if not stretch.closed:
                plan.go_on(stretch.size)
            marks.append(plan.mark)
    for number, mark in enumerate(marks[:-1]):
        ear = Ear(path, skip=mark.frame * HOP, digest=mark.digest)
        again = Plan(ear, cutting=cutting, at=mark.frame)
        rest = _windows(again)
        assert again.resumed is True
        assert [one.seek for one in rest] == [one.seek for one in whole[number + 1 :]]
        for one, other in zip(rest, whole[number + 1 :], strict=True):
            assert np.array_equal(one.samples, other.samples)
        assert again.mark == marks[-1]


def test_another_recording_begins_anew(tmp_path):
    """Where one sample before the mark is another one, or the recording ends before it, everything is told."""
    sound = _talk(70)
    path = write_wav(tmp_path / "a.wav", sound)
    plan = Plan(Ear(path), cutting=True)
    plan.next()
    mark = plan.mark
    sound[1000] += 1
    for other in (sound, sound[: 5 * RATE]):
        ear = Ear(write_wav(tmp_path / "b.wav", other), skip=mark.frame * HOP, digest=mark.digest)
        again = Plan(ear, cutting=True, at=mark.frame)
        first = again.next()
        assert again.resumed is False
        assert first.seek == 0
        assert np.array_equal(first.samples[:1000], other[:1000])
