"""The runtime whisper: the spectrogram, the window rules, the session. Judged by mlx_whisper's own transcribe."""

import importlib
import itertools
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from fakes_models import drain, tiny_whisper
from fakes_sound import tone, write_wav
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from daemon.models.references import DEMO_MODELS
from plugins import mlx_process
from plugins import whisper_windows as windows
from plugins.whisper import WhisperRuntime
from plugins.whisper_request import parse

LANGUAGES = {"en": "english", "de": "german"}

# -- without a model --------------------------------------------------------------------------------------------------


def test_temperatures_rise_to_one():
    """From the first in steps of 0.2; one alone stays alone."""
    assert windows.temperatures(0.0) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert windows.temperatures(0.5) == (0.5, 0.7, 0.9)
    assert windows.temperatures(1.0) == (1.0,)


def attempt(**more):
    fair = {"tokens": [], "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}
    return windows.Attempt(**{**fair, **more})


def test_doubtful_windows_are_tried_again_and_silent_ones_skipped():
    """Loops and guesses get another temperature, silence does not; confident speech is never silence."""
    assert not windows.needs_another(attempt())
    assert windows.needs_another(attempt(compression_ratio=3.0))
    assert windows.needs_another(attempt(avg_logprob=-2.0))
    assert not windows.needs_another(attempt(avg_logprob=-2.0, no_speech_prob=0.9))
    assert windows.is_silent(attempt(avg_logprob=-2.0, no_speech_prob=0.9))
    assert not windows.is_silent(attempt(no_speech_prob=0.9))


def test_a_window_is_cut_at_pairs_of_timestamps():
    """0 is the token of 0.00 s below: pieces end at pairs, and what follows the last pair is decoded again."""
    cut = windows.cut([1000, 7, 1100, 1100, 8, 1200, 1200], size=3000, first_timestamp=1000)
    assert [(one.start, one.end) for one in cut.pieces] == [(0.0, 2.0), (2.0, 4.0)]
    assert (cut.advance, cut.closed) == (400, False)
    closed = windows.cut([1000, 7, 1100, 1100, 8, 1200], size=3000, first_timestamp=1000)
    assert (len(closed.pieces), closed.advance, closed.closed) == (2, 3000, True)


def test_a_window_always_moves_on():
    """A pair at zero, which would repeat the window for ever, counts as its whole length."""
    assert windows.cut([1000, 7, 1000, 1000], size=2000, first_timestamp=1000).advance == 2000
    assert windows.cut([], size=2000, first_timestamp=1000).advance == 2000


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({}, "file"),
        ({"file": "relative.wav"}, "absolute"),
        ({"file": "/a.wav", "language": "klingon"}, "klingon"),
        ({"file": "/a.wav", "language": "de"}, "English only"),
        ({"file": "/a.wav", "task": "translate"}, "English only"),
        ({"file": "/a.wav", "task": "sing"}, "task"),
        ({"file": "/a.wav", "temperature": 2}, "temperature"),
    ],
)
def test_a_wrong_request_is_refused_by_name(request_, match):
    """The message names the field, and an English model says what it is."""
    with pytest.raises(ValueError, match=match):
        parse(request_, languages=LANGUAGES, multilingual=False)


def test_languages_are_known_by_code_and_name():
    """German, de and DE are one language; none means detect."""
    for name in ("de", "German", " DE "):
        assert parse({"file": "/a", "language": name}, languages=LANGUAGES, multilingual=True).language == "de"
    assert parse({"file": "/a"}, languages=LANGUAGES, multilingual=True).language is None


# -- on real models ---------------------------------------------------------------------------------------------------


@pytest.fixture(name="tiny", scope="module")
def _tiny(tmp_path_factory):
    mlx_process.prepare()
    WhisperRuntime().load(tiny_whisper(tmp_path_factory.mktemp("w")), {}).close()
    return tiny_whisper(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(name="session", scope="module")
def _session(tiny):
    session = WhisperRuntime().load(tiny, {})
    yield session
    session.close()


@pytest.fixture(name="reference", scope="module")
def _reference(session):
    """mlx_whisper's transcribe, on the session's model."""
    sys.modules.pop("mlx_whisper.transcribe", None)
    stub = types.ModuleType("mlx_whisper.timing")
    stub.add_word_timestamps = None
    real = sys.modules.get("mlx_whisper.timing")
    sys.modules["mlx_whisper.timing"] = stub
    module = importlib.import_module("mlx_whisper.transcribe")
    if real is None:
        del sys.modules["mlx_whisper.timing"]
    else:
        sys.modules["mlx_whisper.timing"] = real
    module.ModelHolder.model, module.ModelHolder.model_path = session._model, "here"
    return lambda samples, **more: module.transcribe(
        samples.astype(np.float32) / 32768, path_or_hf_repo="here", fp16=False, language="en", **more
    )


@pytest.mark.models
@pytest.mark.parametrize("samples", [100, 5000, 480_000, 700_123])
def test_the_spectrogram_is_whispers_own(session, samples):
    """Computed piece by piece it has the same numbers as mlx_whisper's, at the edges too."""
    import mlx.core as mx
    from mlx_whisper.audio import N_SAMPLES, log_mel_spectrogram

    from plugins.mel import WINDOW, MelBuilder

    sound = np.random.default_rng(samples).normal(size=samples).astype(np.float32) / 10
    builder = MelBuilder(80)
    for start in range(0, samples, 160_001):
        builder.add(sound[start : start + 160_001])
    mel = builder.finish()
    expected = log_mel_spectrogram(sound, 80, padding=N_SAMPLES)

    assert mel.content == expected.shape[0] - WINDOW
    assert mx.allclose(mel.beginning(), expected[:WINDOW], atol=1e-5)
    if mel.content > WINDOW:
        assert mx.allclose(
            mel.window(mel.content - 900, 900)[:900], expected[mel.content - 900 : mel.content], atol=1e-5
        )
    assert mel.window(0, min(mel.content, WINDOW)).shape == (WINDOW, 80)


class Script:
    """A decoder that says what it was told to; then one plain sentence a window."""

    def __init__(self, results, first_timestamp):
        from mlx_whisper.decoding import DecodingResult

        self.made = DecodingResult
        self.results = list(results)
        self.first = first_timestamp
        self.prompts = []

    def __call__(self, model, mel, options):
        self.prompts.append(list(options.prompt or []))
        tokens, logprob, ratio, silence = self.results.pop(0) if self.results else ([0, 401, 100], -0.1, 1.0, 0.0)
        fixed = [self.first + token // 2 if token % 2 == 0 else token for token in tokens]
        return self.made(
            audio_features=None,
            language="en",
            tokens=fixed,
            avg_logprob=logprob,
            compression_ratio=ratio,
            no_speech_prob=silence,
            temperature=options.temperature,
        )


def _results():
    """Windows as a decoder may give them: odd numbers are text, even ones timestamps (twice the token)."""
    stamp = st.integers(1, 1500).map(lambda n: 2 * n)
    word = st.sampled_from([301, 543, 1001, 2001])
    tokens = st.lists(st.one_of(stamp, word), max_size=9).map(lambda rest: [0, *rest])
    return st.tuples(
        tokens, st.sampled_from([-0.1, -0.1, -2.0]), st.sampled_from([1.0, 1.0, 3.0]), st.sampled_from([0.0, 0.0, 0.9])
    )


@pytest.mark.models
@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # a busy machine is no mistake
)
@given(
    results=st.lists(_results(), max_size=12), condition=st.booleans(), prompt=st.sampled_from([None, "Anna, Peter"])
)
def test_windows_are_strung_together_as_mlx_whisper_does(  # noqa: PLR0917 - three fixtures and what hypothesis draws
    tmp_path_factory, session, reference, results, condition, prompt
):
    """For any decoder output: same prompts, same segments, same text, same silence, same fallbacks."""
    from mlx_whisper import decoding
    from mlx_whisper.whisper import Whisper

    for tokens, *_ in results:
        assume(not any(a % 2 == b % 2 == 0 and a == 0 for a, b in itertools.pairwise(tokens)))
    sound = tone(40)
    path = write_wav(tmp_path_factory.mktemp("sound") / "a.wav", sound)
    first = 50363
    with pytest.MonkeyPatch.context() as patch:
        theirs = Script(results, first)
        patch.setattr(Whisper, "decode", lambda *given: theirs(*given))  # noqa: PLW0108 - a function becomes a method
        expected = reference(sound, condition_on_previous_text=condition, initial_prompt=prompt)
        ours = Script(results, first)
        patch.setattr(decoding, "decode", ours)
        request = {"file": str(path), "condition_on_previous_text": condition, "initial_prompt": prompt}
        session.submit("x", request)
        told = drain(session)["x"]

    result = told[-1][1]
    assert ours.prompts == theirs.prompts
    assert result["text"] == expected["text"].strip()
    assert [(one["start"], one["end"], one["text"]) for one in result["segments"]] == [
        (round(one["start"], 3), round(one["end"], 3), one["text"].strip())
        for one in expected["segments"]
        if one["text"]
    ]
    assert [data for kind, data in told if kind == "segment"] == result["segments"]


@pytest.mark.models
@pytest.mark.parametrize("tokens", [[0, 301, 0, 0], [0, 301, 2, 2]])
def test_a_decoder_that_goes_round_in_circles_comes_to_an_end(tmp_path, session, monkeypatch, tokens):
    """Equal timestamps at zero, and steps of 20 ms, would take for ever or nearly; here the windows are bounded."""
    from mlx_whisper import decoding

    script = Script([(tokens, -0.1, 1.0, 0.0)] * 10_000, 50363)
    monkeypatch.setattr(decoding, "decode", script)
    session.submit("x", {"file": str(write_wav(tmp_path / "a.wav", tone(65)))})
    assert drain(session)["x"][-1][0] == "done"
    assert len(script.prompts) < 65 + 25


@pytest.mark.models
def test_recordings_take_turns_and_progress_is_told(tmp_path, session, monkeypatch):
    """Three recordings advance window by window; an interactive one overtakes; progress is in seconds."""
    from mlx_whisper import decoding

    monkeypatch.setattr(decoding, "decode", Script([], 50363))
    path = str(write_wav(tmp_path / "a.wav", tone(65)))
    for name in ("a", "b"):
        session.submit(name, {"file": path, "lane": "batch"})
    order = [event[0] for _ in range(4) for event in session.step()]
    assert order == ["a", "b", "a", "b"]
    session.submit("person", {"file": path, "lane": "interactive"})
    assert {event[0] for _ in range(3) for event in session.step()} == {"person"}
    told = drain(session)

    result = told["person"][-1][1]
    assert (result["duration"], result["language"], result["notes"]) == (65.0, "en", [])
    assert result["realtime_factor"] > 0
    progress = [(data["done"], data["total"]) for kind, data in told["a"] if kind == "progress"]
    assert progress[-1] == (65.0, 65.0)
    assert progress == sorted(progress)


@pytest.mark.models
def test_one_bad_file_hurts_nobody(tmp_path, session, monkeypatch):
    """Missing and broken files are invalid input, a decoder's failure is one request's, cancelled ones vanish."""
    from mlx_whisper import decoding

    script = Script([], 50363)

    def decode(model, mel, options):
        if options.prompt:
            raise RuntimeError("boom")
        return script(model, mel, options)

    monkeypatch.setattr(decoding, "decode", decode)
    (tmp_path / "text.wav").write_text("no sound at all " * 20)
    good = str(write_wav(tmp_path / "good.wav", tone(5)))
    session.submit("text", {"file": str(tmp_path / "text.wav")})
    session.submit("boom", {"file": good, "initial_prompt": "x"})
    session.submit("good", {"file": good})
    session.submit("gone", {"file": good})
    session.cancel("gone")
    session.cancel("unknown")
    told = drain(session)

    assert told["text"] == [("error", {"type": "invalid-input", "message": "text.wav holds text, not sound."})]
    assert told["boom"][-1][0] == "error"
    assert "boom" in told["boom"][-1][1]["message"]
    assert told["good"][-1][0] == "done"
    assert "gone" not in told


@pytest.mark.models
def test_a_real_decoder_runs_through_all_temperatures(tmp_path, session):
    """Random weights give doubtful windows: the fallback ends, twice with the same text, and says nothing odd."""
    path = str(write_wav(tmp_path / "a.wav", tone(3)))
    session.submit("a", {"file": path})
    session.submit("b", {"file": path})
    told = drain(session)
    assert told["a"][-1][0] == "done"
    assert told["a"][-1][1]["text"] == told["b"][-1][1]["text"]
    json.dumps(told, allow_nan=False)
    with pytest.raises(ValueError, match="file"):
        session.submit("c", {})


@pytest.mark.models
def test_the_language_is_detected_from_the_first_half_minute(tmp_path):
    """A multilingual model without a language is asked, as mlx_whisper asks it; closing drops unfinished files."""
    from mlx_whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim

    session = WhisperRuntime().load(tiny_whisper(tmp_path / "m", multilingual=True, bits=4), {})
    assert session.info["multilingual"] is True
    sound = tone(2)
    mel = log_mel_spectrogram(sound.astype(np.float32) / 32768, 80, padding=N_SAMPLES)
    _, probabilities = session._model.detect_language(pad_or_trim(mel, N_FRAMES, axis=-2))
    path = str(write_wav(tmp_path / "a.wav", sound))
    session.submit("x", {"file": path, "temperature": 1.0})
    assert drain(session)["x"][-1][1]["language"] == max(probabilities, key=probabilities.get)
    session.submit("y", {"file": path})
    list(session.step())
    session.close()
    assert not session.busy


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_words_have_times_and_are_plain_json(tmp_path, session, monkeypatch):
    """Word timestamps come from mlx_whisper's aligner, lie within the sound, and grow."""
    from mlx_whisper import decoding

    monkeypatch.setattr(decoding, "decode", Script([([0, 15947, 1001, 100, 100], -0.1, 1.0, 0.0)], 50363))
    session.submit("x", {"file": str(write_wav(tmp_path / "a.wav", tone(4))), "word_timestamps": True})
    result = drain(session)["x"][-1][1]
    json.dumps(result, allow_nan=False)
    words = result["segments"][0]["words"]
    assert words
    assert all(0 <= word["start"] <= word["end"] <= 4.1 for word in words)
    assert set(words[0]) == {"word", "start", "end", "probability"}


@pytest.mark.models
def test_the_number_format_is_checked(tiny):
    """Half precision on request, nonsense refused."""
    session = WhisperRuntime().load(tiny, {"dtype": "float16"})
    assert session.info["dtype"] == "float16"
    session.close()
    with pytest.raises(ValueError, match="dtype"):
        WhisperRuntime().load(tiny, {"dtype": "int8"})


@pytest.mark.models
def test_neither_torch_nor_numba_is_imported_to_transcribe(tmp_path, tiny):
    """In a fresh process a transcription imports mlx_whisper without its two heavy companions."""
    path = write_wav(tmp_path / "a.wav", tone(1))
    script = (
        "import sys\nfrom pathlib import Path\nfrom plugins.whisper import WhisperRuntime\n"
        f"session = WhisperRuntime().load(Path({str(tiny)!r}), {{}})\n"
        f"session.submit('x', {{'file': {str(path)!r}, 'temperature': 1.0}})\n"
        "kinds = []\n"
        "while session.busy:\n    kinds += [event[1] for event in session.step()]\n"
        "print(kinds[-1], [name for name in ('torch', 'numba', 'scipy') if name in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "done []"


@pytest.mark.models
@pytest.mark.skipif(not (DEMO_MODELS / "whisper" / "config.json").exists(), reason="the demo model is not trained yet")
def test_the_demo_model_hears_what_mlx_whisper_hears(tmp_path, demo_samples):
    """On real speech the transcription equals mlx_whisper.transcribe's on the same model."""
    session = WhisperRuntime().load(DEMO_MODELS / "whisper", {})
    module = importlib.import_module("mlx_whisper.transcribe")
    module.ModelHolder.model, module.ModelHolder.model_path = session._model, "demo"
    for path in demo_samples:
        session.submit("x", {"file": str(path), "language": "en"})
        ours = drain(session)["x"][-1][1]["text"]
        from plugins.audio import Sound

        samples = np.concatenate(list(Sound(path).pieces()))
        theirs = module.transcribe(samples, path_or_hf_repo="demo", fp16=False, language="en")["text"]
        assert ours == theirs.strip()
        assert ours
    session.close()


@pytest.fixture(name="demo_samples")
def _demo_samples():
    found = sorted((DEMO_MODELS / "samples").glob("*.flac"))
    if not found:
        pytest.skip("there are no spoken samples")
    return found
