"""The gate before any speed counts: whatever is decoded beside a window, its tokens are those of the window alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
from fakes_models import drain, tiny_whisper
from fakes_sound import write_wav

from daemon.models.references import DEMO_MODELS
from plugins import mel, mlx_process, whisper_net
from plugins.audio import Sound
from plugins.whisper import WhisperRuntime
from plugins.whisper_rows import Row, Rows
from plugins.whisper_session import WhisperSession

pytestmark = [pytest.mark.models, pytest.mark.slow, pytest.mark.timeout(300)]

MEMO = DEMO_MODELS / "samples" / "memo.flac"
#: Pieces of the memo in seconds, and how many tokens of text each is led by.
PIECES = [(0, 13.9, 0), (8, 13.9, 40), (2, 4, 3)]


@pytest.fixture(name="session", scope="module")
def _session():
    mlx_process.prepare()
    session = WhisperRuntime().load(DEMO_MODELS / "whisper", {"dtype": "float32"})
    yield session
    session.close()


@pytest.fixture(name="known", scope="module")
def _known(session):
    """Return for each piece its features, its text before it, and what mlx_whisper's own decoder says alone."""
    import mlx.core as mx
    from mlx_whisper.decoding import DecodingOptions, decode

    samples = np.concatenate(list(Sound(MEMO).pieces()))
    text = session._tokenizer.encode(" Remind me to call Anna on Monday at nine. Buy milk and two apples." * 3)
    known = []
    for start, end, led in PIECES:
        sound = samples[int(start * 16_000) : int(end * 16_000)]
        window = mel.window(sound, before=0, size=len(sound) // mel.HOP, n_mels=80)
        features = whisper_net.encode(session._model, window[None])[0]
        mx.eval(features)
        said = decode(
            session._model, features, DecodingOptions(language="en", fp16=False, prompt=text[:led] if led else None)
        )
        known.append((features, text[:led], said))
    return known


def _row(session, known, number):
    features, led, _ = known[number]
    before = [session._tokenizer.sot_prev, *led] if led else []
    return Row(owner=number, prompt=[*before, session._tokenizer.sot], start=len(before), features=features)


@pytest.mark.parametrize("slack", [0.0, 0.5])
def test_joins_and_leaves_change_no_token(session, known, slack):
    """Windows of mixed lengths and prompts come at any step, some are taken out: each says what mlx_whisper's does."""
    chance = random.Random(f"whisper-{slack}")
    rows = Rows(session._model, session._rules, no_speech=session._tokenizer.no_speech, slack=slack)
    waiting = [_row(session, known, number) for number in [*range(len(PIECES))] * 2]
    chance.shuffle(waiting)
    doomed, ended = set(chance.sample(waiting, 2)), []
    assert not rows.step()
    while waiting or len(rows):
        count = min(len(waiting), chance.choice([0, 0, 0, 1, 2]) if len(rows) else 1)
        if count:
            rows.join([waiting.pop() for _ in range(count)])
        ended += rows.step()
        rows.leave([row for row in rows.rows if row in doomed and len(row.tokens) > 5])
    assert len(ended) == 2 * len(PIECES) - len(doomed)
    for row in ended:
        said = known[row.owner][2]
        assert row.tokens == [int(token) for token in said.tokens]
        # What the rules forbid takes no share of the probability, which is a little more than mlx_whisper forbids.
        assert row.logprob / (len(row.tokens) + 1) == pytest.approx(said.avg_logprob, abs=0.01)
        assert row.no_speech_prob == pytest.approx(said.no_speech_prob, abs=1e-5)


def test_what_is_drawn_by_chance_depends_on_nobody_else(session, known):
    """At a temperature a window draws the same tokens alone and beside others, for the same number."""

    def hot(number):
        row = _row(session, known, number)
        row.temperature, row.seed = 0.8, 5
        return row

    def run(together):
        rows = Rows(session._model, session._rules, no_speech=session._tokenizer.no_speech)
        rows.join(together)
        while len(rows):
            rows.step()
        return together[0].tokens

    assert run([hot(2)]) == run([hot(2), _row(session, known, 1), hot(1)])


@pytest.fixture(name="murmur", scope="module")
def _murmur(tmp_path_factory):
    """Return a session on a model of random weights, which is unsure of everything, and recordings to be unsure of."""
    folder = tmp_path_factory.mktemp("murmur")
    model = WhisperRuntime().load(tiny_whisper(folder / "tiny"), {"dtype": "float32"})._model
    # The encoder's weights are random too: a part of the spectrogram serves as well, and costs nothing.
    session = WhisperSession(model, half=False, batch=4, encode=lambda _, mels: mels[:, ::2, :64])
    session._pace.places = lambda: 4
    session._pace.group = lambda: 2
    chance = np.random.default_rng(3)
    files = []
    for number, seconds in enumerate([2, 12, 33]):
        loud = np.repeat(chance.choice([0.0, 1.0, 1.0, 1.0], seconds * 2), 8000)
        sound = (chance.normal(size=seconds * 16_000) * 4000 * loud).astype(np.int16)
        files.append(str(write_wav(folder / f"{number}.wav", sound)))
    return session, files


def test_recordings_together_are_what_each_is_alone(murmur):
    """All lanes, both ways of going through a recording, all temperatures, a cancellation: same segments, same text."""
    session, files = murmur
    requests = {
        # Two temperatures: all six are as right, and take three times as long.
        f"{number}{previous}": {"file": file, "condition_on_previous_text": previous, "temperature": 0.8}
        for number, file in enumerate(files)
        for previous in (False, True)
    }
    alone = {}
    for name, request in requests.items():
        session.submit(name, request)
        alone[name] = drain(session)[name]
    for number, (name, request) in enumerate(requests.items()):
        session.submit(name, {**request, "lane": ["batch", "normal", "interactive"][number % 3]})
    session.submit("gone", {**requests["2False"], "lane": "batch"})
    together: dict[str, list] = {}
    for _ in range(40):
        for name, kind, data in session.step():
            together.setdefault(name, []).append((kind, data))
    session.cancel("gone")
    for name, told in drain(session).items():
        together.setdefault(name, []).extend(told)
    assert "done" not in [kind for kind, _ in together.pop("gone", [])]
    assert together.keys() == alone.keys()
    for name, told in alone.items():
        result, other = told[-1][1], together[name][-1][1]
        assert {**other, "realtime_factor": 0} == {**result, "realtime_factor": 0}
    assert sum(len(told[-1][1]["segments"]) for told in alone.values()) > 5


def test_an_interrupted_recording_goes_on_with_the_same_text(murmur):
    """From any checkpoint on the segments are those that an undisturbed run has; another sound begins anew."""
    session, files = murmur
    for previous in (False, True):
        request = {"file": files[2], "condition_on_previous_text": previous, "temperature": 0.8}
        session.submit("whole", request)
        told = drain(session)["whole"]
        whole = told[-1][1]
        marks = [data for kind, data in told if kind == "window"]
        assert len(marks) > 1
        for at, mark in list(enumerate(marks[:-1]))[-1:]:
            session.submit("rest", {**request, "resume": mark["state"]})
            rest = drain(session)["rest"]
            before = [data for kind, data in told[: told.index(("window", mark))] if kind == "segment"]
            assert before + rest[-1][1]["segments"] == whole["segments"]
            text = "".join(one["text"] for one in marks[: at + 1])
            text += "".join(data["text"] for kind, data in rest if kind == "window")
            assert text.strip() == whole["text"]
            assert rest[-1][1]["since"] == mark["state"]["frame"] / 100
        session.submit("other", {**request, "resume": {**marks[0]["state"], "digest": "0" * 32}})
        other = drain(session)["other"][-1][1]
        assert {**other, "realtime_factor": 0} == {**whole, "realtime_factor": 0}
